//! The switch of the capture on the metrics port.

use std::sync::Arc;

use serde_json::Value;

/// Why the capture was not switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchError {
    /// What was asked for cannot be understood.
    Asked(String),
    /// It cannot be done.
    Failed(String),
}

/// Does what the body of a request asks for.
pub type Switch = dyn Fn(&[u8]) -> Result<Value, SwitchError> + Send + Sync;

/// Shows how the capture stands, and switches it.
#[derive(Clone)]
pub struct CaptureSwitch {
    /// The page.
    pub show: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Does what the body of a request asks for, and answers the page. It may block for some seconds.
    pub switch: Arc<Switch>,
}
