//! The model in a form that passes by in chunks.

use memchr::memmem::{self, Finder};

use crate::request::model_name::MAX_WRITTEN_NAME;
use crate::request::multipart::{self, Field, MAX_PART_HEADER, MAX_PARTS};

/// Longest rest of a line that a delimiter ends with, in bytes.
const MAX_DELIMITER_END: usize = 80;

/// Finds the field `model`. It holds what a chunk's end has cut: a delimiter, the header of a part (8 KiB), or the
/// model.
#[derive(Debug)]
pub(super) struct FormWatch {
    delimiter: Finder<'static>,
    place: Place,
    /// Bytes that have come and are not settled yet.
    held: Vec<u8>,
    parts: usize,
}

#[derive(Debug)]
enum Place {
    /// In a part, or before the first. Of the model's part its bytes, the line end of its header in front.
    Content(Option<Vec<u8>>),
    /// In the header of a part, the line end of its delimiter in front.
    Header,
    /// Behind the end, or in a form that cannot be taken apart.
    Over,
}

/// The characters that follow a delimiter.
enum End {
    /// Offset at which the header's line end begins.
    Part(usize),
    Form,
    /// It is no delimiter.
    None,
    /// More has to come.
    Unknown,
}

impl FormWatch {
    /// For a form of this content type; `None` if it has no boundary.
    pub(super) fn new(content_type: &[u8]) -> Option<Self> {
        let delimiter = multipart::delimiter(content_type).ok()?;
        let delimiter = Finder::new(&delimiter).into_owned();
        // The first delimiter has no line end of its own in front.
        Some(Self { delimiter, place: Place::Content(None), held: b"\r\n".to_vec(), parts: 0 })
    }

    /// Takes the next chunk; gives the name if a field `model` ends in it, of several the last.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> Option<Vec<u8>> {
        if matches!(self.place, Place::Over) {
            return None;
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(chunk);
        let (mut at, mut found) = (0, None);
        loop {
            let rest = held.get(at..).unwrap_or_default();
            let step = match &mut self.place {
                Place::Content(value) => content(&self.delimiter, rest, value, &mut found),
                Place::Header => header(rest),
                Place::Over => return found,
            };
            at += step.taken;
            match step.place {
                Some(Place::Header) if self.parts >= MAX_PARTS => self.place = Place::Over,
                Some(place) => {
                    self.parts += usize::from(matches!(place, Place::Header));
                    self.place = place;
                }
                None => break,
            }
        }
        held.drain(..at);
        self.held = held;
        found
    }
}

/// How many bytes were settled, and where that led; `None` if more has to come.
struct Step {
    taken: usize,
    place: Option<Place>,
}

