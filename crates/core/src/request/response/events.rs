//! An event stream: usage and failures, event by event. Most events are of no interest, and of a chunk of such events
//! nothing is looked at twice.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::memrchr2;
use smallvec::SmallVec;

use super::found::Found;
use super::objects::Members;
use crate::request::sse::{self, Lines, Part};
use crate::request::usage::{self, Dialect, Event};

/// Least bytes of an event that are kept: enough for its name.
const SHORTEST_LIMIT: usize = 64;

/// Bytes of a stream's end in which its mark stands: `data: [DONE]` or `data: {"type":"message_stop"}`.
const TAIL: usize = 64;

/// Bytes of an event's name that are kept of an event that is not.
const NAME: usize = 32;

/// The words in events of interest. The last two are those of the events that end an answer of the Responses API, which
/// need hold none of the others: `response.completed`, `response.incomplete`, `response.failed`.
static WORDS: LazyLock<[Finder<'static>; 4]> =
    LazyLock::new(|| [b"usage".as_slice(), b"error", b"complete", b"failed"].map(Finder::new));

/// The same for SGLang's own path.
static SGLANG_WORDS: LazyLock<[Finder<'static>; 2]> =
    LazyLock::new(|| [b"meta_info".as_slice(), b"error"].map(Finder::new));

/// The words that matter in answers to an API.
fn words(found: &Found) -> &'static [Finder<'static>] {
    if found.dialect == Dialect::Sglang {
        &*SGLANG_WORDS
    } else if found.responses {
        &*WORDS
    } else {
        WORDS.split_at(2).0
    }
}

/// Lines end in LF, CR or CRLF.
#[derive(Debug)]
pub(super) struct EventSource {
    /// The beginning of an event whose end has not come yet; never more than `limit` bytes and its line ends.
    carry: Vec<u8>,
    /// The event whose end has not come yet is longer than that.
    long: Option<Box<LongEvent>>,
    limit: usize,
    /// Bytes of a byte order mark that have come.
    mark: usize,
    tail: Tail,
}

/// The last bytes that came.
#[derive(Debug)]
struct Tail {
    bytes: [u8; TAIL],
    /// How many of them are there; they stand at the front.
    length: usize,
}

impl Tail {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn note(&mut self, chunk: &[u8]) {
        if let Some(last) = chunk.last_chunk() {
            self.bytes = *last;
            self.length = TAIL;
            return;
        }
        let beyond = (self.length + chunk.len()).saturating_sub(TAIL);
        self.bytes.copy_within(beyond..self.length, 0);
        self.length -= beyond;
        if let Some(room) = self.bytes.get_mut(self.length..self.length + chunk.len()) {
            room.copy_from_slice(chunk);
            self.length += chunk.len();
        }
    }
}

impl EventSource {
    /// Events of up to `limit` bytes are read whole, longer ones as they come.
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.max(SHORTEST_LIMIT);
        Self { carry: Vec::new(), long: None, limit, mark: 0, tail: Tail { bytes: [0; TAIL], length: 0 } }
    }

    pub(super) fn feed(&mut self, chunk: &[u8], found: &mut Found) {
        let mut rest = self.behind_mark(chunk);
        let last = self.tail.bytes().last().copied();
        self.tail.note(rest);
        if self.long.is_some() || !self.carry.is_empty() {
            let Some(end) = sse::end_of_event(last, rest) else {
                self.keep(rest, found);
                return;
            };
            let (event, behind) = rest.split_at(end);
            self.keep(event, found);
            self.end_event(found);
            rest = behind;
        } else if last == Some(b'\r') {
            // The other half of a line end.
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        let (events, begun) = rest.split_at(sse::end_of_last_event(rest));
        let words = words(found);
        if words.iter().any(|word| word.find(events).is_some()) {
            self.events(events, words, found);
        }
        if !begun.is_empty() {
            self.keep(begun, found);
        }
    }

    /// The bytes that follow the byte order mark at the start of the stream.
    fn behind_mark<'c>(&mut self, chunk: &'c [u8]) -> &'c [u8] {
        let mut rest = chunk;
        while let (Some(expected), Some(first)) = (sse::BYTE_ORDER_MARK.get(self.mark), rest.first()) {
            if expected == first {
                self.mark += 1;
                rest = rest.get(1..).unwrap_or_default();
            } else {
                self.mark = sse::BYTE_ORDER_MARK.len();
            }
        }
        rest
    }

    /// True if the last line that came is the mark of a stream's end.
    pub(super) fn ends_with_mark(&self, dialect: Dialect) -> bool {
        let tail = self.tail.bytes().trim_ascii_end();
        let start = memrchr2(b'\n', b'\r', tail).map_or(0, |end| end + 1);
        if start == 0 && self.tail.length >= TAIL {
            return false;
        }
        let data = sse::data(tail.get(start..).unwrap_or_default());
        data.is_some_and(|data| {
            data == b"[DONE]" || usage::read_event(dialect, data).is_ok_and(|event| event.last)
        })
    }

    /// The stream has ended: an event without an end counts too.
    pub(super) fn finish(&mut self, found: &mut Found) {
        self.end_event(found);
    }

    /// Reads the events in which there may be something; each of `events` has its end. The others are not even told
    /// apart.
    fn events(&self, events: &[u8], words: &[Finder<'static>], found: &mut Found) {
        // Responses say it in the first and the last events alone, and the last must be seen.
        let found_in_few = found.responses;
        // Each byte is searched once for each word, whatever the events hold.
        let mut next = [0; 4];
        let mut from = 0;
        let find = |index: usize, from: usize| {
            let Some(word) = words.get(index) else { return events.len() };
            let find = |from: usize| {
                events.get(from..).and_then(|rest| word.find(rest)).map_or(events.len(), |at| from + at)
            };
            let mut at = find(from);
            // Servers that report usage at the end write `"usage":null` into every event before; in a text the quote
            // would be escaped.
            while index == 0
                && !found_in_few
                && events.get(at..).is_some_and(|rest| rest.starts_with(b"usage\":null"))
            {
                at = find(at + 1);
            }
            at
        };
        for (index, at) in next.iter_mut().enumerate() {
            *at = find(index, 0);
        }
        loop {
            for (index, at) in next.iter_mut().enumerate() {
                if *at < from {
                    *at = find(index, from);
                }
            }
            let at = next.into_iter().min().unwrap_or(events.len());
            if at >= events.len() {
                return;
            }
            let start = from + sse::end_of_last_event(events.get(from..at).unwrap_or_default());
            let rest = events.get(start..).unwrap_or_default();
            let length = sse::end_of_event(None, rest).unwrap_or(rest.len());
            self.event(rest.get(..length).unwrap_or_default(), found);
            from = start + length;
        }
    }

    fn event(&self, event: &[u8], found: &mut Found) {
        if without_end(event).len() > self.limit {
            let mut long = LongEvent::begin(self.limit, found);
            long.feed(event, found);
            long.end(found);
        } else {
            found.whole(event);
        }
    }

    /// Takes more of an event whose end has not come.
    fn keep(&mut self, bytes: &[u8], found: &mut Found) {
        if let Some(long) = &mut self.long {
            long.feed(bytes, found);
        } else if self.carry.len() + without_end(bytes).len() <= self.limit {
            self.carry.extend_from_slice(bytes);
        } else {
            let mut long = LongEvent::begin(self.limit, found);
            long.feed(&std::mem::take(&mut self.carry), found);
            long.feed(bytes, found);
            self.long = Some(Box::new(long));
        }
    }

    fn end_event(&mut self, found: &mut Found) {
        if let Some(long) = self.long.take() {
            long.end(found);
        } else if words(found).iter().any(|word| word.find(&self.carry).is_some()) {
            found.whole(&self.carry);
        }
        self.carry.clear();
    }
}

