//! How far a request is.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use crate::request::JsonObject;
use crate::sidecar::outcome::FailReason;

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Phase {
    /// Encode servers.
    Encode(Encoding),
    /// The local engine's word whether it has enough of the prompt.
    Probe,
    /// The ids of the prefill server's engines.
    Query,
    /// The prefill server; nothing else goes on.
    Prefill,
    /// The next attempt at the prefill server.
    Backoff,
    /// Prefill and decode server at once.
    Both(Both),
    /// The head of the answer.
    Decode,
    /// The answer, piece by piece.
    Chunks(Box<Chunks>),
    /// Nothing more.
    Done,
}

/// Prefill and decode server at work at once.
#[derive(Debug, Default)]
pub(super) struct Both {
    /// The prefill server has done its part.
    pub(super) prefilled: bool,
    /// The decode server has begun its answer, or its first byte has come.
    pub(super) answers: bool,
    /// The answer waits until the prefill server has done its part.
    pub(super) hold: bool,
    /// The prefill server failed, with this status if it answered.
    pub(super) failed: Option<PrefillFailed>,
}

/// How a prefill server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrefillFailed {
    pub(super) reason: FailReason,
    /// Its own answer, which the client may get.
    pub(super) status: Option<StatusCode>,
    /// The status that the client gets otherwise.
    pub(super) instead: StatusCode,
    pub(super) text: &'static str,
}

/// What the decode server is told of the transfer, kept until it is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Transfer {
    /// Mooncake: the engine of the prefill server.
    pub(super) engine: Option<(u32, String)>,
    /// MoRI-IO: the id and the rank.
    pub(super) id: String,
    pub(super) rank: u32,
    /// The decode server is told the rank too.
    pub(super) decides: bool,
    /// Parameters that a chunk of an answer begins with.
    pub(super) parameters: Option<Bytes>,
}

/// How far the answer is.
#[derive(Debug)]
pub(super) struct Chunks {
    /// The body that is asked with, without what the engine has written.
    pub(super) object: JsonObject,
    /// Tokens that may be written in all; none: as many as the engine likes.
    pub(super) limit: Option<u64>,
    pub(super) used: u64,
    pub(super) prompt: u64,
    /// What the engine has written.
    pub(super) text: String,
    /// Events have gone to the client already.
    pub(super) begun: bool,
    /// The first answer's id and time, which the later ones take over.
    pub(super) first: Option<(Value, Value)>,
}

/// How far the encode servers are.
#[derive(Debug)]
pub(super) struct Encoding {
    pub(super) items: Vec<Bytes>,
    /// Where among the servers the first item goes.
    pub(super) start: usize,
    pub(super) sent: usize,
    pub(super) done: usize,
    /// Parameters of transfers by item; merged in their order.
    pub(super) parameters: BTreeMap<u16, Bytes>,
}
