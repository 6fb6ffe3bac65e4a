//! Whether this replica's numbers are the pool's.

/// The way in which a scaler treats questions. Only one of several replicas knows the requests that wait and run;
/// another's zero would end a busy pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It answers: its numbers are the pool's.
    #[default]
    Answering,
    /// Another replica answers, or none yet. Streams end in order, questions get UNAVAILABLE, and connections are
    /// closed.
    Standby,
    /// As on standby, and for good: the process ends.
    Closed,
}
