//! Bodies of which the model alone is read.

use std::ops::Range;

use super::envelope::read_body;
use super::error::{ScanError, Unread};
use super::media_type::BodyKind;
use super::types::{Api, Inference, JsonStr};
use super::{lenient, multipart, urlencoded};

/// Reads the model of a body of this content type, which is empty if there is none. A body that names no model cannot
/// be rewritten, so that no member is put into a document of an unknown kind.
pub(super) fn read(content_type: &[u8], body: &[u8]) -> Inference {
    match BodyKind::of_body(content_type, body) {
        BodyKind::Form => multipart::read(content_type, body)
            .unwrap_or_else(|fault| Inference { unread: Some(Unread::Form(fault)), ..Inference::opaque() }),
        BodyKind::Pairs => urlencoded::read(body),
        BodyKind::Json => read_json(body).unwrap_or_else(|fault| {
            let unread = lenient::unread(body, fault).unwrap_or(Unread::Json(fault));
            Inference { unread: Some(unread), ..Inference::opaque() }
        }),
        BodyKind::Unsaid | BodyKind::Other => Inference::opaque(),
    }
}

fn read_json(body: &[u8]) -> Result<Inference, ScanError> {
    let mut inference = read_body(body, Api::Other, &mut |_, _| Ok(false))?;
    if inference.model.is_some_and(|model| model.start < model.end) {
        return Ok(inference);
    }
    // Of several members the last counts. If it is no name, a server may read another one.
    let is_name = |value: &Range<u32>| {
        let value = body.get(value.start as usize..value.end as usize).unwrap_or_default();
        value.len() > 2 && value.starts_with(b"\"")
    };
    let mut names = inference.model_values.iter().filter(|value| is_name(value));
    if let Some(name) = names.next_back() {
        let (start, end) = (name.start + 1, name.end - 1);
        let raw = body.get(start as usize..end as usize).unwrap_or_default();
        inference.model = Some(JsonStr { start, end, escaped: raw.contains(&b'\\') });
        return Ok(inference);
    }
    let (state, conversation) = (inference.state, inference.conversation);
    Ok(Inference { api: Api::Other, state, conversation, ..Inference::opaque() })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::splice::splice_model;
    use super::*;

    #[test]
    fn the_model_of_any_json_object_is_read_and_can_be_replaced() {
        for (content_type, body) in [
            (&b"application/json"[..], r#"{"query":"q","documents":["a"],"model":"m"}"#),
            (b"application/json; charset=utf-8", r#"{"model":"m"}"#),
            (b"application/vnd.api+json", r#"{"model":"m","x":{"model":"other"}}"#),
            (b"", r#" {"model":"m"}"#),
            (b"text/plain", r#"{"model":"m"}"#),
            (b"Text/JSON", r#"{"model":"m"}"#),
            (b"application/x-www-form-urlencoded", r#"{"model":"m"}"#),
        ] {
            let inference = read(content_type, body.as_bytes());
            assert_eq!(inference.api, Api::Other);
            assert_eq!(inference.model.unwrap().text(body.as_bytes()), "m");
            let new = splice_model(&Bytes::from(body), &inference, "new").concat();
            assert_eq!(String::from_utf8(new).unwrap(), body.replacen(r#""m""#, r#""new""#, 1));
        }
    }

    #[test]
    fn a_document_without_a_model_is_never_given_one() {
        for body in [r"{}", r#"{"inputs":[]}"#, r#"{"model":7}"#, r#"{"model":""}"#, r#"{"x":{"model":"m"}}"#]
        {
            let inference = read(b"application/json", body.as_bytes());
            assert!(!inference.is_rewritable() && inference.unread.is_none(), "{body}");
        }
    }

    #[test]
    fn what_is_said_to_be_json_and_is_none_is_told() {
        let inference = read(b"application/json", b"{\"model\":");
        assert_eq!((inference.api, inference.unread.map(Unread::label)), (Api::Opaque, Some("json")));
        assert_eq!(read(b"application/grpc", b"{\"model\":\"m\"}"), Inference::opaque());
        assert_eq!(read(b"", b"raw"), Inference::opaque());
    }
}
