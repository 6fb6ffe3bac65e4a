//! The decoded bytes of JSON strings, span by span: what needs no decoding is handed on where it lies.

use memchr::memchr;

/// Calls `sink` with the decoded bytes of a JSON string's inside, in order, until it returns false. Escapes that are
/// none stay as they are; halves of surrogate pairs become U+FFFD.
pub(super) fn decode(raw: &[u8], escaped: bool, mut sink: impl FnMut(&[u8]) -> bool) {
    let mut rest = raw;
    if escaped {
        while let Some(at) = memchr(b'\\', rest) {
            let (plain, escape) = rest.split_at(at);
            if !plain.is_empty() && !sink(plain) {
                return;
            }
            let mut buffer = [0; 4];
            let (decoded, length) = decode_escape(escape, &mut buffer);
            if !sink(decoded) {
                return;
            }
            rest = escape.get(length..).unwrap_or_default();
        }
    }
    if !rest.is_empty() {
        sink(rest);
    }
}

/// Decodes the escape that `text` starts with: its value, and how many bytes it takes.
fn decode_escape<'b>(text: &[u8], buffer: &'b mut [u8; 4]) -> (&'b [u8], usize) {
    let plain: &'static [u8] = match text.get(1) {
        Some(b'"') => b"\"",
        Some(b'\\') => b"\\",
        Some(b'/') => b"/",
        Some(b'b') => b"\x08",
        Some(b'f') => b"\x0c",
        Some(b'n') => b"\n",
        Some(b'r') => b"\r",
        Some(b't') => b"\t",
        Some(b'u') => return decode_unicode(text, buffer),
        _ => return (b"\\", 1),
    };
    (plain, 2)
}

fn decode_unicode<'b>(text: &[u8], buffer: &'b mut [u8; 4]) -> (&'b [u8], usize) {
    let Some(unit) = hex4(text, 2) else { return (b"\\", 1) };
    let (character, length) = match unit {
        0xd800..0xdc00 => match (text.get(6..8), hex4(text, 8)) {
            (Some(b"\\u"), Some(low @ 0xdc00..0xe000)) => {
                (char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)), 12)
            }
            _ => (None, 6),
        },
        _ => (char::from_u32(unit), 6),
    };
    let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
    (character.encode_utf8(buffer).as_bytes(), length)
}

fn hex4(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at..at + 4)?;
    digits.iter().try_fold(0, |value, &digit| Some(value * 16 + char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(raw: &[u8], escaped: bool) -> Vec<u8> {
        let mut out = Vec::new();
        decode(raw, escaped, |span| {
            out.extend_from_slice(span);
            true
        });
        out
    }

    #[test]
    fn escapes_that_are_none_stay_as_they_are() {
        for raw in [&b"a\\"[..], b"a\\x", b"\\u12", b"\\u12g4", b"\\", b""] {
            assert_eq!(decoded(raw, true), raw);
        }
        assert_eq!(decoded(b"\\n", false), b"\\n");
    }

    #[test]
    fn half_a_surrogate_pair_becomes_a_replacement_character() {
        assert_eq!(decoded(b"\\ud83d!", true), "\u{fffd}!".as_bytes());
        assert_eq!(decoded(b"\\ude00", true), "\u{fffd}".as_bytes());
        assert_eq!(decoded(b"\\ud83d\\u0041", true), "\u{fffd}A".as_bytes());
        assert_eq!(decoded(b"\\ud83d\\ude00", true), "\u{1f600}".as_bytes());
    }

    #[test]
    fn decoding_ends_when_the_sink_has_enough() {
        let mut spans = 0;
        decode(b"a\\nb\\nc", true, |_| {
            spans += 1;
            spans < 2
        });
        assert_eq!(spans, 2);
    }

    proptest! {
        #[test]
        fn what_a_json_writer_escapes_comes_back(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let inside = &json.as_bytes()[1..json.len() - 1];
            prop_assert_eq!(decoded(inside, true), text.as_bytes());
        }
    }
}
