//! Telling the client how many tokens of its prompt came from a cache, in a response of a server that cannot know.
//!
//! A decode server that was handed the cache of a prompt reports the whole prompt as cached. The number that the client
//! wants is the prefill server's. It is put into each `usage` of the response; all other bytes pass as they came.

use bytes::Bytes;
use smallvec::SmallVec;

use super::member_rewrite::{MemberRewrite, Pieces, Replace};
use super::object::{Edits, JsonObject};
use super::skim::Shape;
use super::types::Api;

/// Longest `usage` that is rewritten; a longer one that a chunk's end cuts passes as it is.
const LONGEST: usize = 64 << 10;

/// Most `usage` objects that are rewritten in one JSON document.
const MOST: u32 = 4;

/// Puts a count of cached tokens into a response that passes by in chunks. Where the chunks end makes no difference to
/// the joined output.
#[derive(Debug)]
pub struct CachedTokens {
    rewrite: MemberRewrite,
    count: Count,
}

/// The number, and where it belongs.
#[derive(Debug)]
struct Count {
    cached: u64,
    place: Place,
    /// The document of the last `usage`, and the ones rewritten in it.
    document: u32,
    written: u32,
}

/// Where an API has the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In this object of `usage`, as `cached_tokens`.
    Details(&'static str),
    /// In `usage` itself, under this name.
    Usage(&'static str),
}

impl CachedTokens {
    /// Says `cached` in a response to `api`.
    pub fn new(api: Api, event_stream: bool, cached: u64) -> Self {
        let place = match api {
            Api::Responses => Place::Details("input_tokens_details"),
            Api::Messages => Place::Usage("cache_read_input_tokens"),
            _ => Place::Details("prompt_tokens_details"),
        };
        Self {
            rewrite: MemberRewrite::new(&[("usage", Shape::Object)], api, event_stream),
            count: Count { cached, place, document: 0, written: 0 },
        }
    }

    /// Takes the next chunk and returns what can go out now.
    pub fn feed(&mut self, chunk: &Bytes) -> SmallVec<[Bytes; 3]> {
        self.rewrite.feed(chunk, &mut self.count)
    }

    /// The response has ended: returns what was still held back.
    pub fn finish(&mut self) -> Option<Bytes> {
        self.rewrite.finish()
    }
}

impl Replace for Count {
    fn longest(&self) -> usize {
        LONGEST
    }

    fn replace(&mut self, usage: &[u8], document: u32, _end: usize, pieces: &mut Pieces) -> bool {
        if std::mem::replace(&mut self.document, document) != document {
            self.written = 0;
        }
        self.written += 1;
        let rewritten = (self.written <= MOST).then(|| self.rewritten(usage)).flatten();
        let replaces = rewritten.is_some();
        pieces.extend(rewritten.into_iter().flatten());
        replaces
    }
}

impl Count {
    fn rewritten(&self, usage: &[u8]) -> Option<Pieces> {
        let (Place::Usage(name) | Place::Details(name)) = self.place;
        let object = JsonObject::read(Bytes::copy_from_slice(usage), &[name]).ok()?;
        let count = self.cached.to_string();
        let mut edits = Edits::new();
        match self.place {
            Place::Usage(name) => {
                edits.set(name, count);
            }
            Place::Details(name) => {
                let inner =
                    object.get(name).and_then(|value| JsonObject::read(value, &["cached_tokens"]).ok());
                let mut inside = Edits::new();
                inside.set("cached_tokens", count.clone());
                let details = match inner {
                    Some(inner) => inner.edited(&inside).concat(),
                    None => format!("{{\"cached_tokens\":{count}}}").into_bytes(),
                };
                edits.set(name, details);
            }
        }
        Some(object.edited(&edits))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fed(api: Api, stream: bool, body: &str, cuts: &[usize]) -> String {
        let mut cached = CachedTokens::new(api, stream, 7);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(body.len());
        let (mut out, mut from) = (Vec::new(), 0);
        for cut in cuts {
            out.extend(cached.feed(&Bytes::copy_from_slice(&body.as_bytes()[from..cut])).concat());
            from = cut;
        }
        out.extend(cached.finish().unwrap_or_default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_number_stands_where_each_api_has_it() {
        for (api, body, expected) in [
            (
                Api::ChatCompletions,
                r#"{"id":1,"usage":{"prompt_tokens":9},"usages":{}}"#,
                r#"{"id":1,"usage":{"prompt_tokens_details":{"cached_tokens":7},"prompt_tokens":9},"usages":{}}"#,
            ),
            (
                Api::Completions,
                r#"{"usage":{"prompt_tokens_details":{"a":1,"cached_tokens" : 90}}}"#,
                r#"{"usage":{"prompt_tokens_details":{"a":1,"cached_tokens" : 7}}}"#,
            ),
            (
                Api::Completions,
                r#"{"usage":{"prompt_tokens_details":null}}"#,
                r#"{"usage":{"prompt_tokens_details":{"cached_tokens":7}}}"#,
            ),
            (
                Api::Responses,
                r#"{"usage":{"input_tokens_details":{}}}"#,
                r#"{"usage":{"input_tokens_details":{"cached_tokens":7}}}"#,
            ),
            (
                Api::Messages,
                r#"{"usage":{"cache_read_input_tokens":50}}"#,
                r#"{"usage":{"cache_read_input_tokens":7}}"#,
            ),
            (Api::Messages, r#"{"usage":null}"#, r#"{"usage":null}"#),
            (Api::Messages, "no json", "no json"),
        ] {
            assert_eq!(fed(api, false, body, &[]), expected, "{body}");
        }
    }

    const STREAM: &str = "data: {\"choices\":[{\"text\":\"usage\"}]}\n\n: comment\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9}}\r\n\r\ndata: {\"usage\":null}\n\ndata: [DONE]\n\n";

    #[test]
    fn of_a_stream_only_lines_with_usage_change() {
        let expected = STREAM.replace(
            "{\"prompt_tokens\":9}",
            "{\"prompt_tokens_details\":{\"cached_tokens\":7},\"prompt_tokens\":9}",
        );
        assert_eq!(fed(Api::ChatCompletions, true, STREAM, &[]), expected);
        let responses = "event: x\ndata: {\"response\":{\"usage\":{\"a\":1}}}\n\n";
        assert!(fed(Api::Responses, true, responses, &[]).contains("\"cached_tokens\":7"));
    }

    proptest! {
        #[test]
        fn where_chunks_end_makes_no_difference(cuts in prop::collection::vec(any::<usize>(), 0..8)) {
            prop_assert_eq!(fed(Api::ChatCompletions, true, STREAM, &cuts), fed(Api::ChatCompletions, true, STREAM, &[]));
        }
    }
}
