//! What came of a request, as the counters tell it.

use super::connector::Stage;
use crate::metrics::SidecarMetrics;

/// Where the prompt of a request was processed, or why it was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// On the prefill server; its cache was handed over.
    Remote,
    /// On the local engine, as nothing else was asked for.
    Local(LocalReason),
    /// On the local engine although a prefill server was named.
    Recompute(RecomputeReason),
    /// The client got an error of ours or of a server, or left.
    Failed(FailReason),
}

/// Why a prompt was processed by the local engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LocalReason {
    /// No prefill server was named.
    NoPrefill,
    /// The engine had enough of the prompt in its cache.
    CacheHit,
    /// No prefill server was named, but one to pull the cache from.
    KvSource,
}

/// Why a prompt was processed a second time, or in place of the prefill server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RecomputeReason {
    /// The prefill server's answer holds no parameters of a transfer.
    NoParameters,
    /// The prefill server failed, and the operator lets the local engine step in.
    PrefillFailed,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FailReason {
    /// The body is no JSON object.
    Body,
    /// The body is too large to be split, or too many are being split.
    TooLarge,
    /// The prefill server may not be asked, or is no host and port.
    Target,
    /// The rank does not exist.
    Rank,
    /// No connection came about.
    Refused(Stage),
    /// It took too long.
    Timeout(Stage),
    /// The connection broke before the answer's head.
    Reset(Stage),
    /// The connection broke behind the answer's head.
    Broken(Stage),
    /// The answer makes no sense.
    Garbage(Stage),
    /// The server answered with an error.
    Status(Stage),
    /// The client left.
    ClientGone,
}

impl Outcome {
    /// Value of the label `outcome`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Remote => "remote",
            Self::Local(_) => "local",
            Self::Recompute(_) => "recompute",
            Self::Failed(_) => "failed",
        }
    }

    /// Value of the label `reason`.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Remote => "transferred",
            Self::Local(LocalReason::NoPrefill) => "no_prefill_header",
            Self::Local(LocalReason::CacheHit) => "cache_hit",
            Self::Local(LocalReason::KvSource) => "kv_source",
            Self::Recompute(RecomputeReason::NoParameters) => "no_transfer_params",
            Self::Recompute(RecomputeReason::PrefillFailed) => "prefill_failed",
            Self::Failed(reason) => reason.name(),
        }
    }

    /// All that there are.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let stages = [Stage::Encode, Stage::Prefill, Stage::Decode];
        let kinds: [fn(Stage) -> FailReason; 6] = [
            FailReason::Refused,
            FailReason::Timeout,
            FailReason::Reset,
            FailReason::Broken,
            FailReason::Garbage,
            FailReason::Status,
        ];
        let of_stages = stages.into_iter().flat_map(move |stage| kinds.map(|kind| kind(stage)));
        let others = [
            FailReason::Body,
            FailReason::TooLarge,
            FailReason::Target,
            FailReason::Rank,
            FailReason::ClientGone,
        ];
        [
            Self::Remote,
            Self::Local(LocalReason::NoPrefill),
            Self::Local(LocalReason::CacheHit),
            Self::Local(LocalReason::KvSource),
            Self::Recompute(RecomputeReason::NoParameters),
            Self::Recompute(RecomputeReason::PrefillFailed),
        ]
        .into_iter()
        .chain(others.into_iter().chain(of_stages).map(Self::Failed))
    }
}

impl FailReason {
    /// Value of the label `reason`.
    pub(super) fn name(self) -> &'static str {
        use Stage::{Decode, Encode, Prefill};
        match self {
            Self::Body => "body",
            Self::TooLarge => "too_large",
            Self::Target => "target",
            Self::Rank => "rank",
            Self::ClientGone => "client_gone",
            Self::Refused(Encode) => "encode_refused",
            Self::Refused(Prefill) => "prefill_refused",
            Self::Refused(Decode) => "decode_refused",
            Self::Timeout(Encode) => "encode_timeout",
            Self::Timeout(Prefill) => "prefill_timeout",
            Self::Timeout(Decode) => "decode_timeout",
            Self::Reset(Encode) => "encode_reset",
            Self::Reset(Prefill) => "prefill_reset",
            Self::Reset(Decode) => "decode_reset",
            Self::Broken(Encode) => "encode_broken",
            Self::Broken(Prefill) => "prefill_broken",
            Self::Broken(Decode) => "decode_broken",
            Self::Garbage(Encode) => "encode_garbage",
            Self::Garbage(Prefill) => "prefill_garbage",
            Self::Garbage(Decode) => "decode_garbage",
            Self::Status(Encode) => "encode_status",
            Self::Status(Prefill) => "prefill_status",
            Self::Status(Decode) => "decode_status",
        }
    }
}

/// Counts a request's outcome once, when it is certain: an answer that has begun may still break off.
#[derive(Debug)]
pub(super) struct Verdict {
    metrics: SidecarMetrics,
    /// What is counted when the answer has ended.
    outcome: Outcome,
    /// Whose answer it is.
    stage: Stage,
    given: bool,
}

impl Verdict {
    /// Nothing is certain yet. If this is dropped without a word, the client left.
    pub(super) fn open(metrics: &SidecarMetrics) -> Self {
        let outcome = Outcome::Failed(FailReason::ClientGone);
        Self { metrics: metrics.clone(), outcome, stage: Stage::Decode, given: false }
    }

    /// An answer of a server of this stage has begun, and means this once it has ended well.
    pub(super) fn begun(&mut self, stage: Stage, outcome: Outcome) {
        (self.stage, self.outcome) = (stage, outcome);
        if matches!(outcome, Outcome::Failed(_)) {
            self.give(outcome);
        }
    }

    /// The answer has ended well.
    pub(super) fn ended(&mut self) {
        self.give(self.outcome);
    }

    /// The answer broke off.
    pub(super) fn broken(&mut self) {
        if !self.given {
            self.metrics.call_failed(self.stage.name());
        }
        self.give(Outcome::Failed(FailReason::Broken(self.stage)));
    }

    /// This is what came of the request.
    pub(super) fn give(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.given, true) {
            self.metrics.outcome(outcome.name(), outcome.reason());
        }
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        self.give(Outcome::Failed(FailReason::ClientGone));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_outcomes_have_the_same_labels() {
        let all: Vec<_> = Outcome::all().map(|outcome| (outcome.name(), outcome.reason())).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(all.len(), 29);
    }
}
