//! Errors that the sidecar answers with itself.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

/// An error for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The HTTP status of the answer.
    pub status: StatusCode,
    /// What went wrong, as a text for people.
    pub message: String,
}

impl Refusal {
    /// Makes an error with this status.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The `type` of the error, named as model servers name theirs.
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

    /// The JSON body. Its top-level members are for clients written against the first releases of the sidecar; the
    /// object `error` has the form that newer model servers use.
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
