//! State that a model server keeps for later requests: the responses and conversations that it made, by their ids.

use std::ops::ControlFlow;

use super::envelope;
use super::skim::{Edge, Shape, Skim, WantedMembers};
use super::sse::{Lines, Part};
use super::types::Api;

/// Longest id of a response or conversation that is read, in bytes.
pub const MAX_STATE_ID: usize = 256;

/// Bytes at the beginning of a response in which its id is searched.
const MAX_SEARCHED: usize = 64 << 10;

/// Segments below `/v1/responses` that are not ids.
const NO_IDS: [&str; 2] = ["input_tokens", "compact"];

/// True for paths of requests that may refer to state in their bodies: `/v1/responses`, `/v1/responses/compact` and the
/// like.
pub fn may_refer_to_state(path: &str) -> bool {
    path.split('?').next().unwrap_or_default().split('/').any(|segment| segment == "responses")
}

/// The id in a path like `/v1/responses/ID`, `/v1/responses/ID/cancel` or `/v1/conversations/ID/items`.
pub fn state_in_path(path: &str) -> Option<&str> {
    let mut segments = path.split('?').next().unwrap_or_default().split('/');
    segments.by_ref().find(|segment| matches!(*segment, "responses" | "conversations"))?;
    let id = segments.next().filter(|id| !id.is_empty() && id.len() <= MAX_STATE_ID)?;
    (!NO_IDS.contains(&id)).then_some(id)
}

/// Finds ids in a passing answer: the id of the response or conversation that the server made, and the id of the
/// conversation to which a response belongs. In a JSON body the ids are members of the top object. In an event stream
/// they are members of the `response` that an event carries.
#[derive(Debug)]
pub struct MadeId {
    skim: Skim,
    /// The lines of an event stream.
    lines: Option<Lines>,
    /// The received part of the value, with its quotes or braces.
    held: Vec<u8>,
    open: bool,
    searched: usize,
    /// True for each member that was found.
    found: [bool; 2],
}

/// The members that hold ids, the object's own id first.
const MEMBERS: &[(&str, Shape)] = &[("id", Shape::String), ("conversation", Shape::StringOrObject)];

impl MadeId {
    /// A reader for the answer to a request of `api`; `None` if such answers create no state.
    pub fn of(api: Api, event_stream: bool) -> Option<Self> {
        if !matches!(api, Api::Responses | Api::Conversations) {
            return None;
        }
        let wanted = WantedMembers { members: MEMBERS, within: event_stream.then_some("response") };
        Some(Self {
            skim: Skim::new(wanted),
            lines: event_stream.then(Lines::new),
            held: Vec::new(),
            open: false,
            searched: 0,
            // A conversation belongs to no other.
            found: [false, api == Api::Conversations],
        })
    }

