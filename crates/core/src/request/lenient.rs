//! Bodies that are JSON to a model server although they are no JSON object in UTF-8. They go on unread.

use super::error::{Fault, ScanError, Unread};
use super::scan::Cursor;

/// Why a body that failed to parse with `error` may all the same be what a server takes; `None` if it is no JSON at
/// all.
pub(super) fn unread(body: &[u8], error: ScanError) -> Option<Unread> {
    match error.fault {
        Fault::Object => is_one_value(body).then_some(Unread::NotObject),
        _ => is_wide(body).then_some(Unread::Charset),
    }
}

fn is_one_value(body: &[u8]) -> bool {
    let passed = Cursor::new(body).and_then(|mut cursor| {
        cursor.skip()?;
        cursor.finish()
    });
    passed.is_ok()
}

/// True if the body begins as JSON in UTF-16 or UTF-32 does, with or without a byte order mark, and has whole units.
fn is_wide(body: &[u8]) -> bool {
    [(4, true), (4, false), (2, true), (2, false)]
        .into_iter()
        .any(|(width, big)| body.len().is_multiple_of(width) && begins(body, width, big))
}

/// True if the first unit of `width` bytes that is no byte order mark and no blank begins a JSON value.
fn begins(body: &[u8], width: usize, big: bool) -> bool {
    let mut units = body.chunks_exact(width).map(|unit| {
        let add = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        if big { unit.iter().fold(0, add) } else { unit.iter().rev().fold(0, add) }
    });
    let mut first = units.next();
    if first == Some(0xfeff) {
        first = units.next();
    }
    while let Some(0x20 | 0x09 | 0x0a | 0x0d) = first {
        first = units.next();
    }
    first.and_then(char::from_u32).is_some_and(|first| "{[\"-0123456789tfnNI".contains(first))
}

#[cfg(test)]
mod tests {
    use super::super::parse::read;
    use super::super::paths::ParserKind;
    use super::*;

    fn outcome(body: &[u8]) -> Result<Option<&'static str>, String> {
        let read = read(ParserKind::OpenAi, "/v1/chat/completions", b"application/json", body);
        read.map(|inference| inference.unread.map(Unread::label)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_json_decoder_of_python_takes_goes_on() {
        let text = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"t":[NaN,-Infinity,Infinity]}"#;
        assert_eq!(outcome(text.as_bytes()), Ok(None));
        assert_eq!(outcome(format!("\u{feff}{text}").as_bytes()), Ok(None));
        for marked in ["", "\u{feff}", "\u{feff}\n "] {
            let text = format!("{marked}{text}");
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            let wide: Vec<u8> = text.chars().flat_map(|letter| u32::from(letter).to_le_bytes()).collect();
            for body in [little, big, wide] {
                assert_eq!(outcome(&body), Ok(Some("charset")), "{marked:?}");
            }
        }
        for body in ["[]", r#" [{"model":"m"}] "#, "1", "null", r#""text""#, "NaN"] {
            assert_eq!(outcome(body.as_bytes()), Ok(Some("not_object")), "{body}");
        }
    }

    #[test]
    fn what_is_no_json_at_all_is_refused() {
        for body in [
            &b""[..],
            b"hello",
            b"[1",
            b"[1]]",
            b"{\"a\":NaNa}",
            b"{\"a\":-NaN}",
            b"{\"a\":Inf}",
            b"\xef\xbb\xbf",
            b"\xef\xbb",
            b"{\0\"",
            b"h\0i\0",
            b"\xff\xfe",
            b"{\"model\":",
        ] {
            assert!(outcome(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn the_model_behind_a_byte_order_mark_is_read_and_replaced() {
        let body = bytes::Bytes::from("\u{feff} {\"prompt\":\"x\",\"model\":\"m\"}");
        let inference = read(ParserKind::OpenAi, "/v1/completions", b"", &body).unwrap();
        assert_eq!(inference.model.unwrap().text(&body), "m");
        let new = super::super::splice::splice_model(&body, &inference, "new").concat();
        assert_eq!(new, "\u{feff} {\"prompt\":\"x\",\"model\":\"new\"}".as_bytes());
    }
}
