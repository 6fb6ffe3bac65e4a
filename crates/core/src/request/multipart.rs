//! Forms (`multipart/form-data`, RFC 7578): the fields `model` and `stream` are read, everything else is passed over.
//!
//! One search for the delimiter over the body; the header of each part has a bound, and so has their number.

use memchr::memmem;

use super::parameters;
use super::types::{Api, Inference, JsonStr, Spelling};

/// Longest boundary in bytes; the standard allows 70.
const MAX_BOUNDARY: usize = 200;
/// Most parts of a form that is read.
pub(super) const MAX_PARTS: usize = 1024;
/// Longest header of one part in bytes.
pub(super) const MAX_PART_HEADER: usize = 8 << 10;

/// Reads a form. An error if it cannot be taken apart within the bounds.
pub(super) fn read(content_type: &[u8], body: &[u8]) -> Result<Inference, &'static str> {
    let (inference, whole) = read_parts(content_type, body);
    whole.map(|()| inference)
}

/// Reads the beginning of a form: the parts whose end has come.
pub(super) fn read_beginning(content_type: &[u8], body: &[u8]) -> Inference {
    read_parts(content_type, body).0
}

/// The bytes that end a part of a form of this content type.
pub(super) fn delimiter(content_type: &[u8]) -> Result<Vec<u8>, &'static str> {
    let boundary = parameters::value(content_type, b"boundary").ok_or("no boundary")?;
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
        return Err("a boundary has 1 to 200 bytes");
    }
    Ok([b"\r\n--", boundary.as_ref()].concat())
}

/// The fields of all parts, and whether the form has an end.
fn read_parts(content_type: &[u8], body: &[u8]) -> (Inference, Result<(), &'static str>) {
    let mut inference = Inference { api: Api::Other, spelling: Spelling::Verbatim, ..Inference::opaque() };
    let whole = take_apart(content_type, body, &mut inference);
    inference.insert_at = inference.model.is_some().then_some(0);
    (inference, whole)
}

fn take_apart(content_type: &[u8], body: &[u8], inference: &mut Inference) -> Result<(), &'static str> {
    let delimiter = delimiter(content_type)?;
    if u32::try_from(body.len()).is_err() {
        return Err("too long");
    }
    let finder = memmem::Finder::new(&delimiter);
    let mut at = delimiter.len() - 2;
    if !body.starts_with(delimiter.get(2..).unwrap_or_default()) || !ends_delimiter(body, at) {
        at = delimiter.len() + find_delimiter(&finder, body, 0).ok_or("no part")?;
    }
    for _ in 0..MAX_PARTS {
        let rest = body.get(at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            return Ok(());
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
        field(head.get(..header).unwrap_or_default(), body, content..end.max(content), inference);
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
    match Field::of(header) {
        Field::Model => {
            let (start, end) = (value.start as u32, value.end as u32);
            inference.note_model(start..end);
            if start < end {
                inference.model = Some(JsonStr { start, end, escaped: false });
            }
        }
        Field::Stream => {
            let value = body.get(value).unwrap_or_default();
            inference.stream = value.eq_ignore_ascii_case(b"true") || value == b"1";
        }
        Field::Other => {}
    }
}

/// Which field a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Model,
    Stream,
    Other,
}

impl Field {
    /// The field that the header of a part names. Files are none that matters.
    pub(super) fn of(header: &[u8]) -> Self {
        let Some(disposition) = disposition(header) else { return Self::Other };
        let named = |name: &[u8]| parameters::is(disposition, b"name", name);
        if parameters::has(disposition, b"filename") {
            Self::Other
        } else if named(b"model") {
            Self::Model
        } else if named(b"stream") {
            Self::Stream
        } else {
            Self::Other
        }
    }
}

/// The value of `Content-Disposition` in the header of a part, with the lines that continue it.
fn disposition(header: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"content-disposition:";
    let mut at = 0;
    loop {
        let line = header.get(at..)?;
        if line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
            let value = line.get(NAME.len()..)?;
            let ends = |end: &usize| !matches!(value.get(end + 1), Some(b' ' | b'\t'));
            let end = memchr::memchr_iter(b'\n', value).find(ends).unwrap_or(value.len());
            return value.get(..end).map(<[u8]>::trim_ascii);
        }
        at += memchr::memchr(b'\n', line)? + 1;
    }
}

#[cfg(test)]
mod tests;
