//! Setting and removing members of a JSON object without touching any other byte.
//!
//! The object is read once, in one pass that builds nothing but the places of the members that somebody wants. An edited
//! body is a list of pieces: slices of the body that was received, and the new values in between. Key order, white
//! space, numbers of any length, escapes and repeated keys of all other members stay as they came.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::error::ScanError;
use super::escapes;
use super::pieces_of_body::Joined;
use super::scan::Cursor;

/// How often one body may repeat the members that somebody wants. More of them are a fault of the body.
const MOST_FOUND: usize = 256;

/// Why a body cannot be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The body is no JSON object.
    #[error("the body is no JSON object: {0}")]
    Json(#[from] ScanError),
    /// The body repeats members too often.
    #[error("the body repeats its members more than {MOST_FOUND} times")]
    Repeated,
}

/// A JSON object in bytes, with the places of the members that were asked for.
#[derive(Clone, Debug)]
pub struct JsonObject {
    body: Bytes,
    found: SmallVec<[Found; 8]>,
    /// Offset behind the opening brace.
    inside: u32,
    /// Members of the object, of any name.
    members: u32,
}

/// One member.
#[derive(Clone, Debug)]
struct Found {
    /// Its name, among those that were asked for.
    name: &'static str,
    /// Its place among all members, from 0.
    ordinal: u32,
    /// Offset of the comma in front of it; that of its name if it is the first.
    lead: u32,
    /// Offset of the quote that its name begins with.
    start: u32,
    value: Range<u32>,
    /// Offset behind the comma that follows it, if one does.
    comma: Option<u32>,
}

/// What is to become of members, in the order in which new ones are to stand.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    list: SmallVec<[(&'static str, Option<Bytes>); 8]>,
}

impl Edits {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a member to this JSON text. The last word on a member counts.
    pub fn set(&mut self, name: &'static str, value: impl Into<Bytes>) -> &mut Self {
        self.put(name, Some(value.into()))
    }

    /// Takes a member out.
    pub fn remove(&mut self, name: &'static str) -> &mut Self {
        self.put(name, None)
    }

    fn put(&mut self, name: &'static str, value: Option<Bytes>) -> &mut Self {
        match self.list.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.list.push((name, value)),
        }
        self
    }

    /// True if nothing is to change.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn of(&self, name: &str) -> Option<&Option<Bytes>> {
        self.list.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl JsonObject {
    /// Reads `body`, which must be one JSON object, and notes the members called `names`.
    pub fn read(body: Bytes, names: &[&'static str]) -> Result<Self, ObjectError> {
        let mut cursor = Cursor::new(&body)?;
        let mut object = cursor.open_object()?;
        let inside = cursor.offset();
        let mut found: SmallVec<[Found; 8]> = SmallVec::new();
        let (mut members, mut behind) = (0, inside);
        let mut last: Option<usize> = None;
        while let Some(key) = cursor.member(&mut object)? {
            let start = key.start.saturating_sub(1);
            if let Some(last) = last.take().and_then(|last: usize| found.get_mut(last)) {
                last.comma = comma_in(&body, behind, start);
            }
            let name = cursor.value(key);
            let wanted = names.iter().find(|wanted| wanted.as_bytes() == name.as_ref()).copied();
            let value = cursor.skip()?;
            if let Some(name) = wanted {
                if found.len() >= MOST_FOUND {
                    return Err(ObjectError::Repeated);
                }
                let lead = comma_in(&body, behind, start).map_or(start, |comma| comma.saturating_sub(1));
                last = Some(found.len());
                found.push(Found { name, ordinal: members, lead, start, value: value.clone(), comma: None });
            }
            behind = value.end;
            members += 1;
        }
        cursor.finish()?;
        Ok(Self { body, found, inside, members })
    }

    /// The bytes that were read.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The value of a member as JSON text; of repeated ones the last, which is what model servers take.
    pub fn get(&self, name: &str) -> Option<Bytes> {
        let found = self.found.iter().rev().find(|found| found.name == name)?;
        Some(self.slice(found.value.start, found.value.end))
    }

    /// True if there is such a member.
    pub fn has(&self, name: &str) -> bool {
        self.found.iter().any(|found| found.name == name)
    }

    /// The text of a member that is a string.
    pub fn text(&self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        let inside = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        Some(escapes::decode_text(inside).into_owned())
    }

    /// The value of a member that is a whole number from 0 on.
    pub fn count(&self, name: &str) -> Option<u64> {
        std::str::from_utf8(&self.get(name)?).ok()?.parse().ok()
    }

    /// True if a member is `true`.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.as_ref() == b"true")
    }

    /// The pieces of the body after `edits`; joined they are the new body. Every member that is edited must have been
    /// among the names that were asked for. Repeated members are all set, so that it does not matter which one a server
    /// reads. Missing members that are set stand first. Long slices of the body are shared and not copied.
    pub fn edited(&self, edits: &Edits) -> SmallVec<[Bytes; 3]> {
        let mut joined = Joined::default();
        let removed = self.found.iter().filter(|found| matches!(edits.of(found.name), Some(None))).count();
        let kept = self.members as usize > removed;
        joined.piece(self.slice(0, self.inside));
        let missing = edits.list.iter().filter(|(name, _)| !self.has(name));
        let mut first = true;
        for (name, value) in missing.filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            if !std::mem::take(&mut first) {
                joined.copy(b",");
            }
            joined.copy(&escapes::encode(name));
            joined.copy(b":");
            joined.piece(value.clone());
        }
        if !first && kept {
            joined.copy(b",");
        }
        let (mut done, mut leading) = (self.inside, 0);
        for found in &self.found {
            match edits.of(found.name) {
                None => {}
                Some(Some(value)) => {
                    joined.piece(self.slice(done, found.value.start));
                    joined.piece(value.clone());
                    done = found.value.end;
                }
                // All members in front of it are gone too: the comma behind it goes with it.
                Some(None) if found.ordinal == leading => {
                    leading += 1;
                    joined.piece(self.slice(done, found.start));
                    done = found.comma.unwrap_or(found.value.end);
                }
                Some(None) => {
                    joined.piece(self.slice(done, found.lead));
                    done = found.value.end;
                }
            }
        }
        joined.piece(self.slice(done, u32::MAX));
        joined.finish()
    }

    fn slice(&self, from: u32, to: u32) -> Bytes {
        let to = self.body.len().min(to as usize);
        self.body.slice(to.min(from as usize)..to)
    }
}

