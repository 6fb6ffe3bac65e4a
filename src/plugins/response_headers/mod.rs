//! Plugins that act on response headers alone: one file a plugin.

pub mod served_verifier;
