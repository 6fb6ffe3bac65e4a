//! A pull scanner over JSON bytes. It builds nothing: the caller asks for members and elements and skips the rest.
//!
//! Everything that is passed over is checked against RFC 8259, with two differences that follow the reference's
//! decoder: bytes inside strings need not be UTF-8, and surrogate escapes need not pair up. Two more follow the decoder
//! of model servers, that of Python: a byte order mark may come first, and `NaN`, `Infinity` and `-Infinity` are
//! numbers. Containers nested deeper than [`MAX_DEPTH`] are an error; nothing here recurses.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::error::{Fault, ScanError};
use super::escapes;
use super::number::whole_number;
use super::types::JsonStr;
use super::words::{digits_in_word, find_special};

/// Deepest nesting of arrays and objects that is accepted (the reference's decoder has the same bound).
pub(super) const MAX_DEPTH: u32 = 10_000;

/// Some clients begin UTF-8 with it, and servers pass over it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The kind of the value that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// An object or array that is being walked.
#[derive(Debug)]
pub(super) struct Open {
    first: bool,
}

/// The scanner: a position in the body.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'b> {
    body: &'b [u8],
    at: usize,
    depth: u32,
}

impl<'b> Cursor<'b> {
    /// A scanner at the start of `body`.
    pub(super) fn new(body: &'b [u8]) -> Result<Self, ScanError> {
        if u32::try_from(body.len()).is_err() {
            return Err(ScanError { at: body.len(), fault: Fault::Length });
        }
        let at = if body.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        Ok(Self { body, at, depth: 0 })
    }

    /// Offset of the next byte.
    pub(super) fn offset(&self) -> u32 {
        self.at as u32
    }

