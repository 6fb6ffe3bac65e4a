//! The outcome of a request, as the counters name it.

use super::connector::Stage;
use crate::metrics::SidecarMetrics;

/// Where the prompt of a request was processed, or why the request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// The prefill server processed the prompt and handed over the cache.
    Remote,
    /// The local engine processed the prompt, and no prefill server was asked.
    Local(LocalReason),
    /// The local engine processed the prompt, although the request named a prefill server.
    Recompute(RecomputeReason),
    /// The client got an error of the sidecar or of a server, or the client left.
    Failed(FailReason),
}

/// Why the local engine processed the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LocalReason {
    /// The request named no prefill server.
    NoPrefill,
    /// The engine had enough of the prompt in its cache.
    CacheHit,
    /// The request named no prefill server, but a server to pull the cache from.
    KvSource,
}

/// Why the local engine processed a prompt that a prefill server should have processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RecomputeReason {
    /// The prefill server's answer has no transfer parameters, so its cache is lost.
    NoParameters,
    /// The prefill server failed, and the settings let the local engine take its place.
    PrefillFailed,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FailReason {
    /// The body is not a JSON object.
    Body,
    /// The body is too large to be split, or the bodies of other requests fill the memory for bodies.
    TooLarge,
    /// The header of the prefill server names a server that may not be asked, or is not `host:port`.
    Target,
    /// The header of the rank names a rank that this pod does not have.
    Rank,
    /// The server of the stage refused the connection.
    Refused(Stage),
    /// The server of the stage did not connect or answer in time.
    Timeout(Stage),
    /// The connection broke before the head of the answer.
    Reset(Stage),
    /// The connection broke after the head of the answer.
    Broken(Stage),
    /// The answer is not what the protocol asks for.
    Garbage(Stage),
    /// The server answered with an error status.
    Status(Stage),
    /// The client left before the end of its answer.
    ClientGone,
}

impl Outcome {
    /// The value of the label `outcome`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Remote => "remote",
            Self::Local(_) => "local",
            Self::Recompute(_) => "recompute",
            Self::Failed(_) => "failed",
        }
    }

    /// The value of the label `reason`.
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

    /// All outcomes, for the series of the metrics page.
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
    /// The value of the label `reason`.
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

/// Counts the outcome of a request once, as soon as the outcome is certain. An answer that has begun may still break
/// off, and then counts as failed.
#[derive(Debug)]
pub(super) struct Verdict {
    metrics: SidecarMetrics,
    /// The outcome that is counted when the answer has ended well.
    outcome: Outcome,
    /// The stage whose server writes the answer.
    stage: Stage,
    given: bool,
}

impl Verdict {
    /// Makes a verdict for a request that has no outcome yet. If it is dropped before an outcome is given, the client
    /// left.
    pub(super) fn open(metrics: &SidecarMetrics) -> Self {
        let outcome = Outcome::Failed(FailReason::ClientGone);
        Self { metrics: metrics.clone(), outcome, stage: Stage::Decode, given: false }
    }

    /// Notes that a server of `stage` has begun to answer, and that `outcome` counts once the answer has ended well. A
    /// failed outcome is counted at once.
    pub(super) fn begun(&mut self, stage: Stage, outcome: Outcome) {
        (self.stage, self.outcome) = (stage, outcome);
        if matches!(outcome, Outcome::Failed(_)) {
            self.give(outcome);
        }
    }

    /// Counts the outcome of an answer that has ended well.
    pub(super) fn ended(&mut self) {
        self.give(self.outcome);
    }

    /// Counts an answer that broke off as failed.
    pub(super) fn broken(&mut self) {
        if !self.given {
            self.metrics.call_failed(self.stage.name());
        }
        self.give(Outcome::Failed(FailReason::Broken(self.stage)));
    }

    /// Counts `outcome`, unless an outcome was counted before.
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