/// An event without its last line ends.
fn without_end(event: &[u8]) -> &[u8] {
    let end = event.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    event.get(..end).unwrap_or_default()
}

/// An event that is too long to be kept: its usage, and an object that tells of an error, are found wherever they stand.
#[derive(Debug)]
struct LongEvent {
    lines: Lines,
    data: Members,
    name: SmallVec<[u8; NAME]>,
    event: Event,
}

impl LongEvent {
    fn begin(limit: usize, found: &Found) -> Self {
        let data = Members::at_the_top_and_in(usage::carrier(found.dialect), limit);
        Self { lines: Lines::of_an_event(), data, name: SmallVec::new(), event: Event::default() }
    }

    fn feed(&mut self, bytes: &[u8], found: &mut Found) {
        let event = &mut self.event;
        let mut at = 0;
        while let Some(part) = self.lines.next(bytes, &mut at) {
            match part {
                Part::Data(range) => {
                    self.data.feed(bytes.get(range).unwrap_or_default(), |member| match member {
                        Some(member) => found.member(member, event),
                        None => found.clipped = true,
                    });
                }
                Part::Event(range) => {
                    let part = bytes.get(range).unwrap_or_default();
                    let room = NAME - self.name.len();
                    self.name.extend_from_slice(part.get(..room).unwrap_or(part));
                }
                Part::LineEnd | Part::EventEnd => {
                    found.name(self.name.trim_ascii());
                    self.name.clear();
                }
            }
        }
    }

    fn end(self, found: &mut Found) {
        found.name(self.name.trim_ascii());
        found.event(self.event);
    }
}
