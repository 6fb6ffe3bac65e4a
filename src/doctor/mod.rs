//! `pointsman doctor`: finds what is wrong with an installation. The input is facts about a running picker, its
//! configuration, its model servers, the cluster and Envoy. The output is findings.
//!
//! A rule is a pure function. Nothing is fetched here: [`crate::cli`] gathers the facts. Each file holds one family of
//! rules, and [`RULES`] lists all of them.

pub mod blocks;
pub mod cluster;
pub mod configuration;
pub mod engines;
pub mod envoy;
mod finding;
pub mod monitoring;
pub mod page;
pub mod picker;
pub mod pods;
pub mod replicas;
mod rules;
#[cfg(test)]
mod rules_doc;
pub mod waits;

pub use finding::{Family, Finding, Rule, Severity, few, texts};
pub use rules::RULES;
