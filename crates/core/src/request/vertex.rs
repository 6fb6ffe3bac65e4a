//! Messages of Vertex AI's `PredictionService`: a body of the OpenAI API inside of a message inside of a gRPC frame.

use std::ops::Range;

use super::error::Unread;
use super::openai;
use super::protobuf::{Fields, Value, framed};
use super::types::{Api, Inference};
use super::vllm_grpc::NO_FRAME;

/// `http_body` of the three requests; a `google.api.HttpBody`.
const HTTP_BODY: u32 = 2;
/// `data` of that.
pub(super) const DATA: u32 = 2;

/// Reads a request. A body that is none goes on as it came. The ranges of the body inside are moved to its place in the
/// message. The model in it is not replaced, because the lengths around it would have to change.
pub(super) fn parse(api: Api, body: &[u8]) -> Inference {
    let opaque = |why| Inference { api, unread: Some(Unread::Missing(why)), ..Inference::opaque() };
    let Some(message) = framed(body) else { return opaque(NO_FRAME) };
    let Some(data) = field(body, message, HTTP_BODY).and_then(|inner| field(body, inner, DATA)) else {
        return opaque("the request has no HttpBody");
    };
    let inner_api = if api == Api::VertexChat { Api::ChatCompletions } else { Api::Responses };
    let inner = body.get(data.clone()).unwrap_or_default();
    match openai::parse(inner_api, inner) {
        Ok(inference) => Inference { api, ..inference.moved(data.start as u32) },
        Err(_) => opaque("the HttpBody is no JSON object"),
    }
}

/// The last value of a field of a message, if it is one with bytes.
fn field(body: &[u8], message: Range<usize>, wanted: u32) -> Option<Range<usize>> {
    let mut fields = Fields::within(body, message);
    let mut found = None;
    for (field, value) in fields.by_ref() {
        if let (true, Value::Range(range)) = (field == wanted, value) {
            found = Some(range);
        }
    }
    found.filter(|_| !fields.is_broken())
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::{bytes_field, frame};
    use super::super::types::Piece;
    use super::*;

    fn body(json: &str) -> Vec<u8> {
        let http_body = [bytes_field(1, b"application/json"), bytes_field(2, json.as_bytes())].concat();
        frame(&[bytes_field(1, b"projects/p/locations/l/endpoints/e"), bytes_field(2, &http_body)].concat())
    }

    #[test]
    fn the_chat_inside_is_read_where_it_lies() {
        let json =
            r#"{"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":5,"cache_salt":"s"}"#;
        let body = body(json);
        let inference = parse(Api::VertexChat, &body);
        assert_eq!((inference.unread, inference.max_output_tokens), (None, Some(5)));
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.text(&body).into_owned(),
            other => panic!("{other:?}"),
        };
        let texts: String = inference.prompt.pieces.iter().map(text).collect();
        assert_eq!(texts, "userhello");
        assert_eq!(inference.cache_salt.unwrap().text(&body), "s");
        assert!(!inference.is_rewritable() && inference.model.is_none());
    }

    #[test]
    fn raw_predictions_hold_a_response() {
        let body = body(r#"{"input":"hello","stream":true}"#);
        let inference = parse(Api::VertexRaw, &body);
        assert!(inference.stream && inference.prompt.pieces.len() == 1, "{inference:?}");
    }

    #[test]
    fn what_is_no_such_message_goes_on_unread() {
        for bytes in [b"".to_vec(), frame(b""), frame(&bytes_field(2, b"\xff")), body("no json"), body("[1]")]
        {
            let inference = parse(Api::VertexChat, &bytes);
            assert!(inference.unread.is_some() && inference.prompt.pieces.is_empty(), "{bytes:?}");
        }
    }
}
