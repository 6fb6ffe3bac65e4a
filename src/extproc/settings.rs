//! Bounds and modes of the service.

use std::sync::Arc;
use std::time::Duration;

use super::{MachineSettings, Modes};
use crate::director::BodyBudget;

/// Time without messages after which a stream is ended, by default.
const DEFAULT_STREAM_IDLE: Duration = Duration::from_hours(1);

/// Bounds and modes of the service.
#[derive(Clone, Debug)]
pub struct ExtProcSettings {
    /// Bounds and modes of each stream.
    pub machine: MachineSettings,
    /// Streams open at once, 0 = no bound.
    pub max_streams: u64,
    /// Time without a message after which a stream is ended, 0 = never.
    pub stream_idle_timeout: Duration,
    /// Largest message taken, in bytes.
    pub max_receive_bytes: usize,
    /// Largest message sent, in bytes.
    pub max_send_bytes: usize,
}

impl Default for ExtProcSettings {
    fn default() -> Self {
        Self {
            machine: MachineSettings {
                modes: Modes::default(),
                body_limit: 64 << 20,
                budget: Arc::new(BodyBudget::new(512 << 20)),
            },
            max_streams: 100_000,
            stream_idle_timeout: DEFAULT_STREAM_IDLE,
            max_receive_bytes: 4 << 20,
            max_send_bytes: usize::MAX,
        }
    }
}
