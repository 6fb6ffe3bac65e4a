//! The input of a decision: what the proxy sent of a request.

use std::task::{Context, Poll};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Refusal, Share};
use crate::request::Headers;
use crate::scheduling::{HeaderEdits, Reported};

/// The proxy's hint that only some endpoints may serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SubsetHint {
    /// The whole pool may serve.
    #[default]
    Absent,
    /// Only these addresses may; an empty list admits none.
    Addresses(Vec<String>),
    /// There is a hint that cannot be understood; the text says why.
    Malformed(String),
}

/// The part of the body that was seen when the request must be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySeen {
    /// The request has none, or asks for a tunnel.
    None,
    /// There may be one, but the proxy does not show it in time.
    Unseen,
    /// All of it.
    Whole,
    /// The beginning, or all of it: the proxy does not say.
    Part,
}

/// A request to decide.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Request headers.
    pub headers: Headers,
    /// Body, as far as it was seen.
    pub body: Bytes,
    /// The part of the body that was seen.
    pub body_seen: BodySeen,
    /// Subset hint.
    pub hint: SubsetHint,
}

/// Choices of the operator.
#[derive(Clone, Debug)]
pub struct DirectorSettings {
    /// Ignore subset hints.
    pub ignore_subset: bool,
    /// Leave out endpoints whose metrics port does not answer, as long as another one does.
    pub avoid_unreachable: bool,
    /// Send the scores of all candidates as metadata.
    pub emit_scores: bool,
    /// Tell clients in a response header why their request went where it went.
    pub decision_header: bool,
    /// Remove control headers of the client, so that model servers do not see them.
    pub strip_control_headers: bool,
    /// Let clients choose the target model with a header. If not, the header counts as absent and model servers do not
    /// see it.
    pub model_rewrite_header: bool,
    /// Largest body that is forwarded, in bytes; 0 means no bound. A rewrite may make a body longer than it came.
    pub body_limit: u64,
    /// Seed of all random choices.
    pub seed: u64,
    /// Most bytes kept of a response while looking for its token usage.
    pub usage_limit: usize,
    /// Responses and conversations whose server is remembered; 0 remembers none.
    pub response_bindings: usize,
}

impl Default for DirectorSettings {
    fn default() -> Self {
        Self {
            ignore_subset: false,
            avoid_unreachable: true,
            emit_scores: false,
            decision_header: false,
            strip_control_headers: true,
            model_rewrite_header: true,
            body_limit: 0,
            seed: 0,
            usage_limit: 64 << 10,
            response_bindings: 100_000,
        }
    }
}

/// Pieces of a body as they go on.
pub type Pieces = SmallVec<[Bytes; 3]>;

/// A request that goes on. `X` is its response side.
#[derive(Debug)]
pub struct Routed<X> {
    /// `ip:port` of the chosen endpoint, then those of fallbacks, with commas.
    pub destination: Bytes,
    /// Scores of all candidates by `ip:port`, where the operator wants them.
    pub scores: Vec<(String, f64)>,
    /// Header changes beside the destination.
    pub edits: HeaderEdits,
    /// The body to forward.
    pub body: Pieces,
    /// True if it differs from the body that came.
    pub body_changed: bool,
    /// Counts the body to forward, where it is not one that came.
    pub held: Option<Share>,
    /// The response side.
    pub exchange: X,
}

/// The response side of a routed request. Dropping it ends the request, whatever was seen of the response.
pub trait ResponseSide {
    /// Response headers came. `end` if no body will be seen.
    fn on_headers(&mut self, headers: &Headers, served: Option<&str>, end: bool) -> HeaderEdits;
    /// A piece of a request body came that nobody saw when the request was decided; `end` if it is the last. An error
    /// stops the request.
    fn on_request_chunk(&mut self, _chunk: &Bytes, _end: bool) -> Result<(), Refusal> {
        Ok(())
    }
    /// A piece of the response body came; returns what the client gets. `end` if it is the last.
    fn on_chunk(&mut self, chunk: Bytes, end: bool) -> Pieces;
    /// Ready if the request should be stopped to make room for a more important one.
    fn poll_revoked(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
    /// Returns what is held back; a model name that it cuts stays the server's.
    fn flush(&mut self) -> Pieces;
    /// The body ended by trailers; returns what was held back.
    fn on_end(&mut self) -> Pieces;
    /// Takes what plugins say of the response, once it is complete.
    fn reported(&mut self) -> Vec<Reported> {
        Vec::new()
    }
}
