//! The one place that turns a refusal into an HTTP answer.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::json;

use super::answer::set_header;
use super::wire::{
    GrpcStatus, HeaderMutation, HeaderValueOption, HttpStatus, ImmediateResponse, ProcessingResponse,
    Response,
};
use crate::director::{Code, Refusal, retry_after_seconds};
use crate::request::{ErrorForm, Headers};

/// Header that says why load or an empty pool turned a request away.
pub(super) const DROPPED_REASON: &str = "x-llm-d-request-dropped-reason";

/// Most bytes of a text in `grpc-message`: clients bound their headers.
const MAX_GRPC_MESSAGE: usize = 1024;

/// The client's headers that are kept for the case that its request is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Caller {
    form: ErrorForm,
    /// A number that differs between requests.
    share: u64,
}

impl Caller {
    /// The client that sent these request headers.
    pub(super) fn of(headers: &Headers) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(headers.first("x-request-id").map(AsRef::as_ref).unwrap_or_default());
        Self { form: ErrorForm::of(headers), share: hasher.finish() }
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
fn openai_type(code: Code) -> &'static str {
    match code {
        Code::BadRequest | Code::PayloadTooLarge | Code::PreconditionFailed => "invalid_request_error",
        Code::ResourceExhausted => "rate_limit_error",
        Code::Internal => "internal_error",
        Code::ServiceUnavailable => "service_unavailable_error",
    }
}

/// `type` of the Anthropic error body.
fn anthropic_type(code: Code) -> &'static str {
    match code {
        Code::BadRequest | Code::PreconditionFailed => "invalid_request_error",
        Code::PayloadTooLarge => "request_too_large",
        Code::ResourceExhausted => "rate_limit_error",
        Code::Internal => "api_error",
        Code::ServiceUnavailable => "overloaded_error",
    }
}

/// The answer to a refused request, in the form of the API that was called.
pub(super) fn immediate(refusal: &Refusal, caller: Caller) -> ProcessingResponse {
    let code = refusal.reason.code();
    let text = refusal.to_string();
    let mut set_headers = Vec::with_capacity(5);
    let body: Bytes = match caller.form {
        ErrorForm::OpenAi => {
            set_headers.push(json_type());
            let error = json!({"message": text, "type": openai_type(code), "code": refusal.reason.label()});
            json!({ "error": error }).to_string().into()
        }
        ErrorForm::Anthropic => {
            set_headers.push(json_type());
            let error = json!({"type": anthropic_type(code), "message": text});
            json!({"type": "error", "error": error}).to_string().into()
        }
        // Proxies put the body into `grpc-message`, and answer with headers alone.
        ErrorForm::Grpc => {
            let text = shortened(&text, MAX_GRPC_MESSAGE);
            set_headers.push(set_header("content-type", Bytes::from_static(b"application/grpc")));
            set_headers.push(set_header("grpc-message", percent_encoded(text).into()));
            Bytes::copy_from_slice(text.as_bytes())
        }
        ErrorForm::GrpcWeb | ErrorForm::GrpcWebText => {
            let status = (grpc_status(code) as i32).to_string();
            let message = percent_encoded(shortened(&text, MAX_GRPC_MESSAGE));
            let frame = trailers_frame(&status, &message);
            let (content_type, body): (&'static [u8], Vec<u8>) = match caller.form {
                ErrorForm::GrpcWebText => {
                    (b"application/grpc-web-text+proto", BASE64_STANDARD.encode(frame).into())
                }
                _ => (b"application/grpc-web+proto", frame),
            };
            set_headers.push(set_header("content-type", Bytes::from_static(content_type)));
            set_headers.push(set_header("grpc-status", status.into()));
            set_headers.push(set_header("grpc-message", message.into()));
            body.into()
        }
    };
    if let Some(reason) = refusal.reason.dropped() {
        set_headers.push(set_header(DROPPED_REASON, Bytes::from_static(reason.as_bytes())));
    }
    if matches!(code, Code::ResourceExhausted | Code::ServiceUnavailable) {
        let seconds = refusal
            .retry_after
            .unwrap_or_else(|| retry_after_seconds(std::time::Duration::ZERO, caller.share));
        set_headers.push(set_header("retry-after", seconds.to_string().into()));
    }
    let is_web = matches!(caller.form, ErrorForm::GrpcWeb | ErrorForm::GrpcWebText);
    let status = if is_web { 200 } else { code.status() };
    let response = ImmediateResponse {
        status: Some(HttpStatus { code: i32::from(status) }),
        headers: Some(HeaderMutation { set_headers, remove_headers: Vec::new() }),
        body,
        grpc_status: (caller.form == ErrorForm::Grpc)
            .then(|| GrpcStatus { status: grpc_status(code) as u32 }),
        details: refusal.reason.label().to_owned(),
    };
    ProcessingResponse {
        response: Some(Response::ImmediateResponse(response)),
        ..ProcessingResponse::default()
    }
}

/// The trailers of gRPC-Web as a frame of its body. They stand in the headers too, but a proxy that answers by itself
/// drops the content type of an answer without a body.
fn trailers_frame(status: &str, message: &str) -> Vec<u8> {
    const TRAILERS: u8 = 0x80;
    let trailers = format!("grpc-status: {status}\r\ngrpc-message: {message}\r\n");
    let length = u32::try_from(trailers.len()).unwrap_or_default();
    [&[TRAILERS][..], &length.to_be_bytes(), trailers.as_bytes()].concat()
}

fn json_type() -> HeaderValueOption {
    set_header("content-type", Bytes::from_static(b"application/json"))
}

