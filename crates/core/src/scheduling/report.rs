//! What plugins tell the proxy of a response that is complete.

use std::sync::Arc;

use crate::request::Usage;

/// A figure for the proxy's dynamic metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// Namespace of the metadata.
    pub namespace: Arc<str>,
    /// Key within it.
    pub name: Arc<str>,
    /// The figure; finite.
    pub value: f64,
}

/// Tells the proxy something of a response.
pub trait UsageReporter: Send + Sync {
    /// The figure for a complete response that reported this usage; `None` for nothing.
    fn report(&self, usage: &Usage) -> Option<Reported>;
}
