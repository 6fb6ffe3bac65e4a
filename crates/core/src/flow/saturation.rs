//! How full a pool is: a pure function of its endpoints, of the requests that were released and have no endpoint yet,
//! and of the time.
//!
//! The score of an endpoint is 0 when it is idle and 1 when it is full. A stage of the pool (prefill, decode) is as
//! full as the mean of its endpoints, and the pool is as full as its fullest stage. The result differs from the plain
//! mean of the scraped figures in three ways:
//!
//! - Requests that were sent after the last reading was asked for, and have not ended, count as waiting. So do requests
//!   that were released and not placed yet ([`Unplaced`]). A burst of requests therefore cannot pass on one old
//!   reading.
//! - The value that gates caps each endpoint's score, so one overloaded endpoint among idle ones does not stop the
//!   pool. The value reaches 1 when every endpoint is full, and then equals the plain mean. The plain mean is kept
//!   beside it, for metrics and for eviction.
//! - The settings choose how an endpoint without a recent reading counts ([`StalenessPolicy`]). An endpoint that does
//!   not answer at all is left out while others answer.

use std::sync::Arc;
use std::time::Instant;

use super::detector::{
    Concurrency, ConcurrencyMode, Detector, DetectorKind, STALE_MAX_CONCURRENCY, StalenessPolicy, Utilization,
};
use crate::pool::{DECODE_ROLES, Endpoint, Load, PREFILL_ROLES, ROLE_LABEL};

/// The requests that were released and are on no endpoint yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unplaced {
    /// The number of requests.
    pub requests: u64,
    /// The number of their estimated tokens.
    pub tokens: u64,
}

/// The fill of a stage or a pool. 1 is full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    /// The mean of the endpoints' scores. It is above 1 if the endpoints are overloaded.
    pub raw: f64,
    /// The mean of the endpoints' capped scores, which is compared with the ceilings.
    pub gating: f64,
}

impl Fill {
    /// The fill of a pool without endpoints.
    pub const FULL: Self = Self { raw: 1.0, gating: 1.0 };

    fn max(self, other: Self) -> Self {
        Self { raw: self.raw.max(other.raw), gating: self.gating.max(other.gating) }
    }
}

/// The fill of a pool, by stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolFill {
    /// The fill of the endpoints that prefill; `None` if there are none.
    pub prefill: Option<Fill>,
    /// The fill of the endpoints that decode, with those that have no role; `None` if there are none.
    pub decode: Option<Fill>,
    /// The larger fill of the two stages. If no endpoint belongs to a stage, the fill of all endpoints.
    pub effective: Fill,
    /// The number of endpoints without a recent reading. It is always 0 for a detector that uses no readings.
    pub stale: u64,
}

/// Computes the fill of a pool. `cap` bounds the score of an overloaded endpoint: it is the highest ceiling in use, at
/// least 1. The function makes one pass over the endpoints and allocates nothing.
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

/// Computes the fill of a pool for those who decide on the number of its servers. An endpoint without a recent reading
/// is left out while others have one: a failed scrape is no reason for more servers. If no endpoint has a recent
/// reading, the requests that this process has in flight count.
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

/// Computes the fill of `endpoints` as one stage, whatever their roles, as admission without flow control does. It is
/// [`Fill::FULL`] if there are no endpoints. The second value is the number of endpoints without a recent reading.
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

/// Returns whether an endpoint prefills, and whether it decodes.
fn stages(endpoint: &Endpoint) -> (bool, bool) {
    match endpoint.label(ROLE_LABEL) {
        Some(role) => (PREFILL_ROLES.contains(&role), DECODE_ROLES.contains(&role)),
        None => (false, true),
    }
}

/// One endpoint as a detector sees it.
#[derive(Clone, Copy, Debug)]
struct View {
    /// The score of the endpoint; `None` if the endpoint does not count.
    score: Option<f64>,
    /// The numbers of requests and of tokens that fill the endpoint; 0 if that figure does not count.
    room: [u64; 2],
    /// True if the detector needs a recent reading and the endpoint has none.
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

/// The number of requests that wait on an endpoint: those of the last reading, and those that were sent since and have
/// not ended.
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
            let (queue, usage) = self.figures(load);
            let queue = queue as f64 / self.queue_depth_threshold.max(1) as f64;
            let score = queue.max(usage / self.kv_cache_util_threshold);
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

    /// Waiting requests and cache usage.
    fn figures(&self, load: &Load) -> (u64, f64) {
        if self.by_age {
            (load.waiting_by_now(), load.kv_usage_by_now())
        } else {
            (pending(load), load.kv_usage())
        }
    }

    /// True if the endpoint is below the thresholds, raised by the headroom. An endpoint without a recent reading has
    /// room only if the policy judges it by its requests in flight, and these are few enough.
    pub fn has_room(&self, load: &Load, now: Instant) -> bool {
        let share = 1.0 + self.headroom;
        if load.fullness_age(now).is_fresh(self.staleness_threshold) {
            let (queue, usage) = self.figures(load);
            return (queue as f64) < self.queue_depth_threshold as f64 * share
                && usage < self.kv_cache_util_threshold * share;
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

    /// True if the endpoint has less in flight than the limits. Each limit is raised by the headroom and rounded down.
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

/// The sums over the endpoints of a stage: of those that answer, and of those that do not.
#[derive(Clone, Copy, Debug, Default)]
struct Stage {
    answering: Sums,
    silent: Sums,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// The number of endpoints, with those that do not count.
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

    /// The fill of the stage; `None` if it has no endpoints.
    fn fill(self, unplaced: Unplaced) -> Option<Fill> {
        let sums = if self.answering.endpoints > 0 { self.answering } else { self.silent };
        match sums {
            Sums { endpoints: 0, .. } => None,
            // No endpoint counts, so there is no reason to hold requests.
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
