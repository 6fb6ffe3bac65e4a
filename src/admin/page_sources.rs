//! What the page shows beside what the other pages know.

use std::sync::Arc;
use std::time::Duration;

/// What waits in flow control.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    /// Bands by falling priority.
    pub bands: Vec<BandRow>,
    /// Flows in which something waits, longest wait first; a bounded number of them.
    pub flows: Vec<FlowRow>,
}

/// A band of flow control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandRow {
    /// Its priority.
    pub priority: i32,
    /// Requests that wait.
    pub requests: u64,
    /// Bytes that wait.
    pub bytes: u64,
    /// Requests that may wait.
    pub max_requests: u64,
    /// Bytes that may wait.
    pub max_bytes: u64,
}

/// A flow in which something waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRow {
    /// Priority of its band.
    pub priority: i32,
    /// Fairness id.
    pub id: Arc<str>,
    /// How long its next request has waited.
    pub oldest: Duration,
}

/// Where the page's figures come from.
#[derive(Clone)]
pub struct PageSources {
    /// What waits; `None` without flow control.
    pub queues: Arc<dyn Fn() -> Option<Queues> + Send + Sync>,
    /// Age from which an endpoint's figures count as stale; `None` if endpoints are not read.
    pub staleness: Option<Duration>,
}
