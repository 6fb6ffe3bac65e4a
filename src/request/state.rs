//! State that a model server keeps for later requests: the responses and conversations that it made, by their ids.

use memchr::memchr2;

use super::skim::{Edge, Shape, Skim, Wanted};
use super::sse;
use super::types::Api;

/// Longest id in bytes that is looked at.
pub const MAX_STATE_ID: usize = 256;

/// Bytes of a response in which its id must stand.
const MAX_SEARCHED: usize = 64 << 10;

/// The id in a path like `/v1/responses/ID`, `/v1/responses/ID/cancel` or `/v1/conversations/ID/items`.
pub fn state_in_path(path: &str) -> Option<&str> {
    let mut segments = path.split('?').next().unwrap_or_default().split('/');
    segments.by_ref().find(|segment| matches!(*segment, "responses" | "conversations"))?;
    segments.next().filter(|id| !id.is_empty() && id.len() <= MAX_STATE_ID)
}

/// Finds the id of the response or conversation that a server makes, in its answer as it passes by: at the top of a JSON body, in an event
/// stream in the `response` that an event carries.
#[derive(Debug)]
pub struct MadeId {
    skim: Skim,
    /// In an event stream: where in the current line the last chunk ended.
    place: Option<Place>,
    /// What of the id has come, with its quotes.
    held: Vec<u8>,
    open: bool,
    searched: usize,
}

/// A place in a line of an event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// This many bytes of `data:` have been seen.
    Prefix(usize),
    Data,
    Other,
}

impl MadeId {
    /// For the answer to a request of `api`; `None` if such answers make no state.
    pub fn of(api: Api, event_stream: bool) -> Option<Self> {
        if !matches!(api, Api::Responses | Api::Conversations) {
            return None;
        }
        let wanted = Wanted { name: "id", within: event_stream.then_some("response"), shape: Shape::String };
        Some(Self {
            skim: Skim::new(wanted),
            place: event_stream.then_some(Place::Prefix(0)),
            held: Vec::new(),
            open: false,
            searched: 0,
        })
    }

    /// Takes the next bytes of the answer. `Break` with the id, or with `None` once it is not looked for any more.
    pub fn feed(&mut self, chunk: &[u8]) -> std::ops::ControlFlow<Option<Vec<u8>>> {
        use std::ops::ControlFlow::{Break, Continue};
        self.searched = self.searched.saturating_add(chunk.len());
        let found = if self.place.is_some() { self.lines(chunk) } else { self.json(chunk) };
        match found {
            Some(id) => Break(Some(id).filter(|id| !id.is_empty() && id.len() <= MAX_STATE_ID)),
            None if self.searched > MAX_SEARCHED => Break(None),
            None => Continue(()),
        }
    }

    fn lines(&mut self, chunk: &[u8]) -> Option<Vec<u8>> {
        let mut at = 0;
        while let Some(byte) = chunk.get(at).copied() {
            match self.place? {
                Place::Prefix(_) if matches!(byte, b'\n' | b'\r') => {
                    self.place = Some(Place::Prefix(0));
                    at += 1;
                }
                Place::Prefix(seen) => {
                    self.place = Some(if sse::DATA.get(seen) != Some(&byte) {
                        Place::Other
                    } else if seen + 1 == sse::DATA.len() {
                        self.skim.reset();
                        self.open = false;
                        Place::Data
                    } else {
                        Place::Prefix(seen + 1)
                    });
                    at += 1;
                }
                place => {
                    let rest = chunk.get(at..).unwrap_or_default();
                    let length = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                    if place == Place::Data
                        && let Some(id) = self.json(rest.get(..length).unwrap_or_default())
                    {
                        return Some(id);
                    }
                    at += length;
                    if length < rest.len() {
                        self.place = Some(Place::Prefix(0));
                    }
                }
            }
        }
        None
    }

