//! Plugins that rule endpoints out for all profiles: one file a plugin.

pub mod rollout;
