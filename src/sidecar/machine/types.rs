//! What goes into the machine of a request, and what comes out.

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

/// What the requests of one process share.
#[derive(Debug)]
pub(in crate::sidecar) struct Shared {
    /// The operator's choices.
    pub settings: Settings,
    /// How often the local engine may step in.
    pub spare: Spare,
    /// Ids of Mooncake's engines.
    pub engines: EngineIds,
    /// Where the next request with few images begins among the encode servers.
    pub encoder: std::sync::atomic::AtomicUsize,
}

/// A request that is to be split.
#[derive(Clone, Debug)]
pub(in crate::sidecar) struct Ask {
    /// Its API.
    pub api: Api,
    /// Its body.
    pub object: JsonObject,
    /// The servers that it names.
    pub route: Route,
    /// The rank whose port it came to.
    pub rank: u16,
    /// Its id, the same on all calls.
    pub request_id: String,
}

impl Ask {
    /// True if the client wants a stream of events.
    pub(in crate::sidecar) fn streams(&self) -> bool {
        self.object.is_true("stream")
    }
}

/// One call to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::sidecar) enum Leg {
    /// Encode this item.
    Encode(u16),
    /// Ask the prefill server for the ids of its engines.
    Query,
    /// Process the prompt.
    Prefill,
    /// Ask the local engine whether it has enough of the prompt.
    Probe,
    /// Answer.
    Decode,
}

impl Leg {
    /// The stage that it belongs to.
    pub(in crate::sidecar) fn stage(self) -> Stage {
        match self {
            Self::Encode(_) => Stage::Encode,
            Self::Query | Self::Prefill => Stage::Prefill,
            Self::Probe | Self::Decode => Stage::Decode,
        }
    }
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Destination {
    /// The engine of this rank.
    Engine(u16),
    /// Another server.
    Server(Target),
}

/// A call as it is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sidecar) struct LegRequest {
    /// Where to.
    pub to: Destination,
    /// Its path; `None` is the client's, with its query.
    pub path: Option<&'static str>,
    /// Headers that are set on top of the client's.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 2]>,
    /// The client's headers go along. Its authorization always does.
    pub client_headers: bool,
    /// The body; `None` asks with GET.
    pub body: Option<Pieces>,
    /// How long the whole answer may take, or its head where its body is the client's.
    pub limit: Option<Duration>,
}

/// Why a call came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::sidecar) enum LegFailure {
    /// No connection came about: nothing was sent.
    Refused,
    /// The connection did not come about in time: nothing was sent.
    ConnectTimeout,
    /// The answer did not come in time.
    Timeout,
    /// The connection broke before the head of an answer.
    Reset,
    /// It broke behind the head.
    Broken,
    /// What came is no HTTP, or longer than is read.
    Garbage,
}

impl LegFailure {
    /// The reason that counters tell.
    pub(in crate::sidecar) fn reason(self, stage: Stage) -> FailReason {
        match self {
            Self::Refused => FailReason::Refused(stage),
            Self::ConnectTimeout | Self::Timeout => FailReason::Timeout(stage),
            Self::Reset => FailReason::Reset(stage),
            Self::Broken => FailReason::Broken(stage),
            Self::Garbage => FailReason::Garbage(stage),
        }
    }

    /// The status that a client gets for it.
    pub(in crate::sidecar) fn status(self) -> StatusCode {
        match self {
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// What happened, for people.
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

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Event {
    /// The head of an answer came.
    Head(Leg, StatusCode),
    /// The whole body of an answer came that was to be collected or drained; empty if it was drained.
    Body(Leg, Bytes),
    /// The beginning of an answer's body came that was to be peeked at; true if that is all of it.
    Peeked(Leg, Bytes, bool),
    /// A call came to nothing.
    Failed(Leg, LegFailure),
    /// The time that was asked for has come.
    Timer,
}

/// How much of an answer's body is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Peek {
    /// Its first bytes.
    FirstByte,
    /// Its first two events.
    TwoEvents,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(in crate::sidecar) enum Call {
    /// Make a call.
    Send(Leg, Box<LegRequest>),
    /// Read the whole answer.
    Collect(Leg),
    /// Read the whole answer and forget it.
    Drain(Leg),
    /// Read the beginning of the answer, which stays in front of the rest.
    Peek(Leg, Peek),
    /// End a call, however far it is.
    Cancel(Leg),
    /// Report a timer after this time. An earlier one is forgotten.
    Wake(Duration),
    /// Give this answer to the client, as far as it has come and as it goes on. Calls that are still open go on with
    /// it. The last word.
    Relay(Leg, Rewrite),
    /// Give the client an error. The last word.
    Refuse(Refusal),
    /// Give the client this document of this content type. The last word.
    Answer(Bytes, &'static str),
    /// Begin an answer of this content type that comes in pieces.
    Begin(&'static str),
    /// The next piece of it.
    Piece(Bytes),
    /// No more pieces come. The last word.
    End,
    /// What came of the request, said once and before the last word.
    Outcome(Outcome),
    /// If the client leaves before the answer, make this call so that the prefill server lets go of the cache.
    OnGone(Box<LegRequest>),
    /// Something for the log.
    Note(Note),
}

/// Something for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Note {
    /// The prefill server's answer has no parameters of a transfer.
    NoParameters(Target),
    /// A prefill server failed, and the request goes on elsewhere.
    PrefillFailed(Target, FailReason, &'static str, PrefillRetry),
}

/// What is changed in an answer on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Rewrite {
    /// Nothing.
    Nothing,
    /// How many tokens of the prompt were cached.
    CachedTokens(u64),
}

/// Calls in the order in which they are to be made.
pub(in crate::sidecar) type Calls = Vec<Call>;
