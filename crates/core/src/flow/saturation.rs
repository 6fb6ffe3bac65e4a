//! How full a pool is: a pure function of its endpoints, of what was let go and has no endpoint yet, and of now.
//!
//! An endpoint's score is 0 when it is idle and 1 when it is full; a stage of the pool (prefill, decode) is as full as
//! the mean of its endpoints, and the pool as its fullest stage. Three things differ from the plain mean of scraped
//! figures:
//!
//! - Requests sent since the last reading was asked for, and not finished, count as waiting, and so do those that were
//!   let go and not placed yet ([`Unplaced`]). A burst cannot pass on an old reading.
//! - The value that gates caps each endpoint's score, so one overloaded endpoint among idle ones does not stop the
//!   pool. It reaches 1 when every endpoint is full, and then says the same as the plain mean. The plain mean is kept
//!   beside it for metrics and for eviction.
//! - An endpoint without a recent reading is judged by [`StalenessPolicy`], and one that does not answer at all is left
//!   out while others do.

use std::sync::Arc;
use std::time::Instant;

use super::detector::{
    Concurrency, ConcurrencyMode, Detector, DetectorKind, STALE_MAX_CONCURRENCY, StalenessPolicy, Utilization,
};
use crate::pool::{Endpoint, Load};

/// Pod label that names the stage a model server works in.
const ROLE_LABEL: &str = "llm-d.ai/role";

/// Requests that were let go and are on no endpoint yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unplaced {
    /// Number of requests.
    pub requests: u64,
    /// Their estimated tokens.
    pub tokens: u64,
}

/// The fill of a stage or a pool; 1 is full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    /// Mean of the scores as they are; beyond 1 if overloaded.
    pub raw: f64,
    /// The same with each endpoint's score capped: what ceilings are compared with.
    pub gating: f64,
}

impl Fill {
    /// Of a pool without endpoints.
    pub const FULL: Self = Self { raw: 1.0, gating: 1.0 };

    fn max(self, other: Self) -> Self {
        Self { raw: self.raw.max(other.raw), gating: self.gating.max(other.gating) }
    }
}

/// The fill of a pool, by stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolFill {
    /// Endpoints that prefill; `None` without any.
    pub prefill: Option<Fill>,
    /// Endpoints that decode, which is also what those without a role do; `None` without any.
    pub decode: Option<Fill>,
    /// The fuller of both; of all endpoints if none belongs to a stage.
    pub effective: Fill,
    /// Endpoints without a recent reading. Always 0 for detectors that use none.
    pub stale: u64,
}

/// Judges a pool. `cap` is the score that counts for a full endpoint however overloaded it is: the highest ceiling in
/// use, at least 1. One pass, no allocation.
pub fn pool(
    detector: &Detector,
    endpoints: &[Arc<Endpoint>],
    unplaced: Unplaced,
    cap: f64,
    now: Instant,
) -> PoolFill {
    let [mut prefill, mut decode, mut all] = [Stage::default(); 3];
    let mut stale = 0;
    for endpoint in endpoints {
        let view = detector.kind.view(endpoint.load(), now);
        stale += u64::from(view.stale);
        let (prefills, decodes) = stages(endpoint);
        for (stage, belongs) in [(&mut prefill, prefills), (&mut decode, decodes), (&mut all, true)] {
            if belongs {
                stage.add(&view, cap);
            }
        }
    }
    let [prefill_fill, decode_fill] = [prefill, decode].map(|stage| stage.fill(unplaced));
    let effective = match (prefill_fill, decode_fill) {
        (Some(prefill), Some(decode)) => prefill.max(decode),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => all.fill(unplaced).unwrap_or(Fill::FULL),
    };
    PoolFill { prefill: prefill_fill, decode: decode_fill, effective, stale }
}

/// How full a pool is for those who decide on its size. An endpoint without a recent reading is left out while others
/// have one: that it was not read lately is no reason for more servers. If none has one, the requests that this process
/// has in flight there are all that is known.
pub fn demand(detector: &Detector, endpoints: &[Arc<Endpoint>], now: Instant) -> f64 {
    let judged_by = |policy: StalenessPolicy| {
        let mut detector = detector.clone();
        if let DetectorKind::Utilization(utilization) = &mut detector.kind {
            utilization.staleness_policy = policy;
        }
        pool(&detector, endpoints, Unplaced::default(), 1.0, now)
    };
    let known = judged_by(StalenessPolicy::Ignore);
    let nobody = known.stale > 0 && known.stale == endpoints.len() as u64;
    let fill = if nobody { judged_by(StalenessPolicy::InFlight) } else { known };
    fill.effective.raw
}

/// Judges `endpoints` as one stage whatever their roles, as admission without flow control does; [`Fill::FULL`] without
/// any. Beside it the number of endpoints without a recent reading.
pub fn together<'e>(
    detector: &Detector,
    endpoints: impl IntoIterator<Item = &'e Arc<Endpoint>>,
    now: Instant,
) -> (Fill, u64) {
    let (mut stage, mut stale) = (Stage::default(), 0);
    for endpoint in endpoints {
        let view = detector.kind.view(endpoint.load(), now);
        stale += u64::from(view.stale);
        stage.add(&view, 1.0);
    }
    (stage.fill(Unplaced::default()).unwrap_or(Fill::FULL), stale)
}

/// Says whether an endpoint prefills, and whether it decodes.
fn stages(endpoint: &Endpoint) -> (bool, bool) {
    match endpoint.label(ROLE_LABEL) {
        Some("prefill" | "encode-prefill") => (true, false),
        None | Some("decode") => (false, true),
        Some("prefill-decode" | "both" | "encode-prefill-decode") => (true, true),
        Some(_) => (false, false),
    }
}

