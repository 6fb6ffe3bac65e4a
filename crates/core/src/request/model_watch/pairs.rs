//! The model in pairs of `application/x-www-form-urlencoded` that pass by in chunks.

use memchr::{memchr, memchr2};

use crate::request::model_name::MAX_WRITTEN_NAME;
use crate::request::percent;

/// Longest name of interest as written, if every byte of it were an escape.
const MAX_FIELD: usize = 3 * b"model".len();

/// Finds the field `model`; holds nothing but its value, or the name of a field.
#[derive(Debug, Default)]
pub(super) struct PairsWatch {
    name: Vec<u8>,
    /// The value of a field `model` so far; `None` outside of it.
    value: Option<Vec<u8>>,
    /// In a value of no interest.
    passing: bool,
}

impl PairsWatch {
    /// Takes the next chunk, the last with `end`; gives the name if a field `model` ends in it, of several the last.
    pub(super) fn feed(&mut self, chunk: &[u8], end: bool) -> Option<Vec<u8>> {
        let (mut rest, mut found) = (chunk, None);
        while !rest.is_empty() {
            let border = if self.passing || self.value.is_some() {
                memchr(b'&', rest)
            } else {
                memchr2(b'=', b'&', rest)
            };
            let (part, behind) = rest.split_at(border.unwrap_or(rest.len()));
            self.keep(part);
            match behind.first() {
                Some(b'=') => {
                    let is_model =
                        self.name.len() <= MAX_FIELD && percent::decode(&self.name).as_ref() == b"model";
                    self.value = is_model.then(Vec::new);
                    self.passing = !is_model;
                }
                Some(_) => found = self.end().or(found),
                None => {}
            }
            rest = behind.get(1..).unwrap_or_default();
        }
        if end { self.end().or(found) } else { found }
    }

    fn keep(&mut self, part: &[u8]) {
        // One byte more than fits marks a name as too long.
        let (held, most) = match &mut self.value {
            _ if self.passing => return,
            Some(value) => (value, MAX_WRITTEN_NAME + 1),
            None => (&mut self.name, MAX_FIELD + 1),
        };
        let room = most.saturating_sub(held.len());
        held.extend_from_slice(part.get(..room).unwrap_or(part));
    }

    fn end(&mut self) -> Option<Vec<u8>> {
        self.name.clear();
        self.passing = false;
        let value = self.value.take()?;
        (!value.is_empty() && value.len() <= MAX_WRITTEN_NAME).then(|| percent::decode(&value).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::urlencoded;
    use super::*;

    proptest! {
        #[test]
        fn a_form_in_chunks_is_read_as_the_whole_one(
            pieces in proptest::collection::vec(prop_oneof![
                Just("model"), Just("m%6fdel"), Just("="), Just("&"), Just("x"), Just("%41+"), Just("alias"),
            ], 0..30),
            size in 1_usize..20,
        ) {
            let body = pieces.concat();
            let mut watch = PairsWatch::default();
            let mut found = None;
            for chunk in body.as_bytes().chunks(size) {
                found = watch.feed(chunk, false).or(found);
            }
            found = watch.feed(b"", true).or(found);
            let whole = urlencoded::read(body.as_bytes());
            let whole = whole.model_name(body.as_bytes()).map(std::borrow::Cow::into_owned);
            prop_assert_eq!(found.map(|name| String::from_utf8(name).unwrap()), whole);
        }
    }

    #[test]
    fn a_value_without_end_is_held_in_bounded_memory_and_is_no_name() {
        let mut watch = PairsWatch::default();
        watch.feed(b"model=", false);
        for _ in 0..100 {
            assert_eq!(watch.feed(&[b'x'; 1000], false), None);
        }
        assert!(watch.value.as_ref().unwrap().len() <= MAX_WRITTEN_NAME + 1);
        assert_eq!(watch.feed(b"&", true), None);
    }
}
