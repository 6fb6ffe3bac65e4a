//! The input and the output of the machine of a request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use crate::metrics::PrefillRetry;
use crate::request::JsonObject;
use crate::sidecar::answer::Refusal;
use crate::sidecar::api::Api;
use crate::sidecar::bodies::Pieces;
use crate::sidecar::connector::Stage;
use crate::sidecar::engines::EngineIds;
use crate::sidecar::outcome::{FailReason, Outcome};
use crate::sidecar::route::Route;
use crate::sidecar::settings::Settings;
use crate::sidecar::spare::Spare;
use crate::sidecar::target::Target;

/// The settings and the state that all requests of the process share.
#[derive(Debug)]
pub(in crate::sidecar) struct Shared {
    /// The settings of the operator.
    pub settings: Settings,
    /// The token bucket for prompts that the local engine processes in place of a failed prefill server.
    pub spare: Spare,
    /// The ids of Mooncake's engines.
    pub engines: EngineIds,
    /// A counter that spreads requests with few items evenly over the encode servers.
    pub encoder: std::sync::atomic::AtomicUsize,
}

/// A request that is split.
#[derive(Clone, Debug)]
pub(in crate::sidecar) struct Ask {
    /// The API that the client called.
    pub api: Api,
    /// The client's body.
    pub object: JsonObject,
    /// The servers that the routing headers name.
    pub route: Route,
    /// The rank whose engine answers.
    pub rank: u16,
    /// The id of the request, which all calls carry.
    pub request_id: String,
}

impl Ask {
    /// Returns true if the client asks for a stream of events.
    pub(in crate::sidecar) fn streams(&self) -> bool {
        self.object.is_true("stream")
    }
}

/// One call to a server. A request makes each kind of call at most once at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::sidecar) enum Leg {
    /// Encode the item with this index.
    Encode(u16),
    /// Ask Mooncake's bootstrap server for the ids of the prefill server's engines.
    Query,
    /// Process the prompt.
    Prefill,
    /// Ask the local engine to answer if it has enough of the prompt in its cache.
    Probe,
    /// Write the answer.
    Decode,
}

impl Leg {
    /// The stage of the servers that this call goes to.
    pub(in crate::sidecar) fn stage(self) -> Stage {
        match self {
            Self::Encode(_) => Stage::Encode,
            Self::Query | Self::Prefill => Stage::Prefill,
            Self::Probe | Self::Decode => Stage::Decode,
        }
    }
}

/// The server that a call goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Destination {
    /// The local engine of this rank.
    Engine(u16),
    /// Another server.
    Server(Target),
}

/// A call that is ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sidecar) struct LegRequest {
    /// The server that the call goes to.
    pub to: Destination,
    /// The path of the call. `None` takes the client's path and query.
    pub path: Option<&'static str>,
    /// Headers that are added to those of the client, or replace them.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 2]>,
    /// The call carries the client's headers. Without them, it carries only the client's `Authorization`.
    pub client_headers: bool,
    /// The body. `None` makes the call a GET without a body.
    pub body: Option<Pieces>,
    /// The time limit for the whole answer, or for its head if the client gets the body as it comes.
    pub limit: Option<Duration>,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::sidecar) enum LegFailure {
    /// The server refused the connection, so that nothing was sent.
    Refused,
    /// The connection was not made in time, so that nothing was sent.
    ConnectTimeout,
    /// The answer did not come in time.
    Timeout,
    /// The connection broke before the head of the answer.
    Reset,
    /// The connection broke after the head of the answer.
    Broken,
    /// The answer is not HTTP, or is longer than the sidecar reads.
    Garbage,
}

impl LegFailure {
    /// The reason that the counters name.
    pub(in crate::sidecar) fn reason(self, stage: Stage) -> FailReason {
        match self {
            Self::Refused => FailReason::Refused(stage),
            Self::ConnectTimeout | Self::Timeout => FailReason::Timeout(stage),
            Self::Reset => FailReason::Reset(stage),
            Self::Broken => FailReason::Broken(stage),
            Self::Garbage => FailReason::Garbage(stage),
        }
    }

    /// The HTTP status that the client gets.
    pub(in crate::sidecar) fn status(self) -> StatusCode {
        match self {
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// The failure as a text for people, with the server as `it`.
    pub(in crate::sidecar) fn text(self) -> &'static str {
        match self {
            Self::Refused => "it refuses connections",
            Self::ConnectTimeout => "no connection came about in time",
            Self::Timeout => "it did not answer in time",
            Self::Reset => "the connection broke before an answer",
            Self::Broken => "the connection broke in the middle of the answer",
            Self::Garbage => "its answer makes no sense",
        }
    }
}

/// An event that the shell reports to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Event {
    /// The head of an answer came, with this status.
    Head(Leg, StatusCode),
    /// The answer of a call has been read to its end. The bytes are those of the body, or empty if the body was
    /// drained.
    Body(Leg, Bytes),
    /// The beginning of an answer's body has been read. The flag is true if the body ended there.
    Peeked(Leg, Bytes, bool),
    /// A call failed.
    Failed(Leg, LegFailure),
    /// The timer of `Call::Wake` has run out.
    Timer,
}

/// How much of an answer's body a peek reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Peek {
    /// The first bytes of the body.
    FirstByte,
    /// The first two events of a stream.
    TwoEvents,
}

/// What the machine asks the shell to do.
#[derive(Clone, Debug)]
pub(in crate::sidecar) enum Call {
    /// Send a call.
    Send(Leg, Box<LegRequest>),
    /// Read the answer of a call to its end, and report its bytes.
    Collect(Leg),
    /// Read the answer of a call to its end, and drop its bytes.
    Drain(Leg),
    /// Read the beginning of an answer and report it. The client still gets these bytes if the answer is relayed.
    Peek(Leg, Peek),
    /// End a call, whatever its state.
    Cancel(Leg),
    /// Report `Event::Timer` after this time. The timer replaces an earlier one.
    Wake(Duration),
    /// Give the answer of this call to the client, from its first byte on. The other running calls go on beside it.
    /// Nothing follows this call.
    Relay(Leg, Rewrite),
    /// Give the client an error. Nothing follows this call.
    Refuse(Refusal),
    /// Give the client this document with this content type. Nothing follows this call.
    Answer(Bytes, &'static str),
    /// Begin an answer with this content type, whose body comes as `Piece`s.
    Begin(&'static str),
    /// Send the next piece of the body.
    Piece(Bytes),
    /// End the body. Nothing follows this call.
    End,
    /// Note the outcome of the request. It comes once, before the call that ends the answer.
    Outcome(Outcome),
    /// If the client leaves before the answer, send this call, after which the prefill server frees its cache.
    OnGone(Box<LegRequest>),
    /// Write a line to the log.
    Note(Note),
}

/// An event for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Note {
    /// The answer of this prefill server has no transfer parameters.
    NoParameters(Target),
    /// A prefill server failed for this reason, and the request goes on as the last field says.
    PrefillFailed(Target, FailReason, &'static str, PrefillRetry),
}

/// A change to an answer on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Rewrite {
    /// The answer is forwarded as it is.
    Nothing,
    /// The count of cached prompt tokens in the answer is replaced by this number.
    CachedTokens(u64),
}

/// Calls in the order in which the shell carries them out.
pub(in crate::sidecar) type Calls = Vec<Call>;
