//! Documents that people write: YAML or JSON with line numbers, read strictly, with every fault reported at once.
//!
//! A document becomes a tree of [`Node`]s that know their lines. [`Fields`] walks a mapping by field name and says
//! which of its fields nobody asked for. Findings gather in [`Problems`]. Scalars of Go and Kubernetes have readers in
//! [`scalar`].

mod fields;
mod labels;
mod nearest;
mod node;
mod parse;
mod problems;
pub mod scalar;

pub use fields::Fields;
pub use labels::{LabelQuery, check_selector, is_label_key, is_label_value};
pub use nearest::{hint, nearest};
pub use node::{Key, Node, NodeValue};
pub use parse::{MAX_DOCUMENT_BYTES, SyntaxError, parse};
pub use problems::{Level, Problem, Problems};

#[cfg(test)]
mod tests;
