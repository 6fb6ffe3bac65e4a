//! Fields of an event stream's lines.

/// What begins a line that holds data.
pub(super) const DATA: &[u8] = b"data:";

/// What may stand before the first line.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The value of a `data` field; `None` for lines of other fields. One space behind the colon is not part of it.
pub(super) fn data(line: &[u8]) -> Option<&[u8]> {
    value(line, DATA)
}

/// The value of an `event` field, which names the event.
pub(super) fn event(line: &[u8]) -> Option<&[u8]> {
    value(line, b"event:").map(<[u8]>::trim_ascii)
}

fn value<'l>(line: &'l [u8], field: &[u8]) -> Option<&'l [u8]> {
    let value = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).strip_prefix(field)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_behind_the_colon_is_optional() {
        assert_eq!(data(b"data: x"), Some(&b"x"[..]));
        assert_eq!(data(b"data:x"), Some(&b"x"[..]));
        assert_eq!(data(b"data:  x"), Some(&b" x"[..]));
        assert_eq!(data(b"event: data:"), None);
        assert_eq!(event(b"event: error "), Some(&b"error"[..]));
        assert_eq!(event(b"data: error"), None);
    }
}
