//! Event streams (WHATWG HTML, section 9.2.6): lines end in LF, CR or CRLF, an empty line ends an event, and the values
//! of its `data` fields, joined by line feeds, are its data.

use std::ops::Range;

use memchr::{memchr2, memrchr2};

/// Bytes that may stand before the first line.
pub(super) const BYTE_ORDER_MARK: &[u8; 3] = b"\xef\xbb\xbf";

/// The fields that are looked at, with their colons. They begin with different letters.
const DATA: &[u8] = b"data:";
const EVENT: &[u8] = b"event:";

/// The value of a `data` field; `None` for lines of other fields. One space behind the colon is not part of it.
pub(super) fn data(line: &[u8]) -> Option<&[u8]> {
    value(line, DATA)
}

/// The value of an `event` field, which names the event.
pub(super) fn event(line: &[u8]) -> Option<&[u8]> {
    value(line, EVENT).map(<[u8]>::trim_ascii)
}

fn value<'l>(line: &'l [u8], field: &[u8]) -> Option<&'l [u8]> {
    let value = line.strip_prefix(field)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// Offset behind the first event that ends in `bytes`. `last` is the byte before them, if they continue an event.
pub(super) fn end_of_event(last: Option<u8>, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let found = at + memchr2(b'\n', b'\r', bytes.get(at..)?)?;
        let before = if found == 0 { last.or(Some(b'\n')) } else { bytes.get(found - 1).copied() };
        at = found + 1;
        let halves = bytes.get(found) == Some(&b'\n') && before == Some(b'\r');
        if !halves && matches!(before, Some(b'\n' | b'\r')) {
            let crlf = bytes.get(found..at + 1) == Some(b"\r\n");
            return Some(if crlf { at + 1 } else { at });
        }
        if found == 0 && last.is_none() && halves {
            return Some(at);
        }
    }
}

/// Offset behind the last event that ends in `bytes`, which begin an event; 0 if none does.
pub(super) fn end_of_last_event(bytes: &[u8]) -> usize {
    // The rule: a chunk holds whole events.
    if bytes.ends_with(b"\n\n") {
        return bytes.len();
    }
    let mut end = bytes.len();
    while let Some(found) = bytes.get(..end).and_then(|bytes| memrchr2(b'\n', b'\r', bytes)) {
        let pair = found > 0 && bytes.get(found - 1..=found) == Some(b"\r\n");
        let start = if pair { found - 1 } else { found };
        let before = start.checked_sub(1).and_then(|before| bytes.get(before));
        if start == 0 || matches!(before, Some(b'\n' | b'\r')) {
            return found + 1;
        }
        end = start;
    }
    0
}

/// Follows the lines of a stream that comes in chunks, wherever these end.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    place: Place,
    /// The last byte was a CR: an LF behind it ends no other line.
    half: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the start of the stream; this many bytes of the byte order mark have come.
    Mark(usize),
    /// At the start of a line.
    Start,
    /// This many bytes of the field's name and colon have come.
    Data(usize),
    Event(usize),
    /// In the value of the field.
    DataValue,
    EventValue,
    /// In a line of no interest.
    Other,
}

/// A part of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Bytes of the value of a `data` field, the space in front of it too.
    Data(Range<usize>),
    /// Bytes of the value of an `event` field.
    Event(Range<usize>),
    /// A line ends here; more of its event may follow.
    LineEnd,
    /// An event ends here.
    EventEnd,
}

impl Lines {
    /// At the start of a stream.
    pub(super) fn new() -> Self {
        Self { place: Place::Mark(0), half: false }
    }

    /// At the start of an event.
    pub(super) fn of_an_event() -> Self {
        Self { place: Place::Start, half: false }
    }

    /// The next part at or behind `at`, which moves on behind it; `None` at the chunk's end.
    pub(super) fn next(&mut self, chunk: &[u8], at: &mut usize) -> Option<Part> {
        while let Some(byte) = chunk.get(*at).copied() {
            if std::mem::take(&mut self.half) && byte == b'\n' {
                *at += 1;
                continue;
            }
            if matches!(byte, b'\n' | b'\r') && !matches!(self.place, Place::DataValue | Place::EventValue) {
                *at += 1;
                return Some(self.line_ends(byte));
            }
            // The rule: a line of data, whose field is not cut.
            if self.place == Place::Start && chunk.get(*at..).is_some_and(|rest| rest.starts_with(DATA)) {
                self.place = Place::DataValue;
                *at += DATA.len();
                continue;
            }
            let passed = |name: &[u8], seen: usize| name.get(seen) == Some(&byte);
            self.place =
                match self.place {
                    Place::Mark(seen) if passed(BYTE_ORDER_MARK, seen) => {
                        if seen + 1 == BYTE_ORDER_MARK.len() { Place::Start } else { Place::Mark(seen + 1) }
                    }
                    Place::Mark(0) | Place::Start if byte == b'd' => Place::Data(1),
                    Place::Mark(0) | Place::Start if byte == b'e' => Place::Event(1),
                    Place::Data(seen) if passed(DATA, seen) => {
                        if seen + 1 == DATA.len() {
                            Place::DataValue
                        } else {
                            Place::Data(seen + 1)
                        }
                    }
                    Place::Event(seen) if passed(EVENT, seen) => {
                        if seen + 1 == EVENT.len() {
                            Place::EventValue
                        } else {
                            Place::Event(seen + 1)
                        }
                    }
                    place @ (Place::DataValue | Place::EventValue | Place::Other) => {
                        let rest = chunk.get(*at..).unwrap_or_default();
                        let length = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                        let range = *at..*at + length;
                        *at = range.end;
                        if length > 0 {
                            match place {
                                Place::DataValue => return Some(Part::Data(range)),
                                Place::EventValue => return Some(Part::Event(range)),
                                _ => continue,
                            }
                        }
                        *at += 1;
                        return Some(self.line_ends(byte));
                    }
                    Place::Mark(_) | Place::Start | Place::Data(_) | Place::Event(_) => Place::Other,
                };
            *at += 1;
        }
        None
    }