/// The text, cut to at most `limit` bytes at a character's border.
fn shortened(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

/// The text as a gRPC status message: bytes that are not printable ASCII, and the percent sign, as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::Reason;

    fn answer(reason: Reason, form: ErrorForm) -> ImmediateResponse {
        let refusal = Refusal::new(reason, "what happened: 100 %\n");
        let Some(Response::ImmediateResponse(answer)) =
            immediate(&refusal, Caller { form, share: 7 }).response
        else {
            unreachable!("a refusal is an immediate response");
        };
        answer
    }

    fn header(answer: &ImmediateResponse, name: &str) -> Option<String> {
        let headers = &answer.headers.as_ref().unwrap().set_headers;
        let headers = headers.iter().filter_map(|option| option.header.as_ref());
        let mut named = headers.filter(|header| header.key == name);
        let found = named.next().map(|header| String::from_utf8(header.raw_value.to_vec()).unwrap());
        assert!(named.next().is_none(), "{name} twice");
        found
    }

    fn text(reason: Reason) -> String {
        match reason {
            Reason::Evicted => "what happened: 100 %\n".to_owned(),
            _ => format!("inference error: {} - what happened: 100 %\n", reason.code().name()),
        }
    }

    #[test]
    fn every_reason_has_a_status_a_json_body_and_the_reference_text_inside() {
        for reason in Reason::ALL {
            let answer = answer(reason, ErrorForm::OpenAi);
            assert!((400..600).contains(&answer.status.as_ref().unwrap().code));
            assert!(answer.grpc_status.is_none());
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["error"]["message"], text(reason));
            assert_eq!(body["error"]["code"], reason.label());
        }
    }

    #[test]
    fn every_refusal_on_an_anthropic_path_has_anthropics_form() {
        for reason in Reason::ALL {
            let answer = answer(reason, ErrorForm::Anthropic);
            let kind = match answer.status.as_ref().unwrap().code {
                413 => "request_too_large",
                429 => "rate_limit_error",
                500 => "api_error",
                503 => "overloaded_error",
                _ => "invalid_request_error",
            };
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body, json!({"type": "error", "error": {"type": kind, "message": text(reason)}}));
        }
    }

    #[test]
    fn every_refusal_of_a_grpc_client_is_a_grpc_status() {
        for reason in Reason::ALL {
            let answer = answer(reason, ErrorForm::Grpc);
            assert_ne!(answer.grpc_status.as_ref().unwrap().status, 0);
            assert_eq!(answer.body, text(reason));
            assert_eq!(header(&answer, "content-type").unwrap(), "application/grpc");
            let message = header(&answer, "grpc-message").unwrap();
            assert_eq!(message, text(reason).replace('%', "%25").replace('\n', "%0A"));
        }
        let long = Refusal::new(Reason::InvalidBody, "ö".repeat(5000));
        let Some(Response::ImmediateResponse(answer)) =
            immediate(&long, Caller { form: ErrorForm::Grpc, share: 0 }).response
        else {
            unreachable!("a refusal is an immediate response");
        };
        assert!(answer.body.len() <= MAX_GRPC_MESSAGE && std::str::from_utf8(&answer.body).is_ok());
    }

    #[test]
    fn every_refusal_of_a_grpc_web_client_is_a_status_in_headers_and_in_a_frame_of_trailers() {
        for (form, content_type) in [
            (ErrorForm::GrpcWeb, "application/grpc-web+proto"),
            (ErrorForm::GrpcWebText, "application/grpc-web-text+proto"),
        ] {
            for reason in Reason::ALL {
                let answer = answer(reason, form);
                assert_eq!(answer.status.as_ref().unwrap().code, 200);
                assert!(answer.grpc_status.is_none());
                assert_eq!(header(&answer, "content-type").unwrap(), content_type);
                let status: i32 = header(&answer, "grpc-status").unwrap().parse().unwrap();
                assert!((1..=16).contains(&status), "{status}");
                let message = header(&answer, "grpc-message").unwrap();
                assert_eq!(message, text(reason).replace('%', "%25").replace('\n', "%0A"));
                let body = match form {
                    ErrorForm::GrpcWebText => BASE64_STANDARD.decode(&answer.body).unwrap(),
                    _ => answer.body.to_vec(),
                };
                let (head, trailers) = body.split_first_chunk::<5>().unwrap();
                assert_eq!(
                    (head[0], u32::from_be_bytes(head[1..].try_into().unwrap())),
                    (0x80, trailers.len() as u32)
                );
                let expected = format!("grpc-status: {status}\r\ngrpc-message: {message}\r\n");
                assert_eq!(String::from_utf8_lossy(trailers), expected);
                let may_come_again = matches!(reason.code().status(), 429 | 503);
                assert_eq!(header(&answer, "retry-after").is_some(), may_come_again);
            }
        }
    }

    #[test]
    fn every_429_and_503_says_when_to_come_again_and_nothing_else_does() {
        for reason in Reason::ALL {
            for form in [ErrorForm::OpenAi, ErrorForm::Anthropic, ErrorForm::Grpc] {
                let answer = answer(reason, form);
                let retry = header(&answer, "retry-after").map(|text| text.parse::<u64>().unwrap());
                match answer.status.as_ref().unwrap().code {
                    429 | 503 => assert!(matches!(retry, Some(1..=60)), "{reason:?}: {retry:?}"),
                    _ => assert_eq!(retry, None, "{reason:?}"),
                }
            }
        }
    }

    #[test]
    fn reasons_have_labels_of_their_own() {
        let labels: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