    fn json(&mut self, chunk: &[u8]) -> Option<Vec<u8>> {
        let (mut from, mut start) = (0, 0);
        while let Some(edge) = self.skim.next(chunk, &mut from) {
            match edge {
                // At the top of an event stands the event's own id.
                Edge::Start(at) if self.place.is_none() || self.skim.is_within() => {
                    self.open = true;
                    self.held.clear();
                    start = at;
                }
                Edge::End(at) if self.open => {
                    self.hold(chunk.get(start..at).unwrap_or_default());
                    let quoted = self.held.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
                    return Some(super::escapes::decode(quoted.unwrap_or_default()).into_owned());
                }
                Edge::Start(_) | Edge::End(_) => {}
            }
        }
        if self.open {
            self.hold(chunk.get(start..).unwrap_or_default());
        }
        None
    }

    /// Keeps more of the id, but no more than shows that it is too long.
    fn hold(&mut self, part: &[u8]) {
        let room = (8 * MAX_STATE_ID).saturating_sub(self.held.len());
        self.held.extend_from_slice(part.get(..room).unwrap_or(part));
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    fn made(api: Api, event_stream: bool, body: &str, size: usize) -> Option<String> {
        let mut made = MadeId::of(api, event_stream)?;
        for chunk in body.as_bytes().chunks(size) {
            if let ControlFlow::Break(id) = made.feed(chunk) {
                return id.map(|id| String::from_utf8(id).unwrap());
            }
        }
        None
    }

    #[test]
    fn the_id_of_what_a_server_made_is_read_from_bodies_and_streams_however_they_are_cut() {
        let stream = "event: response.created\r\ndata: {\"type\":\"response.created\",\"id\":\"evt_1\",\"response\":{\"object\":\"response\",\"id\":\"resp_1\"}}\r\n\r\n";
        for (api, event_stream, body, expected) in [
            (Api::Responses, false, r#"{"output":[{"id":"msg_1"}],"id":"resp_1"}"#, Some("resp_1")),
            (Api::Responses, false, r#"{"id":"resp\u005f1"}"#, Some("resp_1")),
            (Api::Conversations, false, r#"{"id":"conv_1","object":"conversation"}"#, Some("conv_1")),
            (Api::Responses, true, stream, Some("resp_1")),
            (Api::Responses, true, "id: 7\ndata: {\"id\":\"evt_1\"}\n\n", None),
            (Api::Responses, false, r#"{"id":7}"#, None),
            (Api::Responses, false, r#"{"id":""}"#, None),
            (Api::ChatCompletions, false, r#"{"id":"chatcmpl-1"}"#, None),
        ] {
            for size in [1, 3, 1000] {
                assert_eq!(made(api, event_stream, body, size).as_deref(), expected, "{body} by {size}");
            }
        }
    }

    #[test]
    fn an_id_that_is_too_long_or_too_late_is_none_and_the_search_ends() {
        let id = |length| format!(r#"{{"id":"{}"}}"#, "x".repeat(length));
        assert_eq!(made(Api::Responses, false, &id(256), 100).unwrap().len(), 256);
        assert_eq!(made(Api::Responses, false, &id(257), 100), None);
        assert_eq!(made(Api::Responses, false, &id(100_000), 100), None);
        let mut reader = MadeId::of(Api::Responses, false).unwrap();
        assert_eq!(reader.feed(&vec![b' '; MAX_SEARCHED + 1]), ControlFlow::Break(None));
    }

    #[test]
    fn the_id_in_a_path_is_the_segment_behind_the_collection() {
        for (path, id) in [
            ("/v1/responses/resp_1", Some("resp_1")),
            ("/v1/responses/resp_1/cancel", Some("resp_1")),
            ("/tenant/v1/responses/resp_1/input_items?limit=2", Some("resp_1")),
            ("/v1/conversations/conv_1/items/msg_1", Some("conv_1")),
            ("/v1/responses", None),
            ("/v1/responses/", None),
            ("/v1/chat/completions/resp_1", None),
        ] {
            assert_eq!(state_in_path(path), id, "{path}");
        }
    }
}
