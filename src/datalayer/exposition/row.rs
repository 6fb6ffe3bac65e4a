//! One line of the exposition format, tokenised.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use smallvec::SmallVec;

/// Labels of a row: name and value as they stand in the text, escapes untouched. vLLM's cache series has 37.
pub(super) type RawLabels<'a> = SmallVec<[(&'a [u8], &'a [u8]); 48]>;

/// More labels than this on one row are taken for damage.
const MAX_LABELS: usize = 512;

/// The part of a row that follows its name.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) labels: RawLabels<'a>,
    pub(super) value: f64,
    /// Milliseconds; 0 if the row has none.
    pub(super) timestamp: f64,
}

/// Reads what follows the name; `None` if it does not keep to the format.
pub(super) fn parse(after_name: &[u8]) -> Option<Row<'_>> {
    let mut labels = RawLabels::new();
    let mut rest = after_name.trim_ascii_start();
    if let Some(inside) = rest.strip_prefix(b"{") {
        rest = parse_labels(inside, &mut labels)?;
    }
    let rest = rest.trim_ascii_start();
    let (value, rest) = rest.split_at(token_len(rest));
    let value = parse_number(value)?;
    let rest = rest.trim_ascii_start();
    let (timestamp, rest) = match rest.first() {
        None | Some(b'#') => (0.0, rest),
        Some(_) => {
            let (timestamp, rest) = rest.split_at(token_len(rest));
            (parse_number(timestamp)?, rest)
        }
    };
    // Behind a `#` stands an exemplar, which says nothing about the value.
    let end = rest.trim_ascii_start();
    (end.is_empty() || end[0] == b'#').then_some(Row { labels, value, timestamp })
}

/// Reads labels up to the closing brace and returns what follows it.
fn parse_labels<'a>(mut rest: &'a [u8], labels: &mut RawLabels<'a>) -> Option<&'a [u8]> {
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b"}") {
            return Some(after);
        }
        let equals = memchr(b'=', rest)?;
        let name = rest[..equals].trim_ascii();
        if name.is_empty() || labels.len() == MAX_LABELS || !name.iter().all(|&byte| is_label_byte(byte)) {
            return None;
        }
        let quoted = rest[equals + 1..].trim_ascii_start().strip_prefix(b"\"")?;
        let end = closing_quote(quoted)?;
        labels.push((name, &quoted[..end]));
        rest = quoted[end + 1..].trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after;
        } else if rest.first() != Some(&b'}') {
            return None;
        }
    }
}

/// The row `{"name",labels…} value` as `name{labels…} value`; `None` if it does not begin in this way.
pub(super) fn with_plain_name(line: &[u8]) -> Option<Vec<u8>> {
    let quoted = line.strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?;
    let end = closing_quote(quoted)?;
    let rest = quoted[end + 1..].trim_ascii_start();
    let labels = match rest.first()? {
        b',' => &rest[1..],
        b'}' => rest,
        _ => return None,
    };
    Some([&quoted[..end], b"{", labels].concat())
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Position of the first quote that no backslash protects.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

fn token_len(text: &[u8]) -> usize {
    text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len())
}

fn parse_number(token: &[u8]) -> Option<f64> {
    std::str::from_utf8(token).ok()?.parse().ok()
}

/// A label value with its escapes resolved: `\\`, `\"` and `\n`; any other pair stays as it is.
pub(super) fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut plain = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => plain.push(b'\n'),
            Some(escaped @ (b'\\' | b'"')) => plain.push(escaped),
            Some(other) => plain.extend([b'\\', other]),
            None => plain.push(b'\\'),
        }
    }
    Cow::Owned(plain)
}

/// The value of label `name`, as it stands in the text.
pub(super) fn raw_label<'a>(labels: &RawLabels<'a>, name: &[u8]) -> Option<&'a [u8]> {
    labels.iter().find(|(known, _)| *known == name).map(|&(_, value)| value)
}
