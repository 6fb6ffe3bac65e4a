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
        /// The part that failed.
        message: String,
        /// Why.
        cause: FailureCause,
    },
}

/// Why the profile that should answer has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// The filters of a profile left nothing.
    NothingLeft,
    /// The profiles are set up wrongly, or something else went wrong.
    Other,
}

impl ScheduleError {
    /// The failure that `message` tells of, after these errors of profiles.
    pub fn failed(message: String, errors: &[(usize, ScheduleError)]) -> Self {
        let nothing_left = errors.iter().any(|(_, error)| error.is_nothing_left());
        let cause = if nothing_left { FailureCause::NothingLeft } else { FailureCause::Other };
        Self::Failed { message, cause }
    }

    /// True if the cause is that filters ruled out every endpoint.
    pub fn is_nothing_left(&self) -> bool {
        matches!(self, Self::NothingLeft | Self::Failed { cause: FailureCause::NothingLeft, .. })
    }
}
