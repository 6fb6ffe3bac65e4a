//! Blanks members out of a JSON object that passes by in chunks: what stood there becomes spaces, so that the body keeps
//! its length and every other byte.
//!
//! A member that is to go stands at the top of the object, or in an object that is reached from the top by a chain of
//! names. Held back is at most the comma in front of a member and the member's name; all other bytes are passed on as
//! they come, shared and not copied. What is no JSON object passes as it is, but for one that is not in UTF-8: servers
//! read UTF-16 too, and so nothing of it passes.

use bytes::Bytes;
use memchr::memchr2;
use smallvec::SmallVec;

use super::escapes;
use super::outgoing::Outgoing;

/// Longest name of interest as written, if every character of it were escaped.
const LONGEST_NAME: usize = 256;

/// Most bytes that are held back across two chunks: a comma, white space and a name.
const MOST_HELD: usize = 64 << 10;

/// More white space stands in front of a member than is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MOST_HELD} bytes of white space in front of a member")]
pub struct TooMuchBlank;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the object.
    Before,
    /// Between the parts of the object, or in a value that is no string.
    Structure,
    Text,
    TextEscape,
    /// In the name of a member of an object of interest.
    Name,
    NameEscape,
    /// Behind the name of a member that is to go, up to its value.
    Colon,
    /// In a value that is to go and is no string.
    Gone,
    GoneText,
    GoneEscape,
    /// Behind the object, or in what is none.
    Nothing,
    /// In a body that is not in UTF-8.
    Foreign,
}

/// Blanks members out of one body.
#[derive(Debug)]
pub struct Blanker {
    names: &'static [&'static str],
    chain: &'static [&'static str],
    state: State,
    depth: usize,
    /// Objects of the chain that are open: 1 is the top.
    level: usize,
    /// Whether a member of the open object of this level was kept.
    kept: SmallVec<[bool; 4]>,
    /// A name comes next.
    at_name: bool,
    /// The value that comes next is the object of the next level.
    announced: bool,
    /// Depth of containers in a value that is to go.
    gone: usize,
    /// A scalar of a value that is to go has begun.
    scalar: bool,
    /// The name as written, as far as it matters.
    name: SmallVec<[u8; 32]>,
    /// Bytes of earlier chunks that are held back.
    held: Vec<u8>,
    holds: bool,
    blanked: u64,
}

