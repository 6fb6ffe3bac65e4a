//! The running configuration on the metrics port.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;

/// The result of a reload.
#[derive(Clone, Debug, PartialEq)]
pub struct Reloaded {
    /// True if the new configuration was refused. The former one then stays in force.
    pub refused: bool,
    /// The page with the result.
    pub page: Value,
}

/// Shows the running configuration, and takes over a changed one.
#[derive(Clone)]
pub struct Reloading {
    /// The page of the running configuration.
    pub show: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Takes it over; blocks while plugins are built.
    pub reload: Arc<dyn Fn() -> Reloaded + Send + Sync>,
    pub(super) turns: Arc<Semaphore>,
}

/// Reloads that are under way or wait for one.
const TURNS: usize = 2;

impl Reloading {
    /// Both.
    pub fn new(
        show: impl Fn() -> Value + Send + Sync + 'static,
        reload: impl Fn() -> Reloaded + Send + Sync + 'static,
    ) -> Self {
        Self { show: Arc::new(show), reload: Arc::new(reload), turns: Arc::new(Semaphore::new(TURNS)) }
    }
}
