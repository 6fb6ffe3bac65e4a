//! Forms (`multipart/form-data`, RFC 7578): the fields `model` and `stream` are read, everything else is passed over.
//!
//! One search for the delimiter over the body; the header of each part has a bound, and so has their number.

use memchr::memmem;

use super::model_name::MAX_MODEL_MEMBERS;
use super::types::{Api, Inference, JsonStr};

/// Longest boundary in bytes; the standard allows 70.
const MAX_BOUNDARY: usize = 200;
/// Most parts of a form that is read.
const MAX_PARTS: usize = 1024;
/// Longest header of one part in bytes.
const MAX_PART_HEADER: usize = 8 << 10;

/// True if `content_type` is that of a form.
pub(super) fn is_form(content_type: &[u8]) -> bool {
    const FORM: &[u8] = b"multipart/form-data";
    content_type.trim_ascii_start().get(..FORM.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORM))
}

/// Reads a form. An error if it cannot be taken apart within the bounds.
pub(super) fn read(content_type: &[u8], body: &[u8]) -> Result<Inference, &'static str> {
    let boundary = parameter(content_type, b"boundary").ok_or("no boundary")?;
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
        return Err("a boundary has 1 to 200 bytes");
    }
    if u32::try_from(body.len()).is_err() {
        return Err("too long");
    }
    let delimiter = [b"\r\n--", boundary].concat();
    let mut inference = Inference { api: Api::Other, is_form: true, ..Inference::opaque() };
    let finder = memmem::Finder::new(&delimiter);
    let mut at = delimiter.len() - 2;
    if !body.starts_with(delimiter.get(2..).unwrap_or_default()) || !ends_delimiter(body, at) {
        at = delimiter.len() + find_delimiter(&finder, body, 0).ok_or("no part")?;
    }
    for _ in 0..MAX_PARTS {
        let rest = body.get(at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            inference.insert_at = inference.model.is_some().then_some(0);
            return Ok(inference);
        }
        let line =
            memmem::find(rest.get(..80).unwrap_or(rest), b"\r\n").ok_or("a delimiter without an end")?;
        if !rest.get(..line).unwrap_or_default().iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return Err("a delimiter without an end");
        }
        let start = at + line + 2;
        // The line end before the header is that of the delimiter: a part may have no header.
        let head = body.get(start - 2..).unwrap_or_default();
        let head = head.get(..MAX_PART_HEADER).unwrap_or(head);
        let header = memmem::find(head, b"\r\n\r\n").ok_or("the header of a part has no end within 8 KiB")?;
        let content = start - 2 + header + 4;
        let end = content
            .checked_sub(2)
            .and_then(|from| find_delimiter(&finder, body, from))
            .ok_or("a part without an end")?;
        field(head.get(..header).unwrap_or_default(), body, content..end.max(content), &mut inference);
        at = end + delimiter.len();
    }
    Err("more than 1024 parts")
}

/// Offset of the next delimiter at or behind `from`. A line that only begins like one belongs to the part.
fn find_delimiter(finder: &memmem::Finder<'_>, body: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let found = from + finder.find(body.get(from..)?)?;
        let end = found + finder.needle().len();
        if ends_delimiter(body, end) {
            return Some(found);
        }
        from = end;
    }
}

/// True if a delimiter may end at `at`: what follows is the mark of the last one, or blanks and a line end.
fn ends_delimiter(body: &[u8], at: usize) -> bool {
    let rest = body.get(at..).unwrap_or_default();
    let rest = rest.get(..80).unwrap_or(rest);
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    rest.starts_with(b"--") || rest.get(blanks..).is_some_and(|rest| rest.starts_with(b"\r\n"))
}

/// Takes the field of one part, whose value lies at `value`.
fn field(header: &[u8], body: &[u8], value: std::ops::Range<usize>, inference: &mut Inference) {
    let Some(disposition) = disposition(header) else { return };
    if parameter(disposition, b"filename").is_some() {
        return;
    }
    match parameter(disposition, b"name") {
        Some(b"model") => {
            let (start, end) = (value.start as u32, value.end as u32);
            inference.model = (start < end).then_some(JsonStr { start, end, escaped: false });
            if inference.model.is_none() {
                return;
            }
            if inference.model_values.len() < MAX_MODEL_MEMBERS {
                inference.model_values.push(start..end);
            } else {
                inference.more_models = true;
            }
        }
        Some(b"stream") => {
            let value = body.get(value).unwrap_or_default();
            inference.stream = value.eq_ignore_ascii_case(b"true") || value == b"1";
        }
        _ => {}
    }
}

/// The value of `Content-Disposition` in the header of a part.
fn disposition(header: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"content-disposition:";
    header.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then_some(value.trim_ascii())
    })
}

/// A parameter of a header value, without its quotes. Values with escaped quotes end at the first.
fn parameter<'h>(value: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    let mut rest = value;
    loop {
        // The next semicolon that is not inside of quotes.
        let mut quoted = false;
        let next = rest.iter().position(|byte| {
            quoted ^= *byte == b'"';
            *byte == b';' && !quoted
        })?;
        rest = rest.get(next + 1..)?.trim_ascii_start();
        let Some((found, tail)) = rest.split_at_checked(name.len()) else { continue };
        let Some(tail) = tail.trim_ascii_start().strip_prefix(b"=") else { continue };
        if !found.eq_ignore_ascii_case(name) {
            continue;
        }
        let tail = tail.trim_ascii_start();
        return Some(match tail.strip_prefix(b"\"") {
            Some(quoted) => quoted.split(|byte| *byte == b'"').next().unwrap_or_default(),
            None => tail.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii(),
        });
    }
}

#[cfg(test)]
mod tests;
