//! Answers that the sidecar makes itself.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

/// An error for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// What happened, for people.
    pub message: String,
}

impl Refusal {
    /// An error of this status.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The class of the error, as model servers name it.
    pub(super) fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "BadRequestError",
            StatusCode::FORBIDDEN => "ForbiddenError",
            StatusCode::PAYLOAD_TOO_LARGE => "PayloadTooLarge",
            StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            StatusCode::GATEWAY_TIMEOUT => "GatewayTimeout",
            StatusCode::BAD_GATEWAY => "BadGateway",
            _ => "InternalServerError",
        }
    }

    /// The body: members for clients of the sidecar's first releases, and the object `error` for those of newer model
    /// servers.
    pub(super) fn body(&self) -> Bytes {
        let (kind, code) = (self.kind(), self.status.as_u16());
        let body = json!({
            "object": "error",
            "message": self.message,
            "type": kind,
            "param": null,
            "code": code,
            "error": { "message": self.message, "type": kind, "param": null, "code": code },
        });
        Bytes::from(body.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_can_be_read_by_old_and_new_clients() {
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "a \"quoted\" reason");
        let body: serde_json::Value = serde_json::from_slice(&refusal.body()).unwrap();
        assert_eq!((&body["code"], &body["type"]), (&503.into(), &"ServiceUnavailable".into()));
        assert_eq!(body["error"]["message"], body["message"]);
    }
}
