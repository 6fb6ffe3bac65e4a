//! Values as `application/x-www-form-urlencoded` writes them.

use std::borrow::Cow;

/// Decodes `raw`: a plus sign is a blank, `%XX` a byte. A percent sign without two digits stands for itself.
pub(super) fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(raw);
    }
    decode_bytes(raw, b' ')
}

/// Decodes `raw` where a plus sign stands for itself.
pub(super) fn decode_without_plus(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'%') {
        return Cow::Borrowed(raw);
    }
    decode_bytes(raw, b'+')
}

fn decode_bytes(raw: &[u8], plus: u8) -> Cow<'_, [u8]> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.first_chunk::<2>().filter(|_| byte == b'%');
        let escaped = digits.and_then(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
        decoded.push(escaped.unwrap_or(if byte == b'+' { plus } else { byte }));
    }
    Cow::Owned(decoded)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// `text` as a value.
pub(super) fn encode(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => encoded.push(byte),
            b' ' => encoded.push(b'+'),
            _ => {
                let digits = [byte >> 4, byte & 15].map(|digit| DIGITS.get(usize::from(digit)).copied());
                encoded.push(b'%');
                encoded.extend(digits.into_iter().flatten());
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percent_sign_without_two_digits_stands_for_itself() {
        for (raw, expected) in [
            ("org%2Fname+x", "org/name x"),
            ("%", "%"),
            ("%4", "%4"),
            ("%+1", "% 1"),
            ("%zz%41", "%zzA"),
            ("%e2%82%ac", "\u{20ac}"),
        ] {
            assert_eq!(decode(raw.as_bytes()).as_ref(), expected.as_bytes(), "{raw}");
        }
        assert_eq!(decode_without_plus(b"a+b%20c").as_ref(), b"a+b c");
    }

    proptest! {
        #[test]
        fn every_text_is_read_as_it_was_written(text in any::<String>()) {
            let encoded = encode(&text);
            let of_a_pair = |byte: &u8| !byte.is_ascii() || matches!(byte, b'&' | b'=' | b';' | b' ');
            prop_assert!(!encoded.iter().any(of_a_pair));
            let decoded = decode(&encoded);
            prop_assert_eq!(decoded.as_ref(), text.as_bytes());
        }
    }
}
