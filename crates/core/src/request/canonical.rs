//! One spelling for all spellings of a JSON value: without blanks, members in the order of their names, strings and
//! numbers by what they mean. Two clients that send the same tools then send the same prompt.
//!
//! The value is read once, front to back, and no tree of it is kept. Its new spelling is written as it is read; an
//! object whose members came out of order has them put in order where it ends. Of a list, each element is handed on
//! when it is written, so that memory holds one element at a time.

use std::io::Write as _;
use std::ops::Range;

use smallvec::SmallVec;

use super::error::{Fault, ScanError};
use super::escapes;
use super::number::real_number;
use super::scan::{Cursor, Kind, Open};

/// Bytes of a request that are spelt anew; what lies behind them counts as it lies. It is twice of what a prefix index
/// looks at by default.
const BUDGET: usize = 1 << 20;

/// Objects that lie deeper keep the order of their members: each level may copy what lies within it once more.
const MAX_SORTED_DEPTH: usize = 32;

/// Whole numbers of so many digits are exact as doubles, and keep their digits.
const EXACT_DIGITS: usize = 15;

/// Spells the JSON values of one request.
#[derive(Debug)]
pub struct Canonical {
    /// Bytes that may still be spelt anew.
    left: usize,
    out: Vec<u8>,
    /// Members of an object on their way into order.
    spare: Vec<u8>,
    /// Members of the objects that are open, outermost first.
    members: Vec<Member>,
}

/// A member that was written to `out`.
#[derive(Clone, Debug)]
struct Member {
    /// Its name, without quotes.
    name: Range<usize>,
    end: usize,
}

impl Member {
    /// Where it begins: at the quote before its name.
    fn start(&self) -> usize {
        self.name.start.saturating_sub(1)
    }
}

/// An open object or array.
#[derive(Debug)]
struct Frame {
    open: Open,
    is_object: bool,
    is_first: bool,
    /// False once a member came whose name is not above that of the one before.
    in_order: bool,
    /// Where its members begin in `members`.
    members_from: usize,
}

impl Default for Canonical {
    fn default() -> Self {
        Self { left: BUDGET, out: Vec::new(), spare: Vec::new(), members: Vec::new() }
    }
}

impl Canonical {
    /// Calls `sink` with the spelling of `value` that all its spellings share, span by span, until it returns false.
    /// Bytes that are no JSON, and those beyond the first MiB of a request, count as they lie.
    pub fn write(&mut self, value: &[u8], mut sink: impl FnMut(&[u8]) -> bool) {
        self.out.clear();
        self.members.clear();
        // What was read of `value` when the last element was handed on.
        let mut done = 0;
        let spelt = self.spell(value, |out, read| {
            done = read;
            sink(out)
        });
        match spelt {
            Ok(false) => {}
            Ok(true) => {
                self.left = self.left.saturating_sub(self.out.len());
                sink(&self.out);
            }
            Err(_) => {
                self.left = self.left.saturating_sub(self.out.len());
                sink(value.get(done..).unwrap_or_default());
            }
        }
    }

    /// Writes `value` to `out`, and hands on the elements of a list with how much of it was read. False if `sink` has
    /// enough.
    fn spell(&mut self, value: &[u8], mut sink: impl FnMut(&[u8], usize) -> bool) -> Result<bool, ScanError> {
        let mut cursor = Cursor::new(value)?;
        let mut frames: SmallVec<[Frame; 8]> = SmallVec::new();
        loop {
            if let Some(frame) = self.value(&mut cursor)? {
                frames.push(frame);
            }
            if self.out.len() > self.left {
                return Err(ScanError { at: value.len(), fault: Fault::Length });
            }
            // Behind a value: leave containers until one goes on.
            while let Some(frame) = frames.last_mut() {
                if self.next(&mut cursor, frame)? {
                    break;
                }
                let depth = frames.len();
                if let Some(frame) = frames.pop() {
                    self.close(&frame, depth);
                }
            }
            match frames.as_slice() {
                [] => return cursor.finish().map(|()| true),
                [list] if !list.is_object => {
                    if !sink(&self.out, cursor.offset() as usize) {
                        return Ok(false);
                    }
                    self.left = self.left.saturating_sub(self.out.len());
                    self.out.clear();
                }
                _ => {}
            }
        }
    }

