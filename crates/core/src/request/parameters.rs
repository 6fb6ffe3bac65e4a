//! Parameters of a header value, in the spellings that servers read: quoted, extended (RFC 5987) and in parts
//! (RFC 2231).

use std::borrow::Cow;

use super::percent;

/// Most parts of one parameter that are put together. Names that matter are short.
const MAX_PARTS: usize = 16;

/// The value of the plain parameter `name`, without its quotes.
pub(super) fn value<'h>(header: &'h [u8], name: &[u8]) -> Option<Cow<'h, [u8]>> {
    parameters(header).find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// True if there is a parameter `name` in any spelling.
pub(super) fn has(header: &[u8], name: &[u8]) -> bool {
    parameters(header).any(|(found, _)| base(found).eq_ignore_ascii_case(name))
}

/// True if the parameter `name` has the value `expected` in any of its spellings. Which one counts if they differ is a
/// matter of the server.
pub(super) fn is(header: &[u8], name: &[u8], expected: &[u8]) -> bool {
    let mut parts: [Option<Cow<'_, [u8]>>; MAX_PARTS] = Default::default();
    for (found, value) in parameters(header) {
        let base = base(found);
        if !base.eq_ignore_ascii_case(name) {
            continue;
        }
        let matches = match found.get(base.len()..).unwrap_or_default() {
            [] => *value == *expected,
            [b'*'] => *extended(&value, true) == *expected,
            [b'*', number @ ..] => {
                let encoded = number.ends_with(b"*");
                let number = number.strip_suffix(b"*").unwrap_or(number);
                let number = std::str::from_utf8(number).ok().and_then(|text| text.parse::<usize>().ok());
                if let Some((first, part)) = number.and_then(|at| Some((at == 0, parts.get_mut(at)?))) {
                    let value =
                        if encoded { extended(&value, first).into_owned() } else { value.into_owned() };
                    *part = Some(Cow::Owned(value));
                }
                false
            }
            _ => false,
        };
        if matches {
            return true;
        }
    }
    let mut rest = expected;
    for part in parts.iter().map_while(Option::as_deref) {
        let Some(behind) = rest.strip_prefix(part) else { return false };
        rest = behind;
    }
    parts.first().is_some_and(Option::is_some) && rest.is_empty()
}

/// The value of an extended parameter: percent signs are escapes, and `charset'language'` stands before the `first`
/// part.
fn extended(value: &[u8], first: bool) -> Cow<'_, [u8]> {
    let text = if first { value.splitn(3, |byte| *byte == b'\'').nth(2).unwrap_or(value) } else { value };
    percent::decode_without_plus(text)
}

/// A parameter's name without the marks of an extended or divided value.
fn base(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == b'*').next().unwrap_or_default().trim_ascii_end()
}

/// Names and values, in order. A backslash in quotes escapes a quote or a backslash, and nothing else.
fn parameters(header: &[u8]) -> impl Iterator<Item = (&[u8], Cow<'_, [u8]>)> {
    let mut rest = header.get(end_of(header)..).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            let here = rest.strip_prefix(b";")?;
            let (parameter, behind) = here.split_at(end_of(here));
            rest = behind;
            if let Some(equals) = memchr::memchr(b'=', parameter) {
                let (name, value) = parameter.split_at(equals);
                return Some((name.trim_ascii(), unquoted(value.get(1..).unwrap_or_default().trim_ascii())));
            }
        }
    })
}

/// Offset of the first semicolon outside of quotes, or the length.
fn end_of(header: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    let end = header.iter().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            _ => {}
        }
        *byte == b';' && !quoted
    });
    end.unwrap_or(header.len())
}

/// A value without its quotes and escapes.
fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(quoted) = value.strip_prefix(b"\"") else { return Cow::Borrowed(value) };
    let Some(special) = memchr::memchr2(b'"', b'\\', quoted) else { return Cow::Borrowed(quoted) };
    if quoted.get(special) == Some(&b'"') {
        return Cow::Borrowed(quoted.get(..special).unwrap_or_default());
    }
    let mut plain = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            b'\\' => match bytes.next() {
                Some(escaped @ (b'"' | b'\\')) => plain.push(escaped),
                Some(other) => plain.extend([byte, other]),
                None => plain.push(byte),
            },
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_known_in_every_spelling() {
        for header in [
            "form-data; name=\"model\"",
            "form-data;NAME=model",
            "form-data; name = \"model\" ; x=y",
            "form-data; x=\"a\\\"; name=no\"; name=\"model\"",
            "form-data; name*=utf-8''model",
            "form-data; name*=UTF-8'en'mod%65l",
            "form-data; name*=model",
            "form-data; name=\"other\"; name*=utf-8''model",
            "form-data; name*0=mo; name*1=\"del\"",
            "form-data; name*1=del; name*0*=utf-8''m%6f",
        ] {
            assert!(is(header.as_bytes(), b"name", b"model"), "{header}");
        }
        for header in [
            "form-data; name=\"models\"",
            "form-data; name=\"x; name=model\"",
            "form-data; filename=\"model\"",
            "form-data; name*=utf-8''x",
            "form-data; name*0=mo; name*2=del",
            "form-data; name*0=mo",
            "form-data; name*99999999999999999999=model",
            "form-data; name=\"mod%65l\"",
            "form-data; name*0=",
            "name=model",
            "",
        ] {
            assert!(!is(header.as_bytes(), b"name", b"model"), "{header}");
        }
    }

    #[test]
    fn a_file_is_known_in_every_spelling() {
        for (header, file) in [
            ("form-data; name=a; filename=x", true),
            ("form-data; name=a; filename*=utf-8''x", true),
            ("form-data; name=a; FileName*0=x", true),
            ("form-data; name=\"a; filename=x\"", false),
            ("form-data; name=a; filenames=x", false),
        ] {
            assert_eq!(has(header.as_bytes(), b"filename"), file, "{header}");
        }
    }

    #[test]
    fn escapes_in_quotes_are_taken_off() {
        let boundary = |header: &'static str| value(header.as_bytes(), b"boundary").unwrap();
        assert_eq!(*boundary("multipart/form-data; boundary=\"a \\\"b\\\\\"; x"), *b"a \"b\\");
        assert_eq!(*boundary("multipart/form-data; Boundary= ab ; x=y"), *b"ab");
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(header in "[a-z;=\"\\\\*' %0-9]{0,60}") {
            has(header.as_bytes(), b"name");
            is(header.as_bytes(), b"name", b"model");
            value(header.as_bytes(), b"name");
        }
    }
}
