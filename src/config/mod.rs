//! `EndpointPickerConfig`: what was written ([`Document`]), what will run ([`Plan`]), and everything wrong or
//! suspicious on the way ([`Problems`](crate::document::Problems)).
//!
//! | file | what |
//! |---|---|
//! | `source` | the text: a file, a flag, or the built-in default |
//! | `config_map` | an object of Kubernetes → the text that it holds |
//! | `former` | forms of earlier releases → today's |
//! | `migrate` | the text of a document in an earlier form → its text in today's |
//! | `schema`, `reference`, `data_layer`, `cross_replica`, `flow_control`, `gates` | text → [`Document`]; unknown and repeated fields, types, ranges |
//! | `resolve` | [`Document`] → [`Plan`], in the steps below |
//! | `resolver` | what the steps work on: instances and problems; looks references up |
//! | `construct`, `instance`, `instances`, `known`, `missing` | plugin types → plugin instances |
//! | `profiles`, `wiring`, `producers`, `flow_settings` | defaults and references: profiles, parsers and data layer, data producers and their order, flow control |
//! | `unused` | what has no effect |
//! | `explain` | the effective configuration as text |
//! | `catalogue` | the plugin types as text, JSON Schema of the document |

mod carry;
mod carrying;
mod catalogue;
mod changes;
mod config_map;
mod construct;
mod cross_replica;
mod data_layer;
mod explain;
mod flow_control;
mod flow_settings;
mod former;
mod gates;
mod instance;
mod instances;
mod known;
mod migrate;
mod missing;
mod names;
mod options;
mod plan;
mod producers;
mod profiles;
mod reference;
mod resolve;
mod resolver;
mod schema;
mod source;
mod unused;
mod wiring;

pub use carry::Carried;
pub use catalogue::{explain_plugin, json_schema, list_plugins};
pub use changes::line_changes;
pub use cross_replica::{RedisServer, RedisUrl};
pub use data_layer::{DataLayer, Source};
pub use flow_control::{FlowControl, PriorityBand, SaturationDetector};
pub use gates::FeatureGates;
pub use migrate::{Migrated, migrate};
pub use options::LoadOptions;
pub use plan::{Origin, Plan, PlannedInstance};
pub use reference::Reference;
pub use resolve::load;
pub use schema::{Document, PluginEntry, ProfileEntry, ProfileRef};
pub use source::ConfigSource;

#[cfg(test)]
mod tests;
