//! The one place that turns a refusal into an HTTP answer.

use bytes::Bytes;
use serde_json::json;

use super::answer::set_header;
use super::wire::{GrpcStatus, HeaderMutation, HttpStatus, ImmediateResponse, ProcessingResponse, Response};
use crate::director::{Code, Refusal};

/// Header that says why load or an empty pool turned a request away.
pub(super) const DROPPED_REASON: &str = "x-llm-d-request-dropped-reason";

/// HTTP status of a code.
pub(super) fn http_status(code: Code) -> u16 {
    match code {
        Code::BadRequest => 400,
        Code::PreconditionFailed => 412,
        Code::PayloadTooLarge => 413,
        Code::ResourceExhausted => 429,
        Code::Internal => 500,
        Code::ServiceUnavailable => 503,
    }
}

/// gRPC status of a code.
fn grpc_status(code: Code) -> tonic::Code {
    match code {
        Code::BadRequest => tonic::Code::InvalidArgument,
        Code::PreconditionFailed => tonic::Code::FailedPrecondition,
        Code::PayloadTooLarge | Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::Internal => tonic::Code::Internal,
        Code::ServiceUnavailable => tonic::Code::Unavailable,
    }
}

/// `type` of the OpenAI error body.
fn error_type(code: Code) -> &'static str {
    match code {
        Code::BadRequest | Code::PayloadTooLarge | Code::PreconditionFailed => "invalid_request_error",
        Code::ResourceExhausted => "rate_limit_error",
        Code::Internal => "internal_error",
        Code::ServiceUnavailable => "service_unavailable_error",
    }
}

/// The answer to a refused request. gRPC clients get a gRPC status beside it.
pub(super) fn immediate(refusal: &Refusal, grpc_client: bool) -> ProcessingResponse {
    let code = refusal.reason.code();
    let body = json!({"error": {
        "message": refusal.to_string(),
        "type": error_type(code),
        "code": refusal.reason.label(),
    }});
    let mut set_headers = vec![set_header("content-type", Bytes::from_static(b"application/json"))];
    if let Some(reason) = refusal.reason.dropped() {
        set_headers.push(set_header(DROPPED_REASON, Bytes::from_static(reason.as_bytes())));
    }
    let response = ImmediateResponse {
        status: Some(HttpStatus { code: i32::from(http_status(code)) }),
        headers: Some(HeaderMutation { set_headers, remove_headers: Vec::new() }),
        body: body.to_string().into(),
        grpc_status: grpc_client.then(|| GrpcStatus { status: grpc_status(code) as u32 }),
        details: refusal.reason.label().to_owned(),
    };
    ProcessingResponse { response: Some(Response::ImmediateResponse(response)), dynamic_metadata: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::Reason;

    #[test]
    fn every_reason_has_a_status_a_json_body_and_the_reference_text_inside() {
        for reason in Reason::ALL {
            let refusal = Refusal::new(reason, "what happened");
            let Some(Response::ImmediateResponse(answer)) = immediate(&refusal, true).response else {
                unreachable!("a refusal is an immediate response");
            };
            assert!((400..600).contains(&answer.status.unwrap().code));
            assert_ne!(answer.grpc_status.unwrap().status, 0);
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            let text = match reason {
                Reason::Evicted => "what happened".to_owned(),
                _ => format!("inference error: {} - what happened", reason.code().name()),
            };
            assert_eq!(body["error"]["message"], text);
            assert_eq!(body["error"]["code"], reason.label());
        }
    }

    #[test]
    fn reasons_have_labels_of_their_own() {
        let labels: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
