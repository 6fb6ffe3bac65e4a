//! Decoding of JSON string escapes, with the leniency of the servers behind us: what is no text becomes U+FFFD.

use std::borrow::Cow;

/// Decodes what lies between the quotes of a JSON string. Borrowed if there is no backslash.
///
/// Lone surrogates become U+FFFD. A malformed escape, which the scanner never lets through, stays as it is.
pub(super) fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr(b'\\', raw) else { return Cow::Borrowed(raw) };
    let mut out = Vec::with_capacity(raw.len());
    let (plain, mut rest) = raw.split_at(first);
    out.extend_from_slice(plain);
    loop {
        rest = decode_one(rest, &mut out);
        let Some(next) = memchr::memchr(b'\\', rest) else {
            out.extend_from_slice(rest);
            return Cow::Owned(out);
        };
        let (plain, tail) = rest.split_at(next);
        out.extend_from_slice(plain);
        rest = tail;
    }
}

/// Decodes to text; bytes that are no UTF-8 become U+FFFD.
pub(super) fn decode_text(raw: &[u8]) -> Cow<'_, str> {
    match decode(raw) {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }),
    }
}

/// `text` as a JSON string with its quotes.
pub(super) fn encode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    // Writing text to memory cannot fail.
    let written = serde_json::to_writer(&mut out, text);
    debug_assert!(written.is_ok(), "a string is always JSON");
    out
}

/// Appends what lies between the quotes of a JSON string in the one spelling that all its spellings share: nothing is
/// escaped but quotes and backslashes.
pub(super) fn respell(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(next) = memchr::memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at(next);
        out.extend_from_slice(plain);
        let start = out.len();
        rest = decode_one(escape, out);
        if let Some(b"\"" | b"\\") = out.get(start..) {
            out.insert(start, b'\\');
        }
    }
    out.extend_from_slice(rest);
}

/// Decodes the escape that `bytes` begins with; returns what follows it.
fn decode_one<'b>(bytes: &'b [u8], out: &mut Vec<u8>) -> &'b [u8] {
    let (simple, rest) = match bytes {
        [b'\\', b'u', rest @ ..] => {
            let Some((unit, rest)) = hex4(rest) else {
                out.extend_from_slice(b"\\u");
                return rest;
            };
            let (character, rest) = join_surrogates(unit, rest);
            let mut buffer = [0; 4];
            out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
            return rest;
        }
        [b'\\', b'b', rest @ ..] => (8, rest),
        [b'\\', b'f', rest @ ..] => (12, rest),
        [b'\\', b'n', rest @ ..] => (b'\n', rest),
        [b'\\', b'r', rest @ ..] => (b'\r', rest),
        [b'\\', b't', rest @ ..] => (b'\t', rest),
        [b'\\', other, rest @ ..] | [other, rest @ ..] => (*other, rest),
        [] => return bytes,
    };
    out.push(simple);
    rest
}

/// The character of a UTF-16 unit, with the second half of a pair taken from `rest` where there is one.
fn join_surrogates(unit: u32, rest: &[u8]) -> (char, &[u8]) {
    if let Some(character) = char::from_u32(unit) {
        return (character, rest);
    }
    if unit < 0xDC00
        && let [b'\\', b'u', tail @ ..] = rest
        && let Some((low, after)) = hex4(tail)
        && (0xDC00..0xE000).contains(&low)
        && let Some(character) = char::from_u32(0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00))
    {
        return (character, after);
    }
    (char::REPLACEMENT_CHARACTER, rest)
}

fn hex4(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = bytes.split_first_chunk::<4>()?;
    let mut unit = 0;
    for digit in digits {
        unit = unit << 4 | char::from(*digit).to_digit(16)?;
    }
    Some((unit, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lone_surrogates_become_the_replacement_character() {
        assert_eq!(decode_text(br"a\ud800b"), "a\u{FFFD}b");
        assert_eq!(decode_text(br"\udc00"), "\u{FFFD}");
        assert_eq!(decode_text(br"\ud800\u0041"), "\u{FFFD}A");
        assert_eq!(decode_text(br"\ud800\ud83d\ude00"), "\u{FFFD}\u{1F600}");
    }

    #[test]
    fn bytes_that_are_no_utf8_become_the_replacement_character() {
        assert_eq!(decode_text(b"a\xFFb"), "a\u{FFFD}b");
        assert_eq!(decode_text(b"\\n\xFFb"), "\n\u{FFFD}b");
    }

    #[test]
    fn a_string_without_escapes_is_borrowed() {
        assert!(matches!(decode_text("grüße".as_bytes()), Cow::Borrowed("grüße")));
    }

    proptest! {
        #[test]
        fn decoding_undoes_what_serde_json_encodes(text in any::<String>()) {
            let quoted = encode(&text);
            prop_assert_eq!(decode_text(&quoted[1..quoted.len() - 1]), text);
        }

        #[test]
        fn decoding_agrees_with_serde_json(raw in r#"([ -!#-\[\]-~]|\\[nrtbf/"\\]|\\u[0-9a-fA-F]{4}){0,12}"#) {
            if let Ok(expected) = serde_json::from_str::<String>(&format!("\"{raw}\"")) {
                prop_assert_eq!(decode_text(raw.as_bytes()), expected);
            }
        }

        #[test]
        fn any_bytes_decode_to_something(raw in proptest::collection::vec(prop_oneof![Just(b'\\'), Just(b'u'), any::<u8>()], 0..40)) {
            decode_text(&raw);
        }
    }
}
