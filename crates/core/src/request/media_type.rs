//! The kind of a body by its content type.

/// The kind that a body is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// JSON, in any spelling: `application/json`, `text/json`, `application/vnd.api+json`.
    Json,
    /// `multipart/form-data`.
    Form,
    /// `application/x-www-form-urlencoded`, which some clients (`curl -d`) say of any body they send.
    Pairs,
    /// The content type does not tell. Servers read such bodies as JSON, if they begin so.
    Unsaid,
    /// A body without a model: gRPC, sound, pictures, video, other bodies of several parts.
    Other,
}

impl BodyKind {
    /// The kind for this `Content-Type`; empty if there is none.
    pub(super) fn of(content_type: &[u8]) -> Self {
        const OTHERS: [&[u8]; 5] = [b"application/grpc", b"multipart/", b"audio/", b"image/", b"video/"];
        let media_type = content_type.split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default();
        let is = |known: &[u8]| media_type.trim_ascii().eq_ignore_ascii_case(known);
        let begins = |known: &[u8]| {
            let start = media_type.trim_ascii_start().get(..known.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(known))
        };
        let trimmed = media_type.trim_ascii();
        let tail = trimmed.get(trimmed.len().saturating_sub(5)..).unwrap_or_default();
        let ends = |known: &[u8]| tail.len() == 5 && tail.eq_ignore_ascii_case(known);
        if is(b"application/json") {
            Self::Json
        } else if is(b"multipart/form-data") {
            Self::Form
        } else if is(b"application/x-www-form-urlencoded") {
            Self::Pairs
        } else if OTHERS.into_iter().any(begins) {
            Self::Other
        } else if ends(b"/json") || ends(b"+json") {
            Self::Json
        } else {
            Self::Unsaid
        }
    }

    /// The kind for this `Content-Type` and body.
    pub(super) fn of_body(content_type: &[u8], body: &[u8]) -> Self {
        match Self::of(content_type) {
            Self::Pairs if first_byte(body).is_some_and(|first| matches!(first, b'{' | b'[')) => Self::Json,
            Self::Unsaid if first_byte(body) == Some(b'{') => Self::Json,
            kind => kind,
        }
    }
}

/// The first byte of a body that is neither a blank nor part of a byte order mark.
fn first_byte(body: &[u8]) -> Option<u8> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.trim_ascii_start().first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_known_in_every_spelling_and_forms_in_theirs() {
        use BodyKind::{Form, Json, Other, Pairs, Unsaid};
        for (content_type, kind) in [
            ("application/json", Json),
            (" Application/JSON ; charset=utf-8", Json),
            ("application/json,application/json", Json),
            ("text/json", Json),
            ("application/vnd.api+JSON", Json),
            ("multipart/form-data; boundary=x", Form),
            ("Multipart/Form-Data;boundary=x", Form),
            ("multipart/mixed; boundary=x", Other),
            ("application/x-www-form-urlencoded; charset=utf-8", Pairs),
            ("application/grpc+json", Other),
            ("application/grpc", Other),
            ("application/grpc-web+proto", Other),
            ("audio/wav", Other),
            ("", Unsaid),
            ("text/plain", Unsaid),
            ("application/x-json", Unsaid),
            ("application/octet-stream", Unsaid),
        ] {
            assert_eq!(BodyKind::of(content_type.as_bytes()), kind, "{content_type}");
        }
    }

    #[test]
    fn what_begins_like_json_is_json_unless_it_is_said_to_be_something_else() {
        for (content_type, body, kind) in [
            ("", "\u{feff} {\"model\":\"m\"}", BodyKind::Json),
            ("text/plain", "{}", BodyKind::Json),
            ("application/x-www-form-urlencoded", "\n{\"model\":\"m\"}", BodyKind::Json),
            ("application/x-www-form-urlencoded", "model=m", BodyKind::Pairs),
            ("", "model=m", BodyKind::Unsaid),
            ("image/png", "{}", BodyKind::Other),
        ] {
            assert_eq!(BodyKind::of_body(content_type.as_bytes(), body.as_bytes()), kind, "{content_type}");
        }
    }
}
