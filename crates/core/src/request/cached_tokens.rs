//! Telling the client how many tokens of its prompt came from a cache, in a response of a server that cannot know.
//!
//! A decode server that was handed the cache of a prompt reports the whole prompt as cached. The number that the client
//! wants is the prefill server's. It is put into each `usage` of the response; all other bytes pass as they came.

use bytes::Bytes;
use smallvec::SmallVec;

use super::object::{Edits, JsonObject};
use super::skim::{Edge, Shape, Skim, WantedMembers};
use super::sse::{Lines, Part};
use super::types::Api;

/// Longest `usage` that is rewritten; a longer one passes as it is.
const LONGEST: usize = 64 << 10;

/// Most `usage` objects that are rewritten in one JSON document.
const MOST: u32 = 4;

/// Puts a count of cached tokens into a response that passes by in chunks. Where the chunks end makes no difference to
/// the joined output.
#[derive(Debug)]
pub struct CachedTokens {
    cached: u64,
    place: Place,
    skim: Skim,
    lines: Option<Lines>,
    usage: Pending,
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

#[derive(Debug)]
enum Pending {
    Nothing,
    Here(usize),
    Held(Vec<u8>),
    TooLong,
}

struct Output<'c> {
    chunk: &'c Bytes,
    pieces: SmallVec<[Bytes; 3]>,
    settled: usize,
}

impl Output<'_> {
    fn through(&mut self, to: usize) {
        if self.settled < to {
            self.pieces.push(self.chunk.slice(self.settled..to));
            self.settled = to;
        }
    }
}

impl CachedTokens {
    /// Says `cached` in a response to `api`.
    pub fn new(api: Api, event_stream: bool, cached: u64) -> Self {
        let within = match api {
            Api::Responses if event_stream => Some("response"),
            Api::Messages if event_stream => Some("message"),
            _ => None,
        };
        let place = match api {
            Api::Responses => Place::Details("input_tokens_details"),
            Api::Messages => Place::Usage("cache_read_input_tokens"),
            _ => Place::Details("prompt_tokens_details"),
        };
        Self {
            cached,
            place,
            skim: Skim::new(WantedMembers { members: &[("usage", Shape::Object)], within }),
            lines: event_stream.then(Lines::new),
            usage: Pending::Nothing,
            document: 0,
            written: 0,
        }
    }

    /// Takes the next chunk and returns what can go out now.
    pub fn feed(&mut self, chunk: &Bytes) -> SmallVec<[Bytes; 3]> {
        let mut output = Output { chunk, pieces: SmallVec::new(), settled: 0 };
        if let Some(lines) = self.lines.take() {
            self.lines = Some(self.feed_lines(lines, &mut output));
        } else {
            self.feed_json(&mut output, 0, chunk.len());
        }
        match std::mem::replace(&mut self.usage, Pending::Nothing) {
            Pending::Nothing => output.through(chunk.len()),
            Pending::Here(start) => {
                output.through(start);
                self.hold(chunk.get(start..).unwrap_or_default().to_vec(), &mut output);
            }
            Pending::Held(mut held) => {
                held.extend_from_slice(chunk);
                self.hold(held, &mut output);
            }
            Pending::TooLong => {
                self.usage = Pending::TooLong;
                output.through(chunk.len());
            }
        }
        output.pieces
    }

    /// The response has ended: returns what was still held back.
    pub fn finish(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.usage, Pending::Nothing) {
            Pending::Held(held) => Some(Bytes::from(held)),
            _ => None,
        }
    }

    fn hold(&mut self, held: Vec<u8>, output: &mut Output<'_>) {
        output.settled = output.chunk.len();
        if held.len() > LONGEST {
            output.pieces.push(Bytes::from(held));
            self.usage = Pending::TooLong;
        } else {
            self.usage = Pending::Held(held);
        }
    }

    fn feed_lines(&mut self, mut lines: Lines, output: &mut Output<'_>) -> Lines {
        let chunk = output.chunk;
        let mut at = 0;
        while let Some(part) = lines.next(chunk, &mut at) {
            match part {
                Part::Data(range) => self.feed_json(output, range.start, range.end),
                Part::Event(_) => {}
                // No server breaks a document up into lines within `usage`; such a one passes.
                Part::LineEnd => self.give_up(output),
                Part::EventEnd => {
                    self.give_up(output);
                    self.skim.reset();
                }
            }
        }
        lines
    }

    fn give_up(&mut self, output: &mut Output<'_>) {
        if let Pending::Held(held) = std::mem::replace(&mut self.usage, Pending::Nothing) {
            output.pieces.push(Bytes::from(held));
        }
    }

    fn feed_json(&mut self, output: &mut Output<'_>, from: usize, to: usize) {
        let chunk = output.chunk.get(..to).unwrap_or_default();
        let mut at = from;
        while let Some(edge) = self.skim.next(chunk, &mut at) {
            match edge {
                Edge::Start(start) => self.usage = Pending::Here(start),
                Edge::End(end) => {
                    let usage = std::mem::replace(&mut self.usage, Pending::Nothing);
                    self.settle(usage, end, output);
                }
            }
        }
    }

    /// A `usage` ends at `end`.
    fn settle(&mut self, usage: Pending, end: usize, output: &mut Output<'_>) {
        let old = match usage {
            Pending::Here(start) => {
                output.through(start);
                output.chunk.slice(start..end)
            }
            Pending::Held(mut held) => {
                held.extend_from_slice(output.chunk.get(..end).unwrap_or_default());
                Bytes::from(held)
            }
            Pending::Nothing | Pending::TooLong => return,
        };
        output.settled = end;
        match self.may_write().then(|| self.rewritten(&old)).flatten() {
            Some(new) => output.pieces.extend(new),
            None => output.pieces.push(old),
        }
    }

    fn may_write(&mut self) -> bool {
        let document = self.skim.documents();
        if document != self.document {
            (self.document, self.written) = (document, 0);
        }
        self.written += 1;
        self.written <= MOST
    }

    fn rewritten(&self, usage: &Bytes) -> Option<SmallVec<[Bytes; 3]>> {
        let count = self.cached.to_string();
        let mut edits = Edits::new();
        match self.place {
            Place::Usage(name) => {
                edits.set(name, count);
                Some(JsonObject::read(usage.clone(), &[name]).ok()?.edited(&edits))
            }
            Place::Details(name) => {
                let object = JsonObject::read(usage.clone(), &[name]).ok()?;
                let inner =
                    object.get(name).and_then(|value| JsonObject::read(value, &["cached_tokens"]).ok());
                let mut inside = Edits::new();
                inside.set("cached_tokens", count.clone());
                let details = match inner {
                    Some(inner) => inner.edited(&inside).concat(),
                    None => format!("{{\"cached_tokens\":{count}}}").into_bytes(),
                };
                edits.set(name, details);
                Some(object.edited(&edits))
            }
        }
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