impl Blanker {
    /// Blanks the members called `names` at the top of the object, and in the object that `chain` leads to.
    pub fn new(names: &'static [&'static str], chain: &'static [&'static str]) -> Self {
        Self {
            names,
            chain,
            state: State::Before,
            depth: 0,
            level: 0,
            kept: SmallVec::new(),
            at_name: false,
            announced: false,
            gone: 0,
            scalar: false,
            name: SmallVec::new(),
            held: Vec::new(),
            holds: false,
            blanked: 0,
        }
    }

    /// Members that were blanked so far.
    pub fn blanked(&self) -> u64 {
        self.blanked
    }

    /// Takes the next chunk and returns what can go out now.
    pub fn feed(&mut self, chunk: &Bytes) -> Result<SmallVec<[Bytes; 3]>, TooMuchBlank> {
        let mut output = Outgoing::of(chunk);
        // Where the bytes begin that are held back, if they begin in this chunk.
        let mut hold = 0;
        let mut at = 0;
        while let Some(byte) = chunk.get(at).copied() {
            at = self.step(byte, at, &mut hold, &mut output);
        }
        match self.state {
            _ if self.holds => {
                output.through(hold);
                self.held.extend_from_slice(chunk.get(hold..).unwrap_or_default());
                if self.held.len() > MOST_HELD {
                    return Err(TooMuchBlank);
                }
            }
            State::Colon | State::Gone | State::GoneText | State::GoneEscape | State::Foreign => {
                output.blank(chunk.len());
            }
            _ => output.through(chunk.len()),
        }
        Ok(output.pieces)
    }

    /// The body has ended: returns what was still held back.
    pub fn finish(&mut self) -> Option<Bytes> {
        self.holds = false;
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then(|| Bytes::from(held))
    }

    /// Reads the byte at `at`; returns where to go on.
    fn step(&mut self, byte: u8, at: usize, hold: &mut usize, output: &mut Outgoing<'_>) -> usize {
        match self.state {
            State::Before => match byte {
                b'{' => self.open_level(),
                // The last three are the byte order mark.
                b' ' | b'\t' | b'\n' | b'\r' | 0xef | 0xbb | 0xbf => {}
                // One half of a character, or of a byte order mark, of UTF-16 or UTF-32.
                0 | 0xfe | 0xff => self.is_foreign(at, *hold, output),
                _ => self.state = State::Nothing,
            },
            State::Structure => return self.structure(byte, at, hold, output),
            State::Text | State::GoneText => {
                let rest = output.chunk.get(at..).unwrap_or_default();
                let Some(found) = memchr2(b'"', b'\\', rest) else { return output.chunk.len() };
                let gone = self.state == State::GoneText;
                if rest.get(found) == Some(&b'\\') {
                    self.state = if gone { State::GoneEscape } else { State::TextEscape };
                } else if gone {
                    self.state = State::Gone;
                    if self.gone == 0 {
                        self.value_is_gone(at + found + 1, output);
                    }
                } else {
                    self.state = State::Structure;
                }
                return at + found + 1;
            }
            State::TextEscape => self.state = State::Text,
            State::GoneEscape => self.state = State::GoneText,
            State::Name if byte == b'"' => self.name_ends(at, *hold, output),
            State::Name | State::NameEscape => {
                self.state = match (self.state, byte) {
                    (State::Name, b'\\') => State::NameEscape,
                    _ => State::Name,
                };
                if self.name.len() < LONGEST_NAME {
                    self.name.push(byte);
                } else {
                    // No name that anybody wants; the rest of it need not be held back.
                    self.release(output);
                    self.keep();
                    self.state =
                        if self.state == State::NameEscape { State::TextEscape } else { State::Text };
                }
            }
            State::Colon => {
                if byte == b':' {
                    self.state = State::Gone;
                } else if !is_blank(byte) {
                    self.broken(at, output);
                }
            }
            State::Gone => return self.gone(byte, at, output),
            State::Nothing | State::Foreign => return output.chunk.len(),
        }
        at + 1
    }

    fn open_level(&mut self) {
        self.depth += 1;
        self.level += 1;
        self.kept.push(false);
        self.at_name = true;
        self.state = State::Structure;
    }

    fn structure(&mut self, byte: u8, at: usize, hold: &mut usize, output: &mut Outgoing<'_>) -> usize {
        let interesting = self.depth == self.level;
        let announced = std::mem::take(&mut self.announced);
        match byte {
            b'"' if interesting && self.at_name => {
                if !self.holds {
                    self.holds = true;
                    *hold = at;
                }
                self.at_name = false;
                self.name.clear();
                self.state = State::Name;
            }
            b'"' => self.state = State::Text,
            b'{' if announced => self.open_level(),
            b'{' | b'[' => {
                self.depth += 1;
                self.at_name = false;
            }
            b'}' | b']' => {
                self.release(output);
                if interesting {
                    self.level -= 1;
                    self.kept.pop();
                }
                self.depth -= 1;
                self.at_name = false;
                if self.depth == 0 {
                    self.state = State::Nothing;
                }
            }
            b',' if interesting => {
                self.at_name = true;
                if self.kept.last() == Some(&true) {
                    if !self.holds {
                        self.holds = true;
                        *hold = at;
                    }
                } else {
                    // Every member in front of it is gone.
                    output.through(at);
                    output.blank(at + 1);
                }
            }
            b':' | b' ' | b'\t' | b'\n' | b'\r' => self.announced = announced,
            0 => self.is_foreign(at, *hold, output),
            _ => {}
        }
        at + 1
    }

    /// The body is not in UTF-8: what follows becomes spaces.
    fn is_foreign(&mut self, at: usize, hold: usize, output: &mut Outgoing<'_>) {
        if self.holds {
            self.blank_held(hold, output);
        } else {
            output.through(at);
        }
        self.blanked += 1;
        self.state = State::Foreign;
    }

    /// What is held back becomes spaces.
    fn blank_held(&mut self, hold: usize, output: &mut Outgoing<'_>) {
        if self.held.is_empty() {
            output.through(hold);
        } else {
            output.pieces.push(Bytes::from(vec![b' '; self.held.len()]));
            self.held.clear();
        }
        self.holds = false;
    }

    /// A name of an object of interest ends at `at`.
    fn name_ends(&mut self, at: usize, hold: usize, output: &mut Outgoing<'_>) {
        let name = escapes::decode(&self.name);
        let last = self.level == self.chain.len() + 1;
        let wanted = (self.level == 1 || last) && self.names.iter().any(|wanted| wanted.as_bytes() == &*name);
        if wanted {
            self.blank_held(hold, output);
            output.blank(at + 1);
            self.blanked += 1;
            self.gone = 0;
            self.scalar = false;
            self.state = State::Colon;
            return;
        }
        let next = self.chain.get(self.level - 1);
        self.announced = next.is_some_and(|next| next.as_bytes() == &*name);
        self.release(output);
        self.keep();
        self.state = State::Structure;
    }

    fn keep(&mut self) {
        if let Some(kept) = self.kept.last_mut() {
            *kept = true;
        }
    }

    /// What is held back goes out.
    fn release(&mut self, output: &mut Outgoing<'_>) {
        self.holds = false;
        if !self.held.is_empty() {
            output.pieces.push(Bytes::from(std::mem::take(&mut self.held)));
        }
    }

    fn gone(&mut self, byte: u8, at: usize, output: &mut Outgoing<'_>) -> usize {
        match byte {
            b'"' => self.state = State::GoneText,
            b'{' | b'[' => self.gone += 1,
            b'}' | b']' if self.gone > 0 => {
                self.gone -= 1;
                if self.gone == 0 {
                    self.value_is_gone(at + 1, output);
                }
            }
            b',' | b'}' | b']' if self.gone == 0 => {
                self.value_is_gone(at, output);
                return at;
            }
            _ if self.gone == 0 && self.scalar && is_blank(byte) => self.value_is_gone(at, output),
            _ if self.gone == 0 && !is_blank(byte) => self.scalar = true,
            _ => {}
        }
        at + 1
    }

    fn value_is_gone(&mut self, end: usize, output: &mut Outgoing<'_>) {
        output.blank(end);
        self.state = State::Structure;
    }

    /// The bytes are no JSON behind what was blanked: a server refuses them, whatever they look like.
    fn broken(&mut self, at: usize, output: &mut Outgoing<'_>) {
        output.blank(at);
        self.state = State::Nothing;
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const CHAIN: &[&str] = &["sampling", "extra"];

    fn blanked(body: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut blanker = Blanker::new(&["kv", "ec"], CHAIN);
        let (mut out, mut from) = (Vec::new(), 0);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(body.len());
        for cut in cuts {
            let chunk = Bytes::copy_from_slice(&body[from..cut]);
            out.extend(blanker.feed(&chunk).unwrap().concat());
            from = cut;
        }
        out.extend(blanker.finish().unwrap_or_default());
        out
    }

    fn text(body: &str) -> String {
        String::from_utf8(blanked(body.as_bytes(), &[])).unwrap()
    }

    #[test]
    fn a_member_becomes_spaces_with_one_comma() {
        for (body, expected) in [
            (r#"{"kv":1}"#, "{}"),
            (r#"{"kv":{"a":[1,"}"]},"x":2}"#, r#"{"x":2}"#),
            (r#"{"x":2,"kv":"a\"b"}"#, r#"{"x":2}"#),
            (r#"{"x":2 , "kv": true , "y":3}"#, r#"{"x":2,"y":3}"#),
            (r#"{"kv":1,"ec":2,"x":3,"kv":4}"#, r#"{"x":3}"#),
            (r#"{"k\u0076":1,"x":3}"#, r#"{"x":3}"#),
            (r#"{"a":{"kv":1},"b":"\"kv\":1","c":["kv"]}"#, r#"{"a":{"kv":1},"b":"\"kv\":1","c":["kv"]}"#),
            (r#"{"sampling":{"kv":1,"extra":{"kv":1}}}"#, r#"{"sampling":{"kv":1,"extra":{}}}"#),
            (
                r#"{"extra":{"kv":1},"sampling":{"extra":[{"kv":1}]}}"#,
                r#"{"extra":{"kv":1},"sampling":{"extra":[{"kv":1}]}}"#,
            ),
        ] {
            let new = text(body);
            assert_eq!(new.len(), body.len(), "{body}");
            assert_eq!(new.replace(' ', ""), expected, "{body}");
        }
    }

    #[test]
    fn what_is_no_object_passes_as_it_is() {
        for body in ["", "[{\"kv\":1}]", "no json \"kv\":1", "{", "\"kv\"", "{\"a\":1}{\"kv\":1}"] {
            assert_eq!(text(body), body);
        }
    }

    #[test]
    fn a_body_in_utf_16_or_utf_32_passes_on_nothing_that_a_server_could_read() {
        let body = r#"{"a":1,"kv":{"x":2}}"#;
        let utf_16 = |order: fn(u16) -> [u8; 2]| body.encode_utf16().flat_map(order).collect::<Vec<u8>>();
        let utf_32 = |order: fn(u32) -> [u8; 4]| {
            body.chars().flat_map(|character| order(u32::from(character))).collect::<Vec<u8>>()
        };
        let (little, big) = (utf_16(u16::to_le_bytes), utf_16(u16::to_be_bytes));
        let marked = [&b"\xff\xfe"[..], &little].concat();
        let marked_big = [&b"\xfe\xff"[..], &big].concat();
        let bodies = [little, big, marked, marked_big, utf_32(u32::to_le_bytes), utf_32(u32::to_be_bytes)];
        for body in bodies {
            for cuts in [&[][..], &[1], &[1, 2, 3, 9, 10]] {
                let new = blanked(&body, cuts);
                assert_eq!(new.len(), body.len());
                assert!(new.iter().all(|byte| matches!(byte, b'{' | b' ')), "{new:?}");
            }
        }
        let late = [&b"{\"a\":1, \0"[..], b"\"kv\":1}"].concat();
        assert_eq!(blanked(&late, &[8]).trim_ascii_end(), b"{\"a\":1");
    }

    #[test]
    fn white_space_without_end_in_front_of_a_member_is_refused() {
        let mut blanker = Blanker::new(&["kv"], &[]);
        let blanks = Bytes::from(vec![b' '; 1 << 10]);
        assert!(blanker.feed(&Bytes::from_static(b"{\"a\":1,")).is_ok());
        let refused = (0..100).any(|_| blanker.feed(&blanks).is_err());
        assert!(refused);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            Just(json!(null)),
            Just(json!("\"kv\":{")),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[ab]|kv|ec|sampling|extra", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn without(mut tree: Value) -> Value {
        let strip = |value: &mut Value| {
            if let Some(object) = value.as_object_mut() {
                object.remove("kv");
                object.remove("ec");
            }
        };
        strip(&mut tree);
        if let Some(extra) = tree.get_mut("sampling").and_then(|inner| inner.get_mut("extra")) {
            strip(extra);
        }
        tree
    }

    proptest! {
        #[test]
        fn wherever_chunks_end_the_members_are_gone_and_all_else_stands(
            members in prop::collection::vec(("[ab]|kv|ec|sampling|extra", value()), 0..6),
            pretty in any::<bool>(),
            cuts in prop::collection::vec(any::<usize>(), 0..6),
        ) {
            let tree = Value::Object(members.into_iter().collect());
            let body =
                if pretty { serde_json::to_string_pretty(&tree).unwrap() } else { tree.to_string() };
            let new = blanked(body.as_bytes(), &cuts);
            prop_assert_eq!(new.len(), body.len());
            prop_assert_eq!(&new, &blanked(body.as_bytes(), &[]));
            prop_assert!(body.bytes().zip(&new).all(|(old, new)| old == *new || *new == b' '));
            prop_assert_eq!(serde_json::from_slice::<Value>(&new).unwrap(), without(tree.clone()));
            if tree == without(tree.clone()) {
                prop_assert_eq!(new, body.as_bytes());
            }
        }

        #[test]
        fn any_bytes_keep_their_length(body in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'{'), Just(b'}'), Just(b','), Just(b':'), Just(b'k'), Just(b'v'), Just(b'\\'), any::<u8>()], 0..60), cuts in prop::collection::vec(any::<usize>(), 0..4)) {
            prop_assert_eq!(blanked(&body, &cuts).len(), body.len());
        }
    }
}
