//! A push scanner for responses that come in chunks: it finds a few members near the top of a JSON document and says
//! where their values begin and end, holding nothing but a member name.
//!
//! The scanner counts open braces and brackets, and knows whether it stands in a string. Nothing else decides where a
//! value ends, so a chunk may end anywhere: in a name, behind a backslash, in the middle of a character. Between two
//! chunks the scanner keeps its state and at most 64 bytes of a member name. Most bytes of an answer lie in strings or
//! in containers that nobody asked for; `memchr2` and `plain_run` pass over those at the speed of memory.
//!
//! Example: `usage` is wanted at the top level. In `{"choices":[…],"usage":{"prompt_tokens":7}}` the scanner passes
//! over the value of `choices` at depth 2 and more, reports the start at the brace behind `"usage":`, and the end where
//! the depth is back at 1.
//!
//! The scanner does not check the document. On bytes that are not JSON it finds nothing, or something that looks right.

use memchr::memchr2;
use smallvec::SmallVec;

/// Longest member name of interest as written, if every character of it were escaped.
const MAX_NAME: usize = 64;

/// The members that are looked for, by name: at the top level, and inside the top-level object `within` if that is
/// given.
#[derive(Clone, Copy, Debug)]
pub(super) struct WantedMembers {
    /// Each with what its value must be; other values are passed over.
    pub(super) members: &'static [(&'static str, Shape)],
    pub(super) within: Option<&'static str>,
}

/// Shape of a wanted value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    String,
    Object,
    /// Either of them.
    StringOrObject,
}

/// A border of a wanted value: an offset in the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// Offset of the opening quote or brace.
    Start(usize),
    /// Offset behind the closing quote or brace. The start may lie in an earlier chunk.
    End(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the document's opening brace.
    Before,
    /// Between strings.
    Structure,
    /// In a string.
    Text,
    /// Behind a backslash in a string.
    TextEscape,
    /// In a member name that may be wanted.
    Name,
    /// Behind a backslash in such a name.
    NameEscape,
    /// The document is no object.
    Nothing,
}

/// The value that a member name announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Announced {
    #[default]
    Other,
    /// The member of this index.
    Wanted(u8),
    Within,
}

/// The value that is being passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Nothing,
    String,
    /// A wanted object, opened at this depth.
    Object(usize),
}

/// The scanner's state between chunks.
#[derive(Clone, Debug)]
pub(super) struct Skim {
    wanted: WantedMembers,
    state: State,
    /// Open containers.
    depth: usize,
    /// In the `within` object, whose members stand at depth 2.
    within: bool,
    /// The next string is a member name.
    at_name: bool,
    name: SmallVec<[u8; MAX_NAME]>,
    /// The value that the last name announced. It moves to `value` with the colon.
    named: Announced,
    value: Announced,
    /// Index of the wanted member that was found last.
    found: u8,
    inside: Inside,
    /// Objects that have begun at the top.
    documents: u32,
}

impl Skim {
    pub(super) fn new(wanted: WantedMembers) -> Self {
        Self {
            wanted,
            state: State::Before,
            depth: 0,
            within: false,
            at_name: false,
            name: SmallVec::new(),
            named: Announced::Other,
            value: Announced::Other,
            found: 0,
            inside: Inside::Nothing,
            documents: 0,
        }
    }

    /// Starts over with a new document.
    pub(super) fn reset(&mut self) {
        *self = Self { documents: self.documents, ..Self::new(self.wanted) };
    }

    /// How many documents have begun so far.
    pub(super) fn documents(&self) -> u32 {
        self.documents
    }

    /// The next border at or behind `from`, which moves on to where scanning stopped; `None` at the end of the chunk.
    pub(super) fn next(&mut self, chunk: &[u8], from: &mut usize) -> Option<Edge> {
        while let Some(byte) = chunk.get(*from).copied() {
            let edge = match self.state {
                State::Structure => {
                    if self.inside == Inside::Nothing && !self.names_matter() {
                        *from += plain_run(chunk.get(*from..).unwrap_or_default());
                    }
                    let byte = chunk.get(*from).copied()?;
                    let edge = self.structure(byte, *from);
                    *from += 1;
                    edge
                }
                State::Text => {
                    let Some(found) = chunk.get(*from..).and_then(|rest| memchr2(b'"', b'\\', rest)) else {
                        *from = chunk.len();
                        return None;
                    };
                    let at = *from + found;
                    *from = at + 1;
                    if chunk.get(at) == Some(&b'\\') {
                        self.state = State::TextEscape;
                        None
                    } else {
                        self.state = State::Structure;
                        self.leave_string(*from)
                    }
                }
                State::TextEscape => {
                    *from += 1;
                    self.state = State::Text;
                    None
                }
                State::Name => {
                    *from += 1;
                    self.name_byte(byte);
                    None
                }
                State::NameEscape => {
                    *from += 1;
                    self.remember(byte);
                    self.state = State::Name;
                    None
                }
                State::Before => {
                    *from += 1;
                    match byte {
                        b'{' => {
                            self.depth = 1;
                            self.documents = self.documents.wrapping_add(1);
                            self.at_name = true;
                            self.state = State::Structure;
                        }
                        // The last three are the byte order mark.
                        b' ' | b'\t' | b'\n' | b'\r' | 0xef | 0xbb | 0xbf => {}
                        _ => self.state = State::Nothing,
                    }
                    None
                }
                State::Nothing => {
                    *from = chunk.len();
                    None
                }
            };
            if edge.is_some() {
                return edge;
            }
        }
        None
    }

