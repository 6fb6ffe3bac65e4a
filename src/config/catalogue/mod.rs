//! The plugin types as people see them: `pointsman plugins`, `pointsman schema` and `docs/plugins.md`, all from the
//! registry, the types of the parameters and their doc comments.
//!
//! | file | what |
//! |---|---|
//! | `entries` | the types, those that are built and the others |
//! | `parameters` | the schema of a plugin's parameters → rows of path, type, default and meaning |
//! | `example` | a document in which a plugin has its place |
//! | `listing` | the texts of `pointsman plugins` |
//! | `document` | the form of `EndpointPickerConfig` but for the parameters, as Rust types |
//! | `json_schema` | JSON Schema of the whole document |

mod document;
mod entries;
mod example;
mod json_schema;
mod listing;
#[cfg(test)]
mod page;
mod parameters;

pub use json_schema::json_schema;
pub use listing::{explain_plugin, list_plugins};
