//! The model of a request whose body was not seen whole, or passes by in pieces.

use smallvec::SmallVec;

use super::escapes;
use super::model_name::MAX_MODEL_NAME;
use super::skim::{Edge, Shape, Skim, Wanted};
use super::types::{Inference, JsonStr};

/// Longest model name that is read, in bytes as written: every byte of the longest name may be escaped.
const MAX_NAME: usize = 6 * MAX_MODEL_NAME;

/// Finds the top-level `model` in a JSON body that comes in chunks.
#[derive(Debug)]
pub struct ModelWatch {
    skim: Skim,
    /// The value so far, opening quote and all; `None` outside of it.
    value: Option<Vec<u8>>,
}

impl Default for ModelWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelWatch {
    /// A watch for one body.
    pub fn new() -> Self {
        Self { skim: wanted(), value: None }
    }

    /// Takes the next chunk; gives the name if a value of `model` ends in it, of several the last.
    pub fn feed(&mut self, chunk: &[u8]) -> Option<String> {
        let mut found = None;
        let (mut at, mut from) = (0, 0);
        while let Some(edge) = self.skim.next(chunk, &mut at) {
            match edge {
                Edge::Start(start) => {
                    from = start;
                    self.value = Some(Vec::new());
                }
                Edge::End(end) => {
                    self.keep(chunk.get(from..end).unwrap_or_default());
                    found = self.value.take().and_then(|value| name(&value)).or(found);
                    from = end;
                }
            }
        }
        self.keep(chunk.get(from..).unwrap_or_default());
        found
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(value) = &mut self.value {
            let room = (MAX_NAME + 2).saturating_sub(value.len());
            value.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
    }
}

/// What can be told from the beginning of a JSON body that cannot be parsed because it is cut: its model, if that lies
/// in it, so that it can be replaced. `None` if it does not.
pub fn model_in_beginning(body: &[u8]) -> Option<Inference> {
    let mut skim = wanted();
    let (mut at, mut start) = (0, None);
    let mut values: SmallVec<[std::ops::Range<u32>; 1]> = SmallVec::new();
    while let Some(edge) = skim.next(body, &mut at) {
        match edge {
            Edge::Start(offset) => start = Some(offset as u32),
            Edge::End(end) => values.extend(start.take().map(|start| start..end as u32)),
        }
        // More would be no body of an honest client.
        if values.len() > 1 {
            return None;
        }
    }
    let value = values.first()?;
    let (start, end) = (value.start.checked_add(1)?, value.end.checked_sub(1)?);
    let raw = body.get(start as usize..end as usize)?;
    let opening = body.iter().position(|byte| *byte == b'{')?;
    let mut inference = Inference::opaque();
    inference.model = Some(JsonStr { start, end, escaped: raw.contains(&b'\\') });
    inference.insert_at = u32::try_from(opening + 1).ok();
    inference.model_values = values;
    Some(inference)
}

fn wanted() -> Skim {
    Skim::new(Wanted { members: &[("model", Shape::String)], within: None })
}

fn name(quoted: &[u8]) -> Option<String> {
    let raw = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (raw.len() <= MAX_NAME).then(|| escapes::decode_text(raw).into_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::splice::splice_model;
    use super::*;

    #[test]
    fn the_model_is_found_wherever_the_chunks_end() {
        let body = br#"{"messages":[{"model":"no"}],"model":"al\u0069as","n":1}"#;
        for cut in 0..body.len() {
            let mut watch = ModelWatch::new();
            let found = watch.feed(&body[..cut]).or_else(|| watch.feed(&body[cut..]));
            assert_eq!(found.as_deref(), Some("alias"), "cut at {cut}");
        }
    }

    #[test]
    fn a_name_without_end_is_held_in_bounded_memory_and_is_none() {
        let mut watch = ModelWatch::new();
        assert_eq!(watch.feed(br#"{"model":""#), None);
        for _ in 0..100 {
            assert_eq!(watch.feed(&[b'x'; 1000]), None);
        }
        assert!(watch.value.as_ref().unwrap().len() <= MAX_NAME + 2);
        assert_eq!(watch.feed(br#"","n":1}"#), None);
    }

    #[test]
    fn a_model_in_the_beginning_of_a_cut_body_can_be_replaced() {
        let body = Bytes::from_static(br#" {"model":"alias","messages":[{"content":"the rest is mi"#);
        let inference = model_in_beginning(&body).unwrap();
        assert_eq!(inference.model.unwrap().text(&body), "alias");
        assert_eq!(
            splice_model(&body, &inference, "real-model").concat(),
            br#" {"model":"real-model","messages":[{"content":"the rest is mi"#
        );
    }

    #[test]
    fn a_model_that_is_cut_or_behind_the_cut_is_not_found() {
        for body in
            [r#"{"model":"ali"#, r#"{"messages":["x"#, r#"{"model""#, "", "no json", r#"["model":"x"]"#]
        {
            assert_eq!(model_in_beginning(body.as_bytes()), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let mut watch = ModelWatch::new();
            for chunk in &chunks {
                watch.feed(chunk);
                model_in_beginning(chunk);
            }
        }
    }
}
