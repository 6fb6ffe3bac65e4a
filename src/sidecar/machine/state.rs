//! The states of the machine of a request.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use crate::request::JsonObject;
use crate::sidecar::outcome::FailReason;

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Phase {
    /// The answers of encode servers.
    Encode(Encoding),
    /// The answer of the local engine to the probe.
    Probe,
    /// The ids of the prefill server's engines.
    Query,
    /// The answer of the prefill server, with no other call running.
    Prefill,
    /// The end of the pause before the next attempt at the prefill server.
    Backoff,
    /// The answers of the prefill and the decode server, which were asked at the same time.
    Both(Both),
    /// The head of the decode server's answer.
    Decode,
    /// The next chunk of the answer.
    Chunks(Box<Chunks>),
    /// Nothing; the request is over.
    Done,
}

/// The state of a prefill and a decode server that work at the same time.
#[derive(Debug, Default)]
pub(super) struct Both {
    /// The prefill server has answered with success.
    pub(super) prefilled: bool,
    /// The first bytes of the decode server's answer have come.
    pub(super) answers: bool,
    /// The client gets no byte before the prefill server has answered.
    pub(super) hold: bool,
    /// The failure of the prefill server, if it has failed.
    pub(super) failed: Option<PrefillFailed>,
}

/// How a prefill server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrefillFailed {
    pub(super) reason: FailReason,
    /// The status of the server's own answer, which the client may get. `None` if there was no answer.
    pub(super) status: Option<StatusCode>,
    /// The status that the client gets if the server gave no answer.
    pub(super) instead: StatusCode,
    pub(super) text: &'static str,
}

/// What the machine remembers of a transfer until it calls the decode server.
#[derive(Clone, Debug, Default)]
pub(super) struct Transfer {
    /// Mooncake: the rank and the id of the prefill server's engine.
    pub(super) engine: Option<(u32, String)>,
    /// MoRI-IO: the id of the transfer and the rank at which it happens.
    pub(super) id: String,
    pub(super) rank: u32,
    /// The decode call names the rank in a header too.
    pub(super) decides: bool,
    /// The transfer parameters of the first chunk.
    pub(super) parameters: Option<Bytes>,
}

/// The state of an answer that the engine writes in several calls.
#[derive(Debug)]
pub(super) struct Chunks {
    /// The body of the first call, without the text that the engine has written since.
    pub(super) object: JsonObject,
    /// The most tokens of the whole answer. `None` sets no limit.
    pub(super) limit: Option<u64>,
    pub(super) used: u64,
    pub(super) prompt: u64,
    /// The text that the engine has written so far.
    pub(super) text: String,
    /// The client has got a part of the answer.
    pub(super) begun: bool,
    /// The `id` and the `created` of the first answer, which all events of the stream carry.
    pub(super) first: Option<(Value, Value)>,
}

/// The state of the encode calls.
#[derive(Debug)]
pub(super) struct Encoding {
    pub(super) items: Vec<Bytes>,
    /// The index of the encode server that gets the first item.
    pub(super) start: usize,
    pub(super) sent: usize,
    pub(super) done: usize,
    /// The transfer parameters of each item, merged in the order of the items.
    pub(super) parameters: BTreeMap<u16, Bytes>,
}
