//! Collecting prompt pieces, with a bound on their number.

use smallvec::SmallVec;

use super::error::{ScanError, Shape, Unread};
use super::number::whole_number;
use super::scan::{Cursor, Kind};
use super::types::{JsonStr, MediaKind, Piece, Prompt};

/// Most pieces that a prompt is taken apart into. The rest counts as one JSON piece, so that a body of
/// millions of tiny strings does not grow many times its size.
pub(super) const MAX_PIECES: usize = 65_536;

/// The pieces of one field, with the first thing that was wrong with it.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    list: SmallVec<[Piece; 8]>,
    /// Where the first piece that found no place begins.
    rest_from: Option<u32>,
    /// The first value of an unexpected shape.
    shape: Option<Shape>,
}

impl Pieces {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.list.truncate(len);
    }

    pub(super) fn text(&mut self, string: JsonStr) {
        if string.start < string.end {
            self.push(string.start, Piece::Text(string));
        }
    }

    pub(super) fn media(&mut self, kind: MediaKind, string: Option<JsonStr>) {
        if let Some(string) = string {
            self.push(string.start, Piece::Media(kind, string));
        }
    }

    pub(super) fn json(&mut self, range: std::ops::Range<u32>) {
        self.push(range.start, Piece::Json(range));
    }

    /// A boundary between prompts, unless none has begun.
    pub(super) fn next_prompt(&mut self, at: u32) {
        if !self.list.is_empty() {
            self.push(at, Piece::NextPrompt);
        }
    }

    /// Puts text before the pieces from `index` on: a message's role may follow its content.
    pub(super) fn text_before(&mut self, index: usize, string: JsonStr) {
        if string.start < string.end && self.list.len() < MAX_PIECES && index <= self.list.len() {
            self.list.insert(index, Piece::Text(string));
        }
    }

    fn push(&mut self, at: u32, piece: Piece) {
        if self.rest_from.is_none() && self.list.len() < MAX_PIECES {
            self.list.push(piece);
        } else {
            self.rest_from.get_or_insert(at);
        }
    }

    /// Notes a value of an unexpected shape at the scanner. It counts as it lies: servers may know more than we do.
    pub(super) fn take_as_it_lies(
        &mut self,
        cursor: &mut Cursor<'_>,
        what: &'static str,
    ) -> Result<(), ScanError> {
        cursor.peek()?;
        self.note(cursor.offset(), what);
        let range = cursor.skip()?;
        self.json(range);
        Ok(())
    }

    /// Notes that the value at `at` has an unexpected shape.
    fn note(&mut self, at: u32, what: &'static str) {
        self.shape.get_or_insert(Shape { at, what });
    }

    /// The field has been read up to `end`: what found no place counts as it lies.
    pub(super) fn close(&mut self, end: u32) {
        if let Some(from) = self.rest_from.take() {
            self.list.push(Piece::Json(from..end));
        }
    }

    /// Adds the pieces of another field behind these.
    pub(super) fn append(&mut self, other: Self) {
        if self.list.is_empty() {
            self.list = other.list;
        } else {
            self.list.extend(other.list);
        }
        self.shape = self.shape.or(other.shape);
    }

    /// The prompt, and the first thing in it that was not understood.
    pub(super) fn into_prompt(self) -> (Prompt, Option<Unread>) {
        (Prompt { pieces: self.list }, self.shape.map(Unread::Shape))
    }
}

/// Text that may be `null`; any other value counts as it lies.
pub(super) fn text_or_null(
    cursor: &mut Cursor<'_>,
    pieces: &mut Pieces,
    what: &'static str,
) -> Result<Option<JsonStr>, ScanError> {
    match cursor.peek()? {
        Kind::String => return cursor.string().map(Some),
        Kind::Null => {
            cursor.skip()?;
        }
        _ => pieces.take_as_it_lies(cursor, what)?,
    }
    Ok(None)
}

/// The string member `name` of the object that comes next, or that value itself if it is a string.
pub(super) fn string_in(cursor: &mut Cursor<'_>, names: &[&[u8]]) -> Result<Option<JsonStr>, ScanError> {
    match cursor.peek()? {
        Kind::String => return cursor.string().map(Some),
        Kind::Object => {}
        _ => {
            cursor.skip()?;
            return Ok(None);
        }
    }
    let mut found = None;
    let mut object = cursor.open()?;
    while let Some(member) = cursor.member(&mut object)? {
        if names.contains(&cursor.value(member).as_ref()) {
            found = cursor.string_or_skip()?.or(found);
        } else {
            cursor.skip()?;
        }
    }
    Ok(found)
}