    /// The decoded value of a string that was read.
    pub(super) fn value(&self, string: JsonStr) -> Cow<'b, [u8]> {
        if string.escaped {
            escapes::decode(string.raw(self.body))
        } else {
            Cow::Borrowed(string.raw(self.body))
        }
    }

    /// The bytes between the quotes of a string that was read, escapes included.
    pub(super) fn raw(&self, string: JsonStr) -> &'b [u8] {
        string.raw(self.body)
    }

    fn byte(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    /// The error at the current byte; the end of the bytes goes before `fault`.
    fn fail(&self, fault: Fault) -> ScanError {
        let fault = if self.at >= self.body.len() { Fault::End } else { fault };
        ScanError { at: self.at, fault }
    }

    /// Kind of the value that comes next.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "a call for each value costs two per cent of reading a short request"
    )]
    pub(super) fn peek(&mut self) -> Result<Kind, ScanError> {
        self.skip_whitespace();
        Ok(match self.byte() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => Kind::Number,
            Some(b't') => Kind::True,
            Some(b'f') => Kind::False,
            Some(b'n') => Kind::Null,
            _ => return Err(self.fail(Fault::Value)),
        })
    }

    /// Enters the object or array that [`Cursor::peek`] has just seen.
    pub(super) fn open(&mut self) -> Result<Open, ScanError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.fail(Fault::Depth));
        }
        self.depth += 1;
        self.at += 1;
        Ok(Open { first: true })
    }

    /// Enters the object that has to come next.
    pub(super) fn open_object(&mut self) -> Result<Open, ScanError> {
        if self.peek()? == Kind::Object { self.open() } else { Err(self.fail(Fault::Object)) }
    }

    /// Name of the next member, with the scanner before its value; `None` when the object is left.
    pub(super) fn member(&mut self, open: &mut Open) -> Result<Option<JsonStr>, ScanError> {
        self.skip_whitespace();
        match self.byte() {
            Some(b'}') => {
                self.close();
                return Ok(None);
            }
            Some(b',') if !open.first => {
                self.at += 1;
                self.skip_whitespace();
            }
            _ if open.first => {}
            _ => return Err(self.fail(Fault::MemberEnd)),
        }
        open.first = false;
        self.name().map(Some)
    }

    /// True if there is another element, with the scanner before it; false when the array is left.
    pub(super) fn element(&mut self, open: &mut Open) -> Result<bool, ScanError> {
        self.skip_whitespace();
        match self.byte() {
            Some(b']') => {
                self.close();
                return Ok(false);
            }
            Some(b',') if !open.first => {
                self.at += 1;
                self.skip_whitespace();
            }
            _ if open.first => {}
            _ => return Err(self.fail(Fault::ElementEnd)),
        }
        open.first = false;
        Ok(true)
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth = self.depth.saturating_sub(1);
    }

    /// A member name and its colon.
    fn name(&mut self) -> Result<JsonStr, ScanError> {
        if self.byte() != Some(b'"') {
            return Err(self.fail(Fault::Name));
        }
        let name = self.string()?;
        self.skip_whitespace();
        if self.byte() != Some(b':') {
            return Err(self.fail(Fault::Colon));
        }
        self.at += 1;
        Ok(name)
    }

    /// The string that begins at the current byte.
    pub(super) fn string(&mut self) -> Result<JsonStr, ScanError> {
        if self.byte() != Some(b'"') {
            return Err(self.fail(Fault::Value));
        }
        self.at += 1;
        let start = self.offset();
        let mut escaped = false;
        loop {
            self.at = find_special(self.body, self.at);
            match self.byte() {
                Some(b'"') => {
                    let end = self.offset();
                    self.at += 1;
                    return Ok(JsonStr { start, end, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.skip_escape()?;
                }
                _ => return Err(self.fail(Fault::Control)),
            }
        }
    }

    fn skip_escape(&mut self) -> Result<(), ScanError> {
        self.at += 1;
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.byte().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.fail(Fault::Escape));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.fail(Fault::Escape)),
        }
        Ok(())
    }

    /// Passes over a number of one to seven plain digits; false, without a step, if anything else comes next. This is
    /// what arrays of token ids consist of.
    pub(super) fn skip_short_number(&mut self) -> bool {
        let Some(word) = self.body.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) else {
            return false;
        };
        let digits = digits_in_word(*word);
        let leading_zero = word.first() == Some(&b'0') && digits > 1;
        if digits == 0 || leading_zero || !matches!(word.get(digits), Some(b',' | b']')) {
            return false;
        }
        self.at += digits;
        true
    }

    /// The number that begins at the current byte.
    pub(super) fn number(&mut self) -> Result<&'b [u8], ScanError> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            Some(b'N' | b'I') => return self.no_number(start),
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.body.get(start..self.at).unwrap_or_default())
    }

    /// Python's words for doubles that JSON has no number for.
    fn no_number(&mut self, start: usize) -> Result<&'b [u8], ScanError> {
        let word: &[u8] = if self.byte() == Some(b'N') && self.at == start { b"NaN" } else { b"Infinity" };
        self.literal(word)?;
        Ok(self.body.get(start..self.at).unwrap_or_default())
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        if self.at == start { Err(self.fail(Fault::Digit)) } else { Ok(()) }
    }

    fn literal(&mut self, text: &[u8]) -> Result<(), ScanError> {
        for expected in text {
            if self.byte() != Some(*expected) {
                return Err(self.fail(Fault::Value));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// The next value if it is a string; any other value is passed over.
    pub(super) fn string_or_skip(&mut self) -> Result<Option<JsonStr>, ScanError> {
        if self.peek()? == Kind::String {
            return self.string().map(Some);
        }
        self.skip()?;
        Ok(None)
    }

    /// The next value if it is a boolean; any other value is passed over.
    pub(super) fn bool_or_skip(&mut self) -> Result<Option<bool>, ScanError> {
        let kind = self.peek()?;
        self.skip()?;
        Ok(match kind {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        })
    }

    /// The next value if it is a whole number that is not negative; any other value is passed over.
    pub(super) fn count_or_skip(&mut self) -> Result<Option<u64>, ScanError> {
        if self.peek()? == Kind::Number {
            return self.number().map(whole_number);
        }
        self.skip()?;
        Ok(None)
    }

    /// Passes over the next value, checking it; returns where it lies, without the whitespace around it.
    pub(super) fn skip(&mut self) -> Result<Range<u32>, ScanError> {
        self.skip_whitespace();
        let start = self.offset();
        let mut nest = Nest::default();
        loop {
            match self.peek()? {
                Kind::String => {
                    self.string()?;
                }
                Kind::Number => {
                    self.number()?;
                }
                Kind::True => self.literal(b"true")?,
                Kind::False => self.literal(b"false")?,
                Kind::Null => self.literal(b"null")?,
                Kind::Object => {
                    self.open()?;
                    nest.push(true);
                    if !self.closes(b'}') {
                        self.name()?;
                        continue;
                    }
                    nest.pop();
                }
                Kind::Array => {
                    self.open()?;
                    nest.push(false);
                    if !self.closes(b']') {
                        continue;
                    }
                    nest.pop();
                }
            }
            // Behind a value: leave containers until one goes on.
            loop {
                let Some(object) = nest.innermost() else { return Ok(start..self.offset()) };
                let (closing, fault) =
                    if object { (b'}', Fault::MemberEnd) } else { (b']', Fault::ElementEnd) };
                if self.closes(closing) {
                    nest.pop();
                    continue;
                }
                if self.byte() != Some(b',') {
                    return Err(self.fail(fault));
                }
                self.at += 1;
                if object {
                    self.skip_whitespace();
                    self.name()?;
                }
                break;
            }
        }
    }

    /// Leaves the container if `closing` comes next.
    fn closes(&mut self, closing: u8) -> bool {
        self.skip_whitespace();
        let closes = self.byte() == Some(closing);
        if closes {
            self.close();
        }
        closes
    }

    /// Makes sure that nothing but whitespace is left.
    pub(super) fn finish(mut self) -> Result<(), ScanError> {
        self.skip_whitespace();
        if self.at < self.body.len() { Err(self.fail(Fault::Trailing)) } else { Ok(()) }
    }
}

/// The open containers of a skipped value, one bit each: 10,000 levels take 1,250 bytes.
#[derive(Default)]
struct Nest {
    words: SmallVec<[u64; 4]>,
    current: u64,
    levels: u32,
}

impl Nest {
    fn push(&mut self, object: bool) {
        if self.levels > 0 && self.levels.is_multiple_of(64) {
            self.words.push(self.current);
        }
        self.current = self.current << 1 | u64::from(object);
        self.levels += 1;
    }

    fn pop(&mut self) {
        self.levels = self.levels.saturating_sub(1);
        self.current >>= 1;
        if self.levels > 0 && self.levels.is_multiple_of(64) {
            self.current = self.words.pop().unwrap_or_default();
        }
    }

    /// Whether the innermost open container is an object; `None` if there is none.
    fn innermost(&self) -> Option<bool> {
        (self.levels > 0).then_some(self.current & 1 == 1)
    }
}

#[cfg(test)]
mod tests;
