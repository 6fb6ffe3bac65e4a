//! Errors in the words of vLLM.

use http::StatusCode;

use crate::engine::SubmitError;

/// An error that answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The text for people.
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    pub(crate) fn unknown_model(model: &str) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: format!("The model `{model}` does not exist.") }
    }

    /// The JSON body.
    pub(crate) fn body(&self) -> String {
        let kind = match self.status {
            StatusCode::NOT_FOUND => "NotFoundError",
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => "BadRequestError",
            StatusCode::TOO_MANY_REQUESTS => "RateLimitError",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableError",
            _ => "InternalServerError",
        };
        let message = super::json::quoted(&self.message);
        let code = self.status.as_u16();
        format!(r#"{{"error":{{"message":{message},"type":"{kind}","param":null,"code":{code}}}}}"#)
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let status = match error {
            SubmitError::QueueFull => StatusCode::SERVICE_UNAVAILABLE,
            SubmitError::TooLong { .. } | SubmitError::EmptyPrompt => StatusCode::BAD_REQUEST,
        };
        Self { status, message: error.to_string() }
    }
}
