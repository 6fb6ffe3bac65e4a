//! Plugins that name the flow of a request: one file a plugin.

pub mod agent_identity;