    /// Reads the next bytes of the answer, and passes each id to `made`. Returns `Break` when no id is left to find.
    pub fn feed(&mut self, chunk: &[u8], mut made: impl FnMut(Vec<u8>)) -> ControlFlow<()> {
        self.searched = self.searched.saturating_add(chunk.len());
        if let Some(lines) = self.lines.take() {
            self.lines = Some(self.events(lines, chunk, &mut made));
        } else {
            self.json(chunk, false, &mut made);
        }
        if self.found == [true; 2] || self.searched > MAX_SEARCHED {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn events(&mut self, mut lines: Lines, chunk: &[u8], made: &mut impl FnMut(Vec<u8>)) -> Lines {
        let mut at = 0;
        while let Some(part) = lines.next(chunk, &mut at) {
            match part {
                Part::Data(range) => self.json(chunk.get(range).unwrap_or_default(), true, made),
                Part::Event(_) | Part::LineEnd => {}
                Part::EventEnd => {
                    self.skim.reset();
                    self.open = false;
                }
            }
        }
        lines
    }

    fn json(&mut self, chunk: &[u8], in_event: bool, made: &mut impl FnMut(Vec<u8>)) {
        let (mut from, mut start) = (0, 0);
        while let Some(edge) = self.skim.next(chunk, &mut from) {
            let found = self.found.get(self.skim.found()).copied().unwrap_or(true);
            match edge {
                // At the top of an event stands the event's own id.
                Edge::Start(at) if !found && (!in_event || self.skim.is_within()) => {
                    self.open = true;
                    self.held.clear();
                    start = at;
                }
                Edge::End(at) if self.open => {
                    self.hold(chunk.get(start..at).unwrap_or_default());
                    self.open = false;
                    if let Some(found) = self.found.get_mut(self.skim.found()) {
                        *found = true;
                    }
                    let id = envelope::reference(&self.held);
                    id.filter(|id| !id.is_empty() && id.len() <= MAX_STATE_ID)
                        .into_iter()
                        .for_each(&mut *made);
                }
                Edge::Start(_) | Edge::End(_) => {}
            }
        }
        if self.open {
            self.hold(chunk.get(start..).unwrap_or_default());
        }
    }

    /// Keeps more of the id, up to the length that proves that the id is too long.
    fn hold(&mut self, part: &[u8]) {
        let room = (8 * MAX_STATE_ID).saturating_sub(self.held.len());
        self.held.extend_from_slice(part.get(..room).unwrap_or(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(api: Api, event_stream: bool, body: &str, size: usize) -> Vec<String> {
        let mut ids = Vec::new();
        let mut made = MadeId::of(api, event_stream);
        for chunk in body.as_bytes().chunks(size) {
            let Some(reader) = &mut made else { break };
            if reader.feed(chunk, |id| ids.push(String::from_utf8(id).unwrap())).is_break() {
                made = None;
            }
        }
        ids
    }

    #[test]
    fn the_ids_of_what_a_server_made_are_read_from_bodies_and_streams_however_they_are_cut() {
        let stream = |conversation: &str| {
            format!(
                "event: response.created\r\ndata: {{\"type\":\"response.created\",\"id\":\"evt_1\",\"conversation\":\"no\",\"response\":{{\"object\":\"response\",\"id\":\"resp_1\"{conversation}}}}}\r\n\r\n"
            )
        };
        let (plain, text, object) = (
            stream(""),
            stream(",\"conversation\":\"conv_1\""),
            stream(",\"conversation\":{\"x\":[{}],\"id\":\"conv_1\"}"),
        );
        for (api, event_stream, body, expected) in [
            (Api::Responses, false, r#"{"output":[{"id":"msg_1"}],"id":"resp_1"}"#, &["resp_1"][..]),
            (Api::Responses, false, r#"{"id":"resp\u005f1","conversation":null}"#, &["resp_1"]),
            (
                Api::Responses,
                false,
                r#"{"id":"resp_1","conversation":{"id":"conv_1"}}"#,
                &["resp_1", "conv_1"],
            ),
            (Api::Responses, false, r#"{"conversation":"conv_1","id":"resp_1"}"#, &["conv_1", "resp_1"]),
            (Api::Responses, false, r#"{"conversation":{"id":7},"id":"resp_1","id":"resp_2"}"#, &["resp_1"]),
            (Api::Conversations, false, r#"{"id":"conv_1","object":"conversation"}"#, &["conv_1"]),
            (Api::Responses, true, &plain, &["resp_1"]),
            (Api::Responses, true, &text, &["resp_1", "conv_1"]),
            (Api::Responses, true, &object, &["resp_1", "conv_1"]),
            (Api::Responses, true, "id: 7\ndata: {\"id\":\"evt_1\"}\n\n", &[]),
            (
                Api::Responses,
                true,
                "data: {\"response\":{\rdata: \"id\":\r: x\rdata: \"resp_1\"}}\r\r",
                &["resp_1"],
            ),
            (Api::Responses, false, r#"{"id":7}"#, &[]),
            (Api::Responses, false, r#"{"id":""}"#, &[]),
            (Api::ChatCompletions, false, r#"{"id":"chatcmpl-1"}"#, &[]),
        ] {
            for size in [1, 3, 1000] {
                assert_eq!(made(api, event_stream, body, size), expected, "{body} by {size}");
            }
        }
    }

    #[test]
    fn an_id_that_is_too_long_or_too_late_is_none_and_the_search_ends() {
        let id = |length| format!(r#"{{"id":"{}"}}"#, "x".repeat(length));
        assert_eq!(made(Api::Responses, false, &id(256), 100)[0].len(), 256);
        for length in [257, 100_000] {
            assert!(made(Api::Responses, false, &id(length), 100).is_empty());
        }
        let mut reader = MadeId::of(Api::Responses, false).unwrap();
        assert_eq!(reader.feed(&vec![b' '; MAX_SEARCHED + 1], |_| {}), ControlFlow::Break(()));
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
            ("/v1/responses/input_tokens", None),
            ("/v1/responses/compact", None),
            ("/v1/chat/completions/resp_1", None),
        ] {
            assert_eq!(state_in_path(path), id, "{path}");
        }
    }
}
