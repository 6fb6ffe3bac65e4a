//! The catalogue: one file a plugin, one line a plugin in [`REGISTRY`].

pub mod admitters;
mod attributes;
mod build;
mod build_error;
mod by_age;
#[cfg(test)]
mod cases;
pub mod deciders;
pub mod discovery;
mod drawn;
#[cfg(test)]
mod edge_cases;
#[cfg(test)]
mod edge_parameters;
pub mod filters;
#[cfg(test)]
mod fixture;
pub mod flow_control;
pub mod flow_namers;
pub mod former_filters;
mod latency_objective;
mod load_producer;
mod params;
pub mod parsers;
pub mod pickers;
mod plugin_type;
pub mod producers;
pub mod profiles;
mod prompt_size;
mod registry;
pub mod reporters;
pub mod response_headers;
mod roles;
mod routing_headers;
pub mod scorers;
pub mod screeners;
pub mod sources;
pub mod topology;
#[cfg(test)]
mod worked_cases;

pub use build::{
    BuildCx, ColumnKey, Consumption, DeciderReference, DeciderSlot, FilterReference, FilterSlot,
    ParametersSchema,
};
pub use build_error::BuildError;
pub use plugin_type::{PluginType, Stability, Superseded};
pub use registry::{REGISTRY, Registry, registry_with};
pub use roles::{FileDiscoverySpec, Roles, StateReader};
