//! Bodies of which the model alone is read, and the model in a query.

use std::borrow::Cow;

use super::envelope::read_body;
use super::error::{ScanError, Unread};
use super::headers::Headers;
use super::model_name::MAX_MODEL_NAME;
use super::types::{Api, Inference};
use super::{lenient, multipart};

/// What a body of this content type (empty if it has none) says of its model. One that names none can't be rewritten,
/// so that no member is put into a document that we know nothing of.
pub(super) fn read(content_type: &[u8], body: &[u8]) -> Inference {
    if multipart::is_form(content_type) {
        return multipart::read(content_type, body)
            .unwrap_or_else(|fault| Inference { unread: Some(Unread::Form(fault)), ..Inference::opaque() });
    }
    if !is_json(content_type, body) {
        return Inference::opaque();
    }
    read_json(body).unwrap_or_else(|fault| {
        let unread = lenient::unread(body, fault).unwrap_or(Unread::Json(fault));
        Inference { unread: Some(unread), ..Inference::opaque() }
    })
}

fn read_json(body: &[u8]) -> Result<Inference, ScanError> {
    let inference = read_body(body, Api::Other, &mut |_, _| Ok(false))?;
    let named = inference.model.is_some_and(|model| model.start < model.end);
    if named {
        return Ok(inference);
    }
    let (state, conversation) = (inference.state, inference.conversation);
    Ok(Inference { api: Api::Other, state, conversation, ..Inference::opaque() })
}

/// True if the body is JSON by its content type, or without one by its first byte.
fn is_json(content_type: &[u8], body: &[u8]) -> bool {
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    match media_type {
        [] => {
            let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
            body.trim_ascii_start().first() == Some(&b'{')
        }
        media_type => {
            let media_type = media_type.to_ascii_lowercase();
            matches!(media_type.as_slice(), b"application/json" | b"text/json")
                || media_type.ends_with(b"+json")
        }
    }
}

/// The parameter `model` of the request's query, decoded, if it is a model's name.
pub fn query_model(headers: &Headers) -> Option<String> {
    let path = headers.get(":path")?;
    let query = path.splitn(2, |byte| *byte == b'?').nth(1)?;
    let value = query.split(|byte| *byte == b'&').find_map(|pair| pair.strip_prefix(b"model="))?;
    if value.is_empty() || value.len() > 3 * MAX_MODEL_NAME {
        return None;
    }
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.first_chunk::<2>().and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.filter(|_| byte == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
        decoded.push(escaped.unwrap_or(if byte == b'+' { b' ' } else { byte }));
    }
    let text: Cow<'_, str> = String::from_utf8_lossy(&decoded);
    (text.len() <= MAX_MODEL_NAME).then(|| text.into_owned())
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

    #[test]
    fn the_model_in_a_query_is_decoded() {
        let model = |path: &str| query_model(&Headers::from([(":path", path)]));
        assert_eq!(model("/v1/realtime?model=m").as_deref(), Some("m"));
        assert_eq!(model("/v1/realtime?x=1&model=org%2Fname+x%").as_deref(), Some("org/name x%"));
        assert_eq!(model("/v1/realtime?model="), None);
        assert_eq!(model("/v1/realtime"), None);
        assert_eq!(model(&format!("/v1/realtime?model={}", "m".repeat(2000))), None);
    }
}