/// Offset behind the comma between two members, which is all that stands there beside white space.
fn comma_in(body: &[u8], from: u32, to: u32) -> Option<u32> {
    let between = body.get(from as usize..to as usize)?;
    memchr::memchr(b',', between).map(|at| from + at as u32 + 1)
}

/// `text` as a JSON string with its quotes.
pub fn json_string(text: &str) -> Bytes {
    Bytes::from(escapes::encode(text))
}

/// The text between the quotes of a JSON string, its escapes resolved.
pub fn json_text(raw: &[u8]) -> Cow<'_, str> {
    escapes::decode_text(raw)
}

/// The elements of a JSON array, each as it lies; `None` if `value` is no array.
pub fn json_elements(value: &Bytes) -> Option<Vec<Bytes>> {
    let mut cursor = Cursor::new(value).ok()?;
    if cursor.peek().ok()? != super::scan::Kind::Array {
        return None;
    }
    let mut array = cursor.open().ok()?;
    let mut elements = Vec::new();
    while cursor.element(&mut array).ok()? {
        let range = cursor.skip().ok()?;
        elements.push(value.slice(range.start as usize..range.end as usize));
    }
    cursor.finish().ok()?;
    Some(elements)
}

/// The members of a JSON object, each name with its value as it lies; `None` if `value` is no object.
pub fn json_members(value: &Bytes) -> Option<Vec<(String, Bytes)>> {
    let mut cursor = Cursor::new(value).ok()?;
    let mut object = cursor.open_object().ok()?;
    let mut members = Vec::new();
    while let Some(key) = cursor.member(&mut object).ok()? {
        let name = String::from_utf8_lossy(&cursor.value(key)).into_owned();
        let range = cursor.skip().ok()?;
        members.push((name, value.slice(range.start as usize..range.end as usize)));
    }
    cursor.finish().ok()?;
    Some(members)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const NAMES: &[&str] = &["a", "b", "c", "m\u{f6}"];

    fn edited(body: &str, edits: &Edits) -> String {
        let object = JsonObject::read(Bytes::copy_from_slice(body.as_bytes()), NAMES).unwrap();
        String::from_utf8(object.edited(edits).concat()).unwrap()
    }

    #[test]
    fn members_are_set_in_place_and_missing_ones_stand_first() {
        let mut edits = Edits::new();
        edits.set("a", &b"1"[..]).set("c", &b"[2]"[..]);
        for (body, expected) in [
            (r#"{"a" : 9 ,"x":1e400}"#, r#"{"c":[2],"a" : 1 ,"x":1e400}"#),
            (r#"{"x":12345678901234567890}"#, r#"{"a":1,"c":[2],"x":12345678901234567890}"#),
            (" { } ", r#" {"a":1,"c":[2] } "#),
            (r#"{"a":0,"a":{"a":5},"c":null}"#, r#"{"a":1,"a":1,"c":[2]}"#),
            (r#"{"\u0061":0,"c":3}"#, r#"{"\u0061":1,"c":[2]}"#),
        ] {
            assert_eq!(edited(body, &edits), expected, "{body}");
        }
    }

    #[test]
    fn members_are_removed_with_one_comma() {
        let mut edits = Edits::new();
        edits.remove("a").remove("b");
        for (body, expected) in [
            (r#"{"a":1}"#, "{}"),
            (r#"{"a":1,"b":2}"#, "{}"),
            (r#"{"a":1 , "x":2}"#, r#"{ "x":2}"#),
            (r#"{"x":2, "a":1}"#, r#"{"x":2}"#),
            (r#"{"x":2,"a":1,"y":3,"b":4,"a":5}"#, r#"{"x":2,"y":3}"#),
            (r#"{"a":1,"b":2,"x":3,"a":4}"#, r#"{"x":3}"#),
            (r#"{"x":"a"}"#, r#"{"x":"a"}"#),
        ] {
            assert_eq!(edited(body, &edits), expected, "{body}");
        }
    }

    #[test]
    fn a_member_that_takes_the_place_of_removed_ones_needs_no_comma() {
        let mut edits = Edits::new();
        edits.remove("a").set("c", &b"0"[..]);
        assert_eq!(edited(r#"{"a":1}"#, &edits), r#"{"c":0}"#);
        assert_eq!(edited(r#"{"a":1,"x":2}"#, &edits), r#"{"c":0,"x":2}"#);
    }

    #[test]
    fn of_repeated_members_the_last_one_is_read() {
        let object = JsonObject::read(Bytes::from_static(br#"{"a":1,"b":"x\n","a":22}"#), NAMES).unwrap();
        assert_eq!(object.count("a"), Some(22));
        assert_eq!(object.text("b").as_deref(), Some("x\n"));
        assert_eq!(object.get("c"), None);
        assert!(!object.is_true("a"));
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_place() {
        for body in ["[1]", "{", "", "{\"a\":}", "{\"a\":1}x", "{\"a\":1,}"] {
            let error = JsonObject::read(Bytes::copy_from_slice(body.as_bytes()), NAMES).unwrap_err();
            assert!(error.to_string().contains("at byte"), "{body}: {error}");
        }
        let many = format!("{{{}}}", vec!["\"a\":1"; MOST_FOUND + 1].join(","));
        assert_eq!(JsonObject::read(Bytes::from(many), NAMES).unwrap_err(), ObjectError::Repeated);
    }

    fn member() -> impl Strategy<Value = (String, String)> {
        let value = prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            any::<String>().prop_map(|text| Value::from(text).to_string()),
            Just("[1, {\"a\":2}]".to_owned()),
            Just("{ \"a\" : {} }".to_owned()),
            Just("null".to_owned()),
        ];
        ("[a-e]|m\u{f6}", value)
    }

    proptest! {
        #[test]
        fn an_edited_body_says_what_an_edited_tree_says_and_keeps_all_other_bytes(
            members in prop::collection::vec(member(), 0..8),
            removed in prop::collection::vec(0..4_usize, 0..3),
            set in prop::collection::vec(0..4_usize, 0..3),
            blank in "[ \n]{0,2}",
        ) {
            let text: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("{blank}{}{blank}:{blank}{value}{blank}", Value::from(name.as_str())))
                .collect();
            let body = format!("{{{blank}{}}}", text.join(","));
            let mut edits = Edits::new();
            let mut tree: Value = serde_json::from_str(&body).unwrap();
            let object = tree.as_object_mut().unwrap();
            for index in &removed {
                edits.remove(NAMES[*index]);
                object.remove(NAMES[*index]);
            }
            for index in &set {
                edits.set(NAMES[*index], &b"[true]"[..]);
                object.insert(NAMES[*index].to_owned(), serde_json::json!([true]));
            }
            let new = edited(&body, &edits);
            prop_assert_eq!(serde_json::from_str::<Value>(&new).unwrap(), tree);
            // What nobody edited stands there letter for letter.
            for (name, value) in &members {
                if edits.of(name).is_none() {
                    let whole = format!("{}{blank}:{blank}{value}", Value::from(name.as_str()));
                    prop_assert!(new.contains(&whole));
                }
            }
            if edits.is_empty() {
                prop_assert_eq!(new, body);
            }
        }
    }
}