/// One endpoint as its detector sees it.
#[derive(Clone, Copy, Debug)]
struct View {
    /// `None` if it is not to be counted.
    score: Option<f64>,
    /// Requests and tokens that fill it; 0 if it takes no further ones.
    room: [u64; 2],
    /// Without a recent reading, for a detector that needs one.
    stale: bool,
    /// True if it does not answer. It is left out if others answer.
    silent: bool,
}

impl DetectorKind {
    fn view(&self, load: &Load, now: Instant) -> View {
        match self {
            Self::Utilization(it) => it.view(load, now),
            Self::Concurrency(it) => it.view(load),
        }
    }
}

/// Requests that wait on an endpoint: those of the last reading, and those sent since that it cannot show. A request
/// that finished meanwhile waits no more.
fn pending(load: &Load) -> u64 {
    load.waiting().saturating_add(load.dispatched_since_reading().min(load.in_flight()))
}

impl Utilization {
    fn view(&self, load: &Load, now: Instant) -> View {
        let silent = !load.is_reachable() && self.staleness_policy != StalenessPolicy::Saturated;
        let counted = |score: f64, requests: u64, stale: bool| View {
            score: Some(score),
            room: [requests, 0],
            stale,
            silent,
        };
        if load.fullness_age(now).is_fresh(self.staleness_threshold) {
            let queue = pending(load) as f64 / self.queue_depth_threshold.max(1) as f64;
            let score = queue.max(load.kv_usage() / self.kv_cache_util_threshold);
            return counted(score, self.queue_depth_threshold, false);
        }
        match self.staleness_policy {
            StalenessPolicy::Saturated => counted(1.0, 0, true),
            StalenessPolicy::Ignore => View { score: None, room: [0, 0], stale: true, silent },
            StalenessPolicy::InFlight => {
                counted(load.in_flight() as f64 / STALE_MAX_CONCURRENCY as f64, STALE_MAX_CONCURRENCY, true)
            }
        }
    }

    /// True if the endpoint is below the thresholds, raised by the headroom. One without a recent reading passes only
    /// if its policy judges it by its requests in flight, and these leave room.
    pub fn has_room(&self, load: &Load, now: Instant) -> bool {
        let share = 1.0 + self.headroom;
        if load.fullness_age(now).is_fresh(self.staleness_threshold) {
            return (pending(load) as f64) < self.queue_depth_threshold as f64 * share
                && load.kv_usage() < self.kv_cache_util_threshold * share;
        }
        self.staleness_policy == StalenessPolicy::InFlight
            && (load.in_flight() as f64) < STALE_MAX_CONCURRENCY as f64 * share
    }
}

impl Concurrency {
    fn view(&self, load: &Load) -> View {
        let limits = [self.max_concurrency.max(1), self.max_token_concurrency.max(1)];
        let requests = load.in_flight() as f64 / limits[0] as f64;
        let tokens = load.in_flight_tokens() as f64 / limits[1] as f64;
        let (score, room) = match self.mode {
            ConcurrencyMode::Requests => (requests, [limits[0], 0]),
            ConcurrencyMode::Tokens => (tokens, [0, limits[1]]),
            ConcurrencyMode::Hybrid => (requests.max(tokens), limits),
        };
        View { score: Some(score), room, stale: false, silent: !load.is_reachable() }
    }

    /// True if the endpoint has less in flight than the limits, raised by the headroom and rounded down.
    pub fn has_room(&self, load: &Load) -> bool {
        let below = |count: u64, limit: u64| count < (limit as f64 * (1.0 + self.headroom)) as u64;
        let requests = below(load.in_flight(), self.max_concurrency);
        let tokens = below(load.in_flight_tokens(), self.max_token_concurrency);
        match self.mode {
            ConcurrencyMode::Requests => requests,
            ConcurrencyMode::Tokens => tokens,
            ConcurrencyMode::Hybrid => requests && tokens,
        }
    }
}

/// Sums over the endpoints of a stage: those that answer, and those that do not.
#[derive(Clone, Copy, Debug, Default)]
struct Stage {
    answering: Sums,
    silent: Sums,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// Endpoints, counted or not.
    endpoints: u64,
    counted: u64,
    raw: f64,
    capped: f64,
    room: [u64; 2],
}

impl Stage {
    fn add(&mut self, view: &View, cap: f64) {
        let sums = if view.silent { &mut self.silent } else { &mut self.answering };
        sums.endpoints += 1;
        if let Some(score) = view.score {
            sums.counted += 1;
            sums.raw += score;
            sums.capped += score.min(cap);
            for (sum, room) in sums.room.iter_mut().zip(view.room) {
                *sum = sum.saturating_add(room);
            }
        }
    }

    /// `None` without endpoints.
    fn fill(self, unplaced: Unplaced) -> Option<Fill> {
        let sums = if self.answering.endpoints > 0 { self.answering } else { self.silent };
        match sums {
            Sums { endpoints: 0, .. } => None,
            // All are to be ignored: there is nothing to hold requests for.
            Sums { counted: 0, .. } => Some(Fill { raw: 0.0, gating: 0.0 }),
            Sums { counted, raw, capped, room, .. } => {
                let share = |count: u64, room: u64| if room == 0 { 0.0 } else { count as f64 / room as f64 };
                let coming = share(unplaced.requests, room[0]).max(share(unplaced.tokens, room[1]));
                let mean = |sum: f64| sum / counted as f64 + coming;
                Some(Fill { raw: mean(raw), gating: mean(capped) })
            }
        }
    }
}

#[cfg(test)]
#[path = "saturation_tests.rs"]
mod tests;