    /// Writes a value, or the beginning of one that holds others.
    fn value(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<Frame>, ScanError> {
        let kind = cursor.peek()?;
        match kind {
            Kind::Object | Kind::Array => {
                let is_object = kind == Kind::Object;
                self.out.push(if is_object { b'{' } else { b'[' });
                return Ok(Some(Frame {
                    open: cursor.open()?,
                    is_object,
                    is_first: true,
                    in_order: true,
                    members_from: self.members.len(),
                }));
            }
            Kind::String => self.string(cursor)?,
            Kind::Number => self.number(cursor.number()?),
            Kind::True | Kind::False | Kind::Null => {
                cursor.skip()?;
                let word: &[u8] = match kind {
                    Kind::True => b"true",
                    Kind::False => b"false",
                    _ => b"null",
                };
                self.out.extend_from_slice(word);
            }
        }
        Ok(None)
    }

    fn string(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
        let string = cursor.string()?;
        self.quoted(cursor, string);
        Ok(())
    }

    /// Writes a string that was read with its quotes; returns where it lies between them.
    fn quoted(&mut self, cursor: &Cursor<'_>, string: super::types::JsonStr) -> Range<usize> {
        self.out.push(b'"');
        let start = self.out.len();
        let raw = cursor.raw(string);
        if string.escaped {
            escapes::respell(raw, &mut self.out);
        } else {
            self.out.extend_from_slice(raw);
        }
        let end = self.out.len();
        self.out.push(b'"');
        start..end
    }

    fn number(&mut self, raw: &[u8]) {
        let digits = raw.strip_prefix(b"-").unwrap_or(raw);
        if digits.len() <= EXACT_DIGITS && digits.iter().all(u8::is_ascii_digit) && raw != b"-0" {
            self.out.extend_from_slice(raw);
            return;
        }
        // Writing to a vector cannot fail.
        let _ = match real_number(raw) {
            Some(real) if real.fract() == 0.0 && real.abs() < 1e15 => write!(self.out, "{}", real as i64),
            Some(real) => write!(self.out, "{real:e}"),
            None => self.out.write_all(raw),
        };
    }

    /// Goes to the next value of a container; false at its end.
    fn next(&mut self, cursor: &mut Cursor<'_>, frame: &mut Frame) -> Result<bool, ScanError> {
        if frame.is_object {
            let end = self.out.len();
            if !frame.is_first
                && let Some(last) = self.members.last_mut()
            {
                last.end = end;
            }
            let Some(name) = cursor.member(&mut frame.open)? else { return Ok(false) };
            if !frame.is_first {
                self.out.push(b',');
            }
            let name = self.quoted(cursor, name);
            if !frame.is_first
                && let Some(last) = self.members.last()
            {
                frame.in_order &= self.out.get(last.name.clone()) < self.out.get(name.clone());
            }
            self.out.push(b':');
            self.members.push(Member { name, end: 0 });
        } else {
            if !cursor.element(&mut frame.open)? {
                return Ok(false);
            }
            if !frame.is_first {
                self.out.push(b',');
            }
        }
        frame.is_first = false;
        Ok(true)
    }

    /// Ends a container; puts the members of an object in order. Of several with one name the last counts.
    fn close(&mut self, frame: &Frame, depth: usize) {
        if !frame.is_object {
            self.out.push(b']');
            return;
        }
        let out = &mut self.out;
        let members = self.members.get_mut(frame.members_from..).unwrap_or_default();
        if !frame.in_order
            && depth <= MAX_SORTED_DEPTH
            && let Some(start) = members.first().map(Member::start)
        {
            let name = |member: &Member| out.get(member.name.clone()).unwrap_or_default();
            members
                .sort_unstable_by(|a, b| name(a).cmp(name(b)).then_with(|| a.name.start.cmp(&b.name.start)));
            self.spare.clear();
            for (index, member) in members.iter().enumerate() {
                let next = members.get(index + 1);
                if next.is_some_and(|next| name(next) == name(member)) {
                    continue;
                }
                self.spare.extend_from_slice(out.get(member.start()..member.end).unwrap_or_default());
                self.spare.push(b',');
            }
            self.spare.pop();
            out.truncate(start);
            out.extend_from_slice(&self.spare);
        }
        out.push(b'}');
        self.members.truncate(frame.members_from);
    }
}

#[cfg(test)]
mod tests;
