//! A forwarded request whose latencies will be samples.

use std::sync::Arc;
use std::time::Instant;

use super::models::{Ahead, Queued, RunningObjective, Shared};
use crate::latency::{LatencyKind, Objective};
use crate::metrics::LatencyLabels;
use crate::scheduling::EndedCall;

/// One request on its way.
pub(super) struct Following {
    pub(super) forwarded: Instant,
    pub(super) first: Option<Ahead>,
    pub(super) between: Option<Ahead>,
    pub(super) wanted: Objective,
    /// Only streamed answers teach.
    pub(super) streaming: bool,
    #[expect(dead_code, reason = "held until the request ends")]
    pub(super) running: Option<RunningObjective>,
    /// Its uncached tokens, until its answer begins.
    pub(super) queued: Option<Queued>,
    pub(super) labels: LatencyLabels,
    pub(super) shared: Arc<Shared>,
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

impl Following {
    fn learn_first(&mut self, now: Instant) {
        let value = milliseconds(self.forwarded, now);
        self.shared.metrics.measured(&self.labels, LatencyKind::FirstToken, value, self.wanted.first);
        if let Some(ahead) = self.first.take() {
            self.shared.learn(LatencyKind::FirstToken, &ahead, value, now);
        }
    }
}

impl Following {
    /// The first bytes of the answer have come.
    pub(super) fn first_byte(&mut self, now: Instant, streamed: bool) {
        self.queued = None;
        if streamed || !self.streaming {
            self.learn_first(now);
        }
    }

    /// The answer has ended.
    pub(super) fn ended(&mut self, end: &EndedCall<'_>) {
        if !end.succeeded || !end.streamed {
            return;
        }
        let Some(first) = end.first_byte else { return };
        let tokens = end.usage.map_or(end.chunks, |usage| usage.completion_tokens);
        if tokens < 2 {
            return;
        }
        let value = milliseconds(first, end.now) / (tokens - 1) as f64;
        self.shared.metrics.measured(&self.labels, LatencyKind::BetweenTokens, value, self.wanted.between);
        if let Some(ahead) = self.between.take() {
            self.shared.learn(LatencyKind::BetweenTokens, &ahead, value, end.now);
        }
    }
}