    /// True if what was found last stands inside of the `within` object, and not at the top.
    pub(super) fn is_within(&self) -> bool {
        self.within
    }

    /// Index of the wanted member whose border was found last.
    pub(super) fn found(&self) -> usize {
        usize::from(self.found)
    }

    /// True if the last document that has begun has ended too.
    pub(super) fn is_complete(&self) -> bool {
        self.documents > 0 && self.state == State::Before
    }

    /// Notes that the announced value begins, if it is of the right shape.
    fn begins(&mut self, announced: Announced, other_shape: Shape) -> bool {
        let Announced::Wanted(index) = announced else { return false };
        let fits =
            self.wanted.members.get(usize::from(index)).is_some_and(|(_, shape)| *shape != other_shape);
        if fits && self.inside == Inside::Nothing {
            self.found = index;
            return true;
        }
        false
    }

    fn names_matter(&self) -> bool {
        self.depth == 1 || (self.within && self.depth == 2)
    }

    fn structure(&mut self, byte: u8, at: usize) -> Option<Edge> {
        match byte {
            b'"' => {
                if self.at_name && self.names_matter() {
                    self.at_name = false;
                    self.name.clear();
                    self.state = State::Name;
                    return None;
                }
                self.state = State::Text;
                let announced = std::mem::take(&mut self.value);
                if self.begins(announced, Shape::Object) {
                    self.inside = Inside::String;
                    return Some(Edge::Start(at));
                }
            }
            b'{' | b'[' => {
                let announced = if byte == b'{' { self.value } else { Announced::Other };
                self.value = Announced::Other;
                self.at_name = false;
                self.depth += 1;
                if announced == Announced::Within {
                    self.within = true;
                    self.at_name = true;
                } else if byte == b'{' && self.begins(announced, Shape::String) {
                    self.inside = Inside::Object(self.depth);
                    return Some(Edge::Start(at));
                }
            }
            b'}' | b']' => {
                let closes_wanted = self.inside == Inside::Object(self.depth);
                self.depth = self.depth.saturating_sub(1);
                self.value = Announced::Other;
                self.at_name = false;
                if self.depth <= 1 {
                    self.within = false;
                }
                if self.depth == 0 {
                    // What follows is another document, or nothing.
                    self.state = State::Before;
                }
                if closes_wanted {
                    self.inside = Inside::Nothing;
                    return Some(Edge::End(at + 1));
                }
            }
            b',' => {
                self.value = Announced::Other;
                self.at_name = self.names_matter();
            }
            b':' if self.names_matter() => {
                self.value = std::mem::take(&mut self.named);
            }
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => self.value = Announced::Other,
        }
        None
    }

    fn leave_string(&mut self, end: usize) -> Option<Edge> {
        if self.inside != Inside::String {
            return None;
        }
        self.inside = Inside::Nothing;
        Some(Edge::End(end))
    }

    fn name_byte(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.state = State::Structure;
                self.named = self.announced();
            }
            b'\\' => {
                self.state = State::NameEscape;
                self.remember(byte);
            }
            _ => self.remember(byte),
        }
    }

    fn remember(&mut self, byte: u8) {
        // One byte more than fits marks a name as too long to be wanted.
        if self.name.len() <= MAX_NAME {
            self.name.push(byte);
        }
    }

    fn announced(&self) -> Announced {
        if self.name.len() > MAX_NAME {
            return Announced::Other;
        }
        let name = super::escapes::decode(&self.name);
        let is_name = |(wanted, _): &(&str, Shape)| name.as_ref() == wanted.as_bytes();
        if let Some(index) = self.wanted.members.iter().position(is_name) {
            Announced::Wanted(index as u8)
        } else if self.depth == 1
            && self.wanted.within.is_some_and(|within| name.as_ref() == within.as_bytes())
        {
            Announced::Within
        } else {
            Announced::Other
        }
    }
}

/// Length of the run without quotes, braces and brackets at the start of `bytes`: long arrays of numbers.
fn plain_run(bytes: &[u8]) -> usize {
    let ends = |byte: &u8| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']');
    let (blocks, _) = bytes.as_chunks::<32>();
    let clean =
        blocks.iter().take_while(|block| !block.iter().fold(false, |found, byte| found | ends(byte))).count()
            * 32;
    let rest = bytes.get(clean..).unwrap_or_default();
    clean + rest.iter().position(ends).unwrap_or(rest.len())
}
