//! The model of a request whose body was not seen whole, or passes by in pieces.

mod form;
mod pairs;

use smallvec::SmallVec;

use super::error::{ParseError, Unread};
use super::media_type::BodyKind;
use super::model_name::MAX_WRITTEN_NAME;
use super::skim::{Edge, Shape, Skim, WantedMembers};
use super::types::{Api, Inference, JsonStr, Spelling};
use super::{escapes, multipart, urlencoded};
use form::FormWatch;
use pairs::PairsWatch;

/// Finds the model in a body that comes in chunks: the top-level `model` of JSON, the field `model` of a form.
#[derive(Debug)]
pub struct ModelWatch(Watch);

#[derive(Debug)]
enum Watch {
    /// The first byte decides: JSON if it begins an object, else the kind that was said.
    Undecided(BodyKind),
    Json(JsonWatch),
    Form(Box<FormWatch>),
    Pairs(PairsWatch),
    Nothing,
}

impl ModelWatch {
    /// A watch for one body of this content type (empty if nothing is said). `is_json`: the API that is called takes
    /// nothing else, whatever is said. `None` if the body has no model that can be found.
    pub fn new(content_type: &[u8], is_json: bool) -> Option<Self> {
        Some(Self(match BodyKind::of(content_type) {
            BodyKind::Form => Watch::Form(Box::new(FormWatch::new(content_type)?)),
            BodyKind::Pairs => Watch::Undecided(BodyKind::Pairs),
            BodyKind::Json => Watch::Json(JsonWatch::new()),
            _ if is_json => Watch::Json(JsonWatch::new()),
            BodyKind::Unsaid => Watch::Undecided(BodyKind::Unsaid),
            BodyKind::Other => return None,
        }))
    }

    /// Takes the next chunk, the last with `end`; gives the name if a model ends in it, of several the last.
    pub fn feed(&mut self, chunk: &[u8], end: bool) -> Option<String> {
        if let Watch::Undecided(kind) = self.0 {
            let is_blank = |byte: &u8| byte.is_ascii_whitespace() || b"\xef\xbb\xbf".contains(byte);
            let first = chunk.iter().find(|byte| !is_blank(byte))?;
            self.0 = match kind {
                _ if *first == b'{' => Watch::Json(JsonWatch::new()),
                BodyKind::Pairs => Watch::Pairs(PairsWatch::default()),
                _ => Watch::Nothing,
            };
        }
        let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
        match &mut self.0 {
            Watch::Json(watch) => watch.feed(chunk),
            Watch::Form(watch) => watch.feed(chunk).map(text),
            Watch::Pairs(watch) => watch.feed(chunk, end).map(text),
            Watch::Undecided(_) | Watch::Nothing => None,
        }
    }
}

/// The top-level `model` of a JSON body that comes in chunks.
#[derive(Debug)]
struct JsonWatch {
    skim: Skim,
    /// The value so far, opening quote and all; `None` outside of it.
    value: Option<Vec<u8>>,
}

impl JsonWatch {
    fn new() -> Self {
        Self { skim: wanted(), value: None }
    }

    fn feed(&mut self, chunk: &[u8]) -> Option<String> {
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
            let room = (MAX_WRITTEN_NAME + 2).saturating_sub(value.len());
            value.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
    }
}

/// What is known of a body of which the beginning was seen, or all of it, and of which [`read`](super::read) made
/// `read`; and whether it is cut, so that more of its members or fields may follow. Of a cut body the model alone is
/// told, if it lies in the beginning, so that it can be replaced.
pub fn beginning(read: Result<Inference, ParseError>, content_type: &[u8], body: &[u8]) -> (Inference, bool) {
    let inference = match read {
        Ok(whole) if !matches!(whole.unread, Some(Unread::Json(_) | Unread::Form(_))) => {
            if whole.spelling != Spelling::Percent {
                return (whole, false);
            }
            urlencoded::read_beginning(body)
        }
        Ok(_) | Err(_) if BodyKind::of(content_type) == BodyKind::Form => {
            multipart::read_beginning(content_type, body)
        }
        Ok(_) | Err(_) => model_in_beginning(body).unwrap_or_else(Inference::opaque),
    };
    (inference, true)
}

/// The model in the beginning of a JSON body that cannot be parsed because it is cut. `None` if it does not lie there.
fn model_in_beginning(body: &[u8]) -> Option<Inference> {
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
    let mut inference = Inference { api: Api::Other, ..Inference::opaque() };
    inference.model = Some(JsonStr { start, end, escaped: raw.contains(&b'\\') });
    inference.insert_at = u32::try_from(opening + 1).ok();
    inference.model_values = values;
    Some(inference)
}

