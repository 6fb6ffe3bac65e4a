//! One decision in numbers: slots of a snapshot and `f32`, no text for a candidate.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::cast::Cast;
use super::facts::{Known, Verdict, Waited};
use super::names::PolicyNames;
use super::runs::{Run, Runs};
use super::shadow::ShadowNote;
use crate::pool::{Endpoint, Snapshot};
use crate::request::Usage;

/// Figures of one candidate at the time of the decision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Milliseconds since the reading; `u32::MAX` for never.
    pub(super) age_ms: u32,
    pub(super) waiting: u32,
    pub(super) running: u32,
    pub(super) kv_usage: f32,
    pub(super) in_flight: u32,
    pub(super) in_flight_tokens: u32,
    pub(super) sent_since_reading: u32,
    /// Blocks of the prompt that it is believed to hold, as scoring counts them.
    pub(super) matched: u32,
}

/// How a response ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What became of it.
    pub ended: Ended,
    /// HTTP status of the model server; 0 if no headers were seen.
    pub status: u16,
    /// From the arrival of the request headers to the first byte of the response body.
    pub first_byte: Option<Duration>,
    /// From the arrival of the request headers to the end.
    pub duration: Duration,
    /// Bytes of the response body.
    pub bytes: u64,
    /// Tokens, as the model server counts them.
    pub usage: Option<Usage>,
    /// Position among the targets of the one that served.
    pub served_by: usize,
}

/// The ways a forwarded request ends, by the names that the metrics have for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended(pub &'static str);

/// One decision. It never holds text of a prompt.
#[derive(Debug)]
pub struct Record {
    pub(super) sequence: u64,
    pub(super) seed: u64,
    pub(super) time: SystemTime,
    pub(super) received: Instant,
    pub(super) decided: Instant,
    pub(super) known: Known,
    pub(super) waited: Waited,
    pub(super) names: Arc<PolicyNames>,
    /// The pool; `None` if the request was refused before there were candidates.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Places of the candidates in the snapshot; `None` for all.
    pub(super) places: Option<Box<[u32]>>,
    pub(super) figures: Vec<Figures>,
    /// Blocks of the prompt and tokens of a block; 0 where nobody counts them.
    pub(super) blocks: u32,
    pub(super) block_size: u32,
    /// The cells of `figures` say what each candidate holds of the prompt.
    pub(super) matches: bool,
    pub(super) runs: Vec<Run>,
    /// What a shadow would have chosen.
    pub(super) shadow: Option<Box<ShadowNote>>,
    pub(super) verdict: Verdict,
    pub(super) outcome: OnceLock<Outcome>,
}

impl Record {
    /// What its numbers stand for.
    pub(super) fn cast(&self) -> Cast<'_> {
        Cast { names: &self.names, snapshot: self.snapshot.as_ref(), places: self.places.as_deref() }
    }

    /// The endpoint of the candidate in `slot`.
    pub(super) fn endpoint(&self, slot: u32) -> Option<&Arc<Endpoint>> {
        self.cast().endpoint(slot)
    }

    /// Blocks of the prompt that the endpoint is believed to hold; `None` where nobody counts them.
    pub(super) fn matched(&self, endpoint: &Endpoint) -> Option<u32> {
        if !self.matches {
            return None;
        }
        let slot = (0..self.figures.len() as u32).find(|slot| {
            self.endpoint(*slot).is_some_and(|candidate| candidate.incarnation() == endpoint.incarnation())
        })?;
        self.figures.get(slot as usize).map(|figures| figures.matched)
    }

    /// Tokens of the prompt that the endpoint is believed to hold.
    pub(super) fn predicted(&self, endpoint: &Endpoint) -> Option<u64> {
        self.matched(endpoint).map(|matched| u64::from(matched) * u64::from(self.block_size))
    }

    /// Refused, or given up before it was decided.
    pub(super) fn refused(&self) -> bool {
        !matches!(self.verdict, Verdict::Routed { .. })
    }

    /// What tells how slow the request was: time to the first byte, or else how long it took.
    pub(super) fn slowness(&self) -> Option<Duration> {
        self.outcome.get().map(|outcome| outcome.first_byte.unwrap_or(outcome.duration))
    }

    /// Bytes that the record takes, without the names and endpoints that all share.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + 2 * size_of::<usize>()
            + self.known.bytes()
            + self.places.as_ref().map_or(0, |places| places.len() * 4)
            + self.figures.capacity() * size_of::<Figures>()
            + Runs::bytes(&self.runs)
            + self.shadow.as_ref().map_or(0, |shadow| shadow.bytes())
            + self.verdict.bytes()
    }
}
