//! Plugins that tell the proxy of complete responses: one file a plugin.

pub mod request_attribute;
