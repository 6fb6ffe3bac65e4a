//! Classifies failed calls to the API server by what they mean for the caller.

use kube::Error;
use kube::runtime::watcher;

/// Kinds of failure, by what the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The kind of object is not known to the server: its definition is not installed.
    Absent,
    /// Our account may not do that.
    Forbidden,
    /// The version of an object or a watch is too old: read it again.
    Expired,
    /// The server turned the request down for what it says.
    Refused,
    /// No answer, or one that promises nothing: try again.
    Unavailable,
}

impl Failure {
    /// Name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Forbidden => "forbidden",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }

    /// The failure behind a status code of the API.
    pub fn of_code(code: u16) -> Self {
        match code {
            // 401: the token is not accepted; for the caller the same as not being allowed.
            401 | 403 => Self::Forbidden,
            404 => Self::Absent,
            409 | 410 => Self::Expired,
            400 | 405 | 406 | 415 | 422 => Self::Refused,
            _ => Self::Unavailable,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        match error {
            Error::Api(status) => Self::of_code(status.code),
            // The server speaks of something else than we expect.
            Error::SerdeError(_) => Self::Refused,
            _ => Self::Unavailable,
        }
    }
}

impl From<&watcher::Error> for Failure {
    fn from(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::from(error),
            watcher::Error::WatchError(status) => Self::of_code(status.code),
            watcher::Error::NoResourceVersion => Self::Refused,
        }
    }
}

/// The error with what is behind it, as far as it does not say that itself: that a connection failed is of no use
/// without why.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_failed_connection_is_told_once() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "nobody listens");
        let error = Error::Service(Box::new(std::io::Error::other(refused)));
        assert_eq!(told(&error), "ServiceError: nobody listens");
        let error = watcher::Error::InitialListFailed(error);
        assert_eq!(told(&error), "failed to perform initial object list: ServiceError: nobody listens");
    }

    #[test]
    fn codes_mean_what_the_caller_can_do() {
        let of = |codes: &[u16]| codes.iter().map(|code| Failure::of_code(*code)).collect::<Vec<_>>();
        assert_eq!(of(&[401, 403, 404]), [Failure::Forbidden, Failure::Forbidden, Failure::Absent]);
        assert_eq!(of(&[409, 410, 422]), [Failure::Expired, Failure::Expired, Failure::Refused]);
        assert_eq!(of(&[429, 500, 503, 504]), [Failure::Unavailable; 4]);
    }
}
