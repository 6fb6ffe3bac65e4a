//! An event stream: usage and failures, line by line. Most lines are of no interest, and of a chunk of such lines
//! nothing is looked at twice.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr2, memrchr2};

use super::found::Found;
use super::objects::Members;
use crate::request::sse;
use crate::request::usage::{self, Dialect, Event};

/// Least bytes of a line that are kept: enough to tell what line it is.
const SHORTEST_LIMIT: usize = 64;

/// Bytes of a stream's end in which its mark stands: `data: [DONE]` or `data: {"type":"message_stop"}`.
const TAIL: usize = 64;

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"usage"));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"error"));

/// True if there may be usage or an error in these lines.
fn is_of_interest(bytes: &[u8]) -> bool {
    USAGE.find(bytes).is_some() || ERROR.find(bytes).is_some()
}

/// Lines end in LF, CR or CRLF.
#[derive(Debug)]
pub(super) struct EventSource {
    /// The beginning of a line whose end has not come yet; never more than `limit` bytes.
    carry: Vec<u8>,
    /// The line whose end has not come yet is longer than that.
    long: Option<Box<LongLine>>,
    limit: usize,
    /// The last bytes that came.
    tail: Vec<u8>,
}

impl EventSource {
    /// Lines of up to `limit` bytes are read whole, longer ones as they come.
    pub(super) fn new(limit: usize) -> Self {
        Self { carry: Vec::new(), long: None, limit: limit.max(SHORTEST_LIMIT), tail: Vec::new() }
    }

    pub(super) fn feed(&mut self, chunk: &[u8], found: &mut Found) {
        self.note_tail(chunk);
        let mut rest = chunk;
        if self.long.is_some() || !self.carry.is_empty() {
            let Some(end) = memchr2(b'\n', b'\r', rest) else {
                self.keep(rest, found);
                return;
            };
            let (line, behind) = rest.split_at(end);
            self.keep(line, found);
            self.end_line(found);
            rest = behind;
        }
        let whole = memrchr2(b'\n', b'\r', rest).map_or(0, |last| last + 1);
        let (lines, begun) = rest.split_at(whole);
        self.lines(lines, found);
        self.keep(begun, found);
    }

    fn note_tail(&mut self, chunk: &[u8]) {
        let beyond = (self.tail.len() + chunk.len()).saturating_sub(TAIL);
        self.tail.drain(..beyond.min(self.tail.len()));
        self.tail.extend_from_slice(chunk.get(chunk.len().saturating_sub(TAIL)..).unwrap_or_default());
    }

    /// True if the last line that came is the mark of a stream's end.
    pub(super) fn ends_with_mark(&self, dialect: Dialect) -> bool {
        let tail = self.tail.trim_ascii_end();
        let start = memrchr2(b'\n', b'\r', tail).map_or(0, |end| end + 1);
        if start == 0 && self.tail.len() >= TAIL {
            return false;
        }
        let data = sse::data(tail.get(start..).unwrap_or_default());
        data.is_some_and(|data| {
            data == b"[DONE]" || usage::read_event(dialect, data).is_ok_and(|event| event.last)
        })
    }

    /// The stream has ended.
    pub(super) fn finish(&mut self, found: &mut Found) {
        self.end_line(found);
    }

    /// Reads the lines in which there may be something; each of `lines` has its end. The others are not even told
    /// apart.
    fn lines(&self, lines: &[u8], found: &mut Found) {
        let find = |finder: &Finder<'_>, from: usize, to: usize| {
            lines.get(from..to).and_then(|part| finder.find(part)).map_or(to, |at| from + at)
        };
        // Servers that report usage at the end write `"usage":null` into every event before; in a text the quote would
        // be escaped. Responses say it in the first and the last events alone, and the last must be seen.
        let found_in_few = found.responses;
        let find_usage = |from: usize| {
            let mut at = find(&USAGE, from, lines.len());
            while !found_in_few && lines.get(at..).is_some_and(|rest| rest.starts_with(b"usage\":null")) {
                at = find(&USAGE, at + 1, lines.len());
            }
            at
        };
        let mut from = 0;
        let mut usage = find_usage(0);
        loop {
            // Each byte is searched once for each word, whatever the lines hold.
            if usage < from {
                usage = find_usage(from);
            }
            let at = find(&ERROR, from, usage);
            if at >= lines.len() {
                return;
            }
            let before = lines.get(from..at).unwrap_or_default();
            let start = memrchr2(b'\n', b'\r', before).map_or(from, |end| from + end + 1);
            let behind = lines.get(at..).unwrap_or_default();
            let end = memchr2(b'\n', b'\r', behind).map_or(lines.len(), |length| at + length);
            self.line(lines.get(start..end).unwrap_or_default(), found);
            from = end + 1;
        }
    }

    fn line(&self, line: &[u8], found: &mut Found) {
        if line.len() > self.limit {
            let mut long = LongLine::begin(line, self.limit, found);
            long.feed(line, found);
            long.end(found);
        } else {
            found.line(line);
        }
    }

    /// Takes more of a line whose end has not come.
    fn keep(&mut self, bytes: &[u8], found: &mut Found) {
        if bytes.is_empty() {
            return;
        }
        if let Some(long) = &mut self.long {
            long.feed(bytes, found);
        } else if self.carry.len() + bytes.len() <= self.limit {
            self.carry.extend_from_slice(bytes);
        } else {
            let mut carry = std::mem::take(&mut self.carry);
            let (beginning, rest) =
                bytes.split_at(SHORTEST_LIMIT.saturating_sub(carry.len()).min(bytes.len()));
            carry.extend_from_slice(beginning);
            let mut long = LongLine::begin(&carry, self.limit, found);
            long.feed(&carry, found);
            long.feed(rest, found);
            self.long = Some(Box::new(long));
        }
    }

    fn end_line(&mut self, found: &mut Found) {
        if let Some(long) = self.long.take() {
            long.end(found);
        } else if is_of_interest(&self.carry) {
            found.line(&self.carry);
        }
        self.carry.clear();
    }
}

/// A line that is too long to be kept: its usage, and an object that tells of an error, are found wherever they stand.
#[derive(Debug)]
struct LongLine {
    /// `None` for lines that hold no data.
    data: Option<Members>,
    /// Bytes of `data:` that are still to come.
    prefix: usize,
    event: Event,
}

impl LongLine {
    /// A line that begins like this.
    fn begin(beginning: &[u8], limit: usize, found: &Found) -> Self {
        let within = usage::carrier(found.dialect);
        let data = sse::data(beginning).map(|_| Members::at_the_top_and_in(within, limit));
        let marked = beginning.starts_with(sse::BYTE_ORDER_MARK);
        let prefix = sse::DATA.len() + if marked { sse::BYTE_ORDER_MARK.len() } else { 0 };
        Self { data, prefix, event: Event::default() }
    }

    fn feed(&mut self, bytes: &[u8], found: &mut Found) {
        let Some(members) = &mut self.data else { return };
        let skipped = self.prefix.min(bytes.len());
        self.prefix -= skipped;
        let bytes = bytes.get(skipped..).unwrap_or_default();
        let event = &mut self.event;
        members.feed(bytes, |member| match member {
            Some(member) => found.member(member, event),
            None => found.clipped = true,
        });
    }

    fn end(self, found: &mut Found) {
        found.event(self.event);
    }
}