/// The count `name` of the object that comes next, of several the last; `None` if it is no object.
pub(super) fn count_in(cursor: &mut Cursor<'_>, name: &[u8]) -> Result<Option<u64>, ScanError> {
    let mut count = None;
    if cursor.peek()? != Kind::Object {
        cursor.skip()?;
        return Ok(count);
    }
    let mut object = cursor.open()?;
    while let Some(member) = cursor.member(&mut object)? {
        if cursor.value(member).as_ref() == name {
            count = cursor.count_or_skip()?;
        } else {
            cursor.skip()?;
        }
    }
    Ok(count)
}

/// Whether a `prompt` or `input` may hold objects beside texts and token ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objects {
    /// Objects are a known form of input, and count as they lie.
    Known,
    /// They are not.
    Unknown,
}

/// A `prompt` or `input`: text, an array of texts, an array of token ids, or an array of such arrays. Servers may take
/// other values too; those count as they lie.
pub(super) fn read_prompt(cursor: &mut Cursor<'_>, objects: Objects) -> Result<Pieces, ScanError> {
    const SHAPE: &str = "expected a string, an array of strings or an array of token ids";
    let mut pieces = Pieces::default();
    match cursor.peek()? {
        Kind::String => {
            let text = cursor.string()?;
            pieces.text(text);
        }
        Kind::Null => {
            cursor.skip()?;
        }
        Kind::Array => match first_in(cursor, objects)? {
            First::Nothing => {
                cursor.skip()?;
            }
            First::Number => read_tokens(cursor, &mut pieces)?,
            First::Prompt(kind) => {
                let mut array = cursor.open()?;
                while cursor.element(&mut array)? {
                    pieces.next_prompt(cursor.peek().map(|_| cursor.offset())?);
                    match cursor.peek()? {
                        Kind::String if kind == Kind::String => {
                            let text = cursor.string()?;
                            pieces.push(text.start, Piece::Text(text));
                        }
                        Kind::Array if kind == Kind::Array => read_tokens(cursor, &mut pieces)?,
                        _ => pieces.take_as_it_lies(cursor, SHAPE)?,
                    }
                }
            }
            First::Object => {
                let range = cursor.skip()?;
                pieces.json(range);
            }
            First::Other => pieces.take_as_it_lies(cursor, SHAPE)?,
        },
        Kind::Object if objects == Objects::Known => {
            let range = cursor.skip()?;
            pieces.json(range);
        }
        _ => pieces.take_as_it_lies(cursor, SHAPE)?,
    }
    pieces.close(cursor.offset());
    Ok(pieces)
}

/// Which kind of array it is shows in its first element.
enum First {
    Nothing,
    Number,
    /// Texts, or arrays of token ids.
    Prompt(Kind),
    /// Objects, or arrays of them, where these are known.
    Object,
    Other,
}

fn first_in(cursor: &Cursor<'_>, objects: Objects) -> Result<First, ScanError> {
    let known = |first| if objects == Objects::Known { first } else { First::Other };
    let mut probe = cursor.clone();
    let mut array = probe.open()?;
    if !probe.element(&mut array)? {
        return Ok(First::Nothing);
    }
    Ok(match probe.peek()? {
        Kind::Number => First::Number,
        Kind::Object => known(First::Object),
        Kind::Array => {
            let mut inner = probe.open()?;
            let object = probe.element(&mut inner)? && probe.peek()? == Kind::Object;
            if object { known(First::Object) } else { First::Prompt(Kind::Array) }
        }
        Kind::String => First::Prompt(Kind::String),
        _ => First::Other,
    })
}

/// One array of token ids (whole numbers below 2^32); an empty one leaves no piece.
pub(super) fn read_tokens(cursor: &mut Cursor<'_>, pieces: &mut Pieces) -> Result<(), ScanError> {
    const SHAPE: &str = "expected an array of token ids";
    if cursor.peek()? != Kind::Array {
        return pieces.take_as_it_lies(cursor, SHAPE);
    }
    let start = cursor.offset();
    let mut array = cursor.open()?;
    let mut tokens = false;
    while cursor.element(&mut array)? {
        tokens = true;
        if cursor.skip_short_number() {
            continue;
        }
        let at = cursor.offset();
        if cursor.peek()? == Kind::Number {
            let number = cursor.number()?;
            if whole_number(number).is_none_or(|token| u32::try_from(token).is_err()) {
                pieces.note(at, "expected a token id from 0 to 4294967295");
            }
        } else {
            pieces.note(at, SHAPE);
            cursor.skip()?;
        }
    }
    if tokens {
        pieces.push(start, Piece::Tokens(start..cursor.offset()));
    }
    Ok(())
}
