//! Why a cycle chose nothing.

/// Why no endpoint was chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The filters of a profile left no endpoint.
    #[error("no endpoints available for the given request")]
    NothingLeft,
    /// No endpoint of the pool does what the profile is for.
    #[error("no endpoint has the role {role}")]
    NoneOfRole {
        /// The role.
        role: &'static str,
    },
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
    /// No endpoint has this role.
    NoneOfRole(&'static str),
    /// The profiles are set up wrongly, or something else went wrong.
    Other,
}

impl ScheduleError {
    /// The failure that `message` tells of, after these errors of profiles. Endpoints that other filters ruled out may
    /// come back soon, and so that cause goes before a role that nobody has.
    pub fn failed<'e>(message: String, errors: impl Iterator<Item = &'e ScheduleError> + Clone) -> Self {
        let cause = if errors.clone().any(Self::is_nothing_left) {
            FailureCause::NothingLeft
        } else {
            errors
                .into_iter()
                .find_map(Self::missing_role)
                .map_or(FailureCause::Other, FailureCause::NoneOfRole)
        };
        Self::Failed { message, cause }
    }

    /// The role that the request needs and no endpoint has, if that is the cause.
    pub fn missing_role(&self) -> Option<&'static str> {
        match self {
            Self::NoneOfRole { role } | Self::Failed { cause: FailureCause::NoneOfRole(role), .. } => {
                Some(role)
            }
            Self::NothingLeft | Self::NoProfile(_) | Self::Failed { .. } => None,
        }
    }

    /// True if the cause is that filters ruled out every endpoint.
    pub fn is_nothing_left(&self) -> bool {
        matches!(self, Self::NothingLeft | Self::Failed { cause: FailureCause::NothingLeft, .. })
    }
}