    fn line_ends(&mut self, end: u8) -> Part {
        self.half = end == b'\r';
        let empty = matches!(self.place, Place::Start | Place::Mark(0));
        self.place = Place::Start;
        if empty { Part::EventEnd } else { Part::LineEnd }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_space_behind_the_colon_is_optional() {
        assert_eq!(data(b"data: x"), Some(&b"x"[..]));
        assert_eq!(data(b"data:x"), Some(&b"x"[..]));
        assert_eq!(data(b"data:  x"), Some(&b" x"[..]));
        assert_eq!(data(b"data"), None);
        assert_eq!(data(b"event: data:"), None);
        assert_eq!(event(b"event: error "), Some(&b"error"[..]));
        assert_eq!(event(b"data: error"), None);
    }

    /// The events of a stream as the specification reads them: names and data. One that has no end counts too.
    fn by_specification(stream: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let stream = stream.strip_prefix(BYTE_ORDER_MARK).unwrap_or(stream);
        let text: String = stream.iter().map(|byte| char::from(*byte)).collect();
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let events = text.split_inclusive("\n\n").flat_map(|part| {
            let mut events = vec![Vec::new()];
            for line in part.lines() {
                if line.is_empty() {
                    events.push(Vec::new());
                } else {
                    events.last_mut().unwrap().push(line.to_owned());
                }
            }
            events
        });
        let bytes = |text: &str| text.chars().map(|letter| letter as u8).collect::<Vec<_>>();
        let read = |lines: Vec<String>| {
            let values = |field: &str| -> Vec<String> {
                lines.iter().filter_map(|line| line.strip_prefix(field)).map(str::to_owned).collect()
            };
            (bytes(&values("event:").join("")), bytes(&values("data:").join("\n")))
        };
        events.map(read).filter(|(name, data)| !name.is_empty() || !data.is_empty()).collect()
    }

    fn by_lines<'c>(chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut lines = Lines::new();
        let mut events = Vec::new();
        let (mut name, mut data, mut broken) = (Vec::new(), Vec::new(), false);
        for chunk in chunks {
            let mut at = 0;
            while let Some(part) = lines.next(chunk, &mut at) {
                match part {
                    Part::Data(range) => {
                        if std::mem::take(&mut broken) && !data.is_empty() {
                            data.push(b'\n');
                        }
                        data.extend_from_slice(&chunk[range]);
                    }
                    Part::Event(range) => name.extend_from_slice(&chunk[range]),
                    Part::LineEnd => broken = true,
                    Part::EventEnd => events.push((std::mem::take(&mut name), std::mem::take(&mut data))),
                }
            }
        }
        events.push((name, data));
        events.into_iter().filter(|(name, data)| !name.is_empty() || !data.is_empty()).collect()
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            3 => Just("data: x"), 3 => Just("\n"), 3 => Just("\r\n"), 2 => Just("\r"), 1 => Just("event: e"),
            1 => Just(": comment"), 1 => Just("data"), 1 => Just("da"), 1 => Just("data y:"), 1 => Just("id: 1"),
        ];
        (any::<bool>(), proptest::collection::vec(piece, 0..20)).prop_map(|(marked, pieces)| {
            let mark = if marked { &BYTE_ORDER_MARK[..] } else { b"" };
            [mark, pieces.concat().as_bytes()].concat()
        })
    }

    proptest! {
        #[test]
        fn events_are_those_of_the_specification_wherever_chunks_end(bytes in stream(), size in 1_usize..30) {
            let events = by_lines(bytes.chunks(size));
            prop_assert_eq!(&events, &by_lines([bytes.as_slice()]));
            prop_assert_eq!(events, by_specification(&bytes));
        }

        #[test]
        fn the_last_end_of_an_event_is_the_one_that_counting_from_the_front_gives(bytes in stream()) {
            let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
            let mut at = 0;
            while let Some(end) = bytes.get(at..).and_then(|rest| end_of_event(None, rest)) {
                at += end;
            }
            prop_assert_eq!(end_of_last_event(bytes), at);
        }
    }
}
