//! Why a cycle chose nothing.

/// Why no endpoint was chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The filters of a profile left no endpoint.
    #[error("no endpoints available for the given request")]
    NothingLeft,
    /// The handler ran no profile at all.
    #[error("failed to run any scheduler profile for request {0}")]
    NoProfile(String),
    /// The profile that should answer has no result.
    #[error("{message}")]
    Failed {
        /// What failed.
        message: String,
        /// True if a profile's filters left nothing, which is the cause.
        nothing_left: bool,
    },
}

impl ScheduleError {
    /// True if the cause is that filters ruled out every endpoint.
    pub fn is_nothing_left(&self) -> bool {
        matches!(self, Self::NothingLeft | Self::Failed { nothing_left: true, .. })
    }
}