fn wanted() -> Skim {
    Skim::new(WantedMembers { members: &[("model", Shape::String)], within: None })
}

fn name(quoted: &[u8]) -> Option<String> {
    let raw = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (raw.len() <= MAX_WRITTEN_NAME).then(|| escapes::decode_text(raw).into_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::parse::read;
    use super::super::paths::Parsers;
    use super::super::splice::splice_model;
    use super::*;

    #[test]
    fn the_model_is_found_wherever_the_chunks_end() {
        let body = br#"{"messages":[{"model":"no"}],"model":"al\u0069as","n":1}"#;
        for cut in 0..body.len() {
            let mut watch = JsonWatch::new();
            let found = watch.feed(&body[..cut]).or_else(|| watch.feed(&body[cut..]));
            assert_eq!(found.as_deref(), Some("alias"), "cut at {cut}");
        }
    }

    #[test]
    fn a_name_without_end_is_held_in_bounded_memory_and_is_none() {
        let mut watch = JsonWatch::new();
        assert_eq!(watch.feed(br#"{"model":""#), None);
        for _ in 0..100 {
            assert_eq!(watch.feed(&[b'x'; 1000]), None);
        }
        assert!(watch.value.as_ref().unwrap().len() <= MAX_WRITTEN_NAME + 2);
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

    const FORM: &str = "multipart/form-data; boundary=b";
    const PAIRS: &str = "application/x-www-form-urlencoded";

    #[test]
    fn the_kind_of_a_body_is_told_by_its_type_or_its_first_byte() {
        let json = r#" {"model":"alias"}"#;
        let form = "--b\r\nContent-Disposition: form-data; name=model\r\n\r\nalias\r\n--b--";
        for (content_type, is_json, body, found) in [
            ("", false, json, true),
            ("text/plain", false, json, true),
            ("Text/JSON", false, json, true),
            ("application/octet-stream", true, json, true),
            (PAIRS, false, json, true),
            (PAIRS, true, "x=1&model=alias", true),
            (FORM, true, form, true),
            ("", false, "model=alias", false),
            ("", false, "[{\"model\":\"alias\"}]", false),
        ] {
            let mut watch = ModelWatch::new(content_type.as_bytes(), is_json).unwrap();
            let chunks = body.as_bytes().chunks(1);
            let last = chunks.filter_map(|chunk| watch.feed(chunk, false)).last();
            let name = watch.feed(b"", true).or(last);
            assert_eq!(name.as_deref(), found.then_some("alias"), "{content_type} {body}");
        }
        assert!(ModelWatch::new(b"audio/wav", false).is_none());
        assert!(ModelWatch::new(b"multipart/form-data", false).is_none());
    }

    #[test]
    fn of_a_beginning_the_model_is_told_and_whether_more_may_follow() {
        let part = "--b\r\nContent-Disposition: form-data; name=model\r\n\r\nalias\r\n--b\r\n";
        for (path, content_type, body, name, cut) in [
            ("/v1/completions", "", r#"{"model":"alias","prompt":"x"#, Some("alias"), true),
            ("/v1/completions", "", r#"{"prompt":"x"#, None, true),
            ("/v1/completions", "", r#"{"model":"alias","prompt":"x"}"#, Some("alias"), false),
            ("/rerank", "", r#"{"model":"alias","query":"x"#, Some("alias"), true),
            ("/rerank", "application/json", r#"{"query":"x"#, None, true),
            ("/rerank", "application/json", r#"{"query":"x"}"#, None, false),
            ("/v1/audio/transcriptions", FORM, part, Some("alias"), true),
            ("/v1/audio/transcriptions", FORM, "--b\r\nA: b\r\n\r\nx", None, true),
            ("/x", PAIRS, "model=alias&prompt=x", Some("alias"), true),
            ("/x", PAIRS, "prompt=x&model=ali", None, true),
            ("/x", "audio/wav", "RIFF", None, false),
        ] {
            let kind = Parsers::default().resolve(path).unwrap();
            let body = body.as_bytes();
            let read = read(kind, path, content_type.as_bytes(), body);
            let (inference, is_cut) = beginning(read, content_type.as_bytes(), body);
            let text = String::from_utf8_lossy(body);
            assert_eq!(inference.model_name(body).as_deref(), name, "{path} {text}");
            assert_eq!((is_cut, inference.is_rewritable()), (cut, name.is_some()), "{path} {text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let mut watch = JsonWatch::new();
            for chunk in &chunks {
                watch.feed(chunk);
                model_in_beginning(chunk);
            }
        }
    }
}