fn content(
    delimiter: &Finder<'_>,
    rest: &[u8],
    value: &mut Option<Vec<u8>>,
    found: &mut Option<Vec<u8>>,
) -> Step {
    let length = delimiter.needle().len();
    let mut keep = |bytes: &[u8]| {
        if let Some(value) = value {
            let room = (MAX_WRITTEN_NAME + 3).saturating_sub(value.len());
            value.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
    };
    let mut from = 0;
    while let Some(at) = rest.get(from..).and_then(|rest| delimiter.find(rest)).map(|at| from + at) {
        let end = at + length;
        let place = match end_of_delimiter(rest.get(end..).unwrap_or_default()) {
            End::None => {
                from = end;
                continue;
            }
            End::Unknown => {
                keep(rest.get(..at).unwrap_or_default());
                return Step { taken: at, place: None };
            }
            End::Form => (end, Place::Over),
            End::Part(behind) => (end + behind, Place::Header),
        };
        keep(rest.get(..at).unwrap_or_default());
        // In front stands the line end of the header.
        let name = value.as_ref().and_then(|value| value.get(2..)).filter(|name| !name.is_empty());
        *found = name.map(<[u8]>::to_vec).or(found.take());
        return Step { taken: place.0, place: Some(place.1) };
    }
    let settled = rest.len().saturating_sub(length - 1).max(from);
    keep(rest.get(..settled).unwrap_or_default());
    Step { taken: settled, place: None }
}

fn header(rest: &[u8]) -> Step {
    let head = rest.get(..MAX_PART_HEADER).unwrap_or(rest);
    match memmem::find(head, b"\r\n\r\n") {
        Some(end) => {
            let is_model = Field::of(head.get(..end).unwrap_or_default()) == Field::Model;
            // The line end belongs to the content as well: a delimiter may follow at once.
            Step { taken: end + 2, place: Some(Place::Content(is_model.then(Vec::new))) }
        }
        None if rest.len() >= MAX_PART_HEADER => Step { taken: rest.len(), place: Some(Place::Over) },
        None => Step { taken: 0, place: None },
    }
}

fn end_of_delimiter(rest: &[u8]) -> End {
    let seen = rest.get(..MAX_DELIMITER_END).unwrap_or(rest);
    let blanks = seen.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match seen.get(blanks..).unwrap_or_default() {
        [b'-', b'-', ..] if blanks == 0 => End::Form,
        [b'\r', b'\n', ..] => End::Part(blanks),
        [b'-'] if blanks == 0 => End::Unknown,
        [] | [b'\r'] if seen.len() < MAX_DELIMITER_END => End::Unknown,
        _ => End::None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &[u8] = b"multipart/form-data; boundary=XX";

    fn found(body: &[u8], size: usize) -> Option<String> {
        let mut watch = FormWatch::new(TYPE).unwrap();
        let found = body.chunks(size).filter_map(|chunk| watch.feed(chunk)).last();
        found.map(|name| String::from_utf8_lossy(&name).into_owned())
    }

    #[test]
    fn the_field_is_found_wherever_the_chunks_end() {
        let file = "RIFF\r\n--X\r\n--XXx\r\n-XX\0name=\"model\"\r\n\r\n".repeat(50);
        let body = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\n{file}\r\n\
             --XX \t\r\ncontent-disposition: form-data;\r\n name*=utf-8''mod%65l\r\n\r\nalias\r\n--XX--\r\n"
        );
        for size in (1..100).chain([body.len()]) {
            assert_eq!(found(body.as_bytes(), size).as_deref(), Some("alias"), "by {size}");
        }
    }

    #[test]
    fn what_is_held_has_a_bound_whatever_comes() {
        let part = "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n";
        for endless in
            [part.to_owned() + "x", "--XX\r\nA: ".to_owned(), "--XX     ".to_owned(), String::new()]
        {
            let mut watch = FormWatch::new(TYPE).unwrap();
            watch.feed(endless.as_bytes());
            for _ in 0..100 {
                assert_eq!(watch.feed(&[b'x'; 1000]), None);
            }
            let value = if let Place::Content(Some(value)) = &watch.place { value.len() } else { 0 };
            assert!(watch.held.len() <= MAX_PART_HEADER && value <= MAX_WRITTEN_NAME + 3, "{endless}");
        }
        let many = format!("{}{part}alias\r\n--XX--", "--XX\r\n\r\n\r\n".repeat(MAX_PARTS));
        assert_eq!(found(many.as_bytes(), 1000), None, "a form of too many parts is not read");
    }

    proptest! {
        #[test]
        fn a_form_in_chunks_is_read_as_the_whole_one(
            bytes in proptest::collection::vec(prop_oneof![
                Just("--XX"), Just("\r\n"), Just("--"), Just("-"), Just(" "), Just("x"), Just("alias"),
                Just("Content-Disposition: form-data; name=\"model\"\r\n\r\n"),
                Just("\r\n--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm"),
            ], 0..30),
            size in 1_usize..40,
        ) {
            let body = bytes.concat();
            if let Ok(whole) = multipart::read(TYPE, body.as_bytes()) {
                let name = whole.model_name(body.as_bytes()).map(std::borrow::Cow::into_owned);
                prop_assert_eq!(found(body.as_bytes(), size), name);
            }
        }
    }
}
