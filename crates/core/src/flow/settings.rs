//! The settings of flow control as plain values. `config` checks the configuration file and makes these values from it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::detector::Detector;

/// The longest wait in a pool with endpoints if the configuration sets none.
pub const DEFAULT_REQUEST_TTL: Duration = Duration::from_mins(1);

/// The longest wait in a pool without endpoints if the configuration sets no wait at all. A server can be scheduled,
/// load its model and become ready in this time. The reference waits for one minute.
pub const DEFAULT_NO_ENDPOINT_TTL: Duration = Duration::from_mins(10);

/// The body bytes that may wait in a band if the configuration sets no bound.
pub const DEFAULT_BAND_BYTES: u64 = 1_000_000_000;

/// The number of requests that may wait in a band if the configuration sets no bound.
pub const DEFAULT_BAND_REQUESTS: u64 = 5000;

/// The fairness id of requests that carry none.
pub const DEFAULT_FLOW: &str = "default-flow";

/// The settings of one pool's queues.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSettings {
    /// The most body bytes that may wait in all bands together; `None` sets no bound.
    pub max_bytes: Option<u64>,
    /// The most requests that may wait in all bands together; `None` sets no bound.
    pub max_requests: Option<u64>,
    /// The longest wait while the pool has endpoints; `None` waits for ever.
    pub default_request_ttl: Option<Duration>,
    /// The longest wait while the pool has no endpoint; `None` waits for ever. [`no_endpoint_ttl`] says how it is
    /// computed if the configuration sets none.
    pub no_endpoint_request_ttl: Option<Duration>,
    /// The settings of a band whose priority is not in `bands`.
    pub default_band: BandSettings,
    /// The settings of such a band if its priority is below 0; `None` takes [`FlowSettings::default_band`].
    pub default_negative_band: Option<BandSettings>,
    /// The bands that always exist, by priority. Priority 0 is always among them.
    pub bands: BTreeMap<i32, BandSettings>,
    /// The share of the pool that each band may fill.
    pub usage_limit: UsageLimit,
    /// If true, running requests below priority 0 may be stopped to make room for more important requests.
    pub eviction: bool,
    /// The detector that says how full the pool is.
    pub detector: Detector,
}

impl Default for FlowSettings {
    fn default() -> Self {
        Self {
            max_bytes: None,
            max_requests: None,
            default_request_ttl: Some(DEFAULT_REQUEST_TTL),
            no_endpoint_request_ttl: Some(DEFAULT_NO_ENDPOINT_TTL),
            default_band: BandSettings::default(),
            default_negative_band: None,
            bands: BTreeMap::from([(0, BandSettings::default())]),
            usage_limit: UsageLimit::default(),
            eviction: false,
            detector: Detector::default(),
        }
    }
}

impl FlowSettings {
    /// The settings of the band of `priority`: those of `bands`, else the default for the sign of the priority.
    pub fn band(&self, priority: i32) -> &BandSettings {
        let fallback = match &self.default_negative_band {
            Some(band) if priority < 0 => band,
            _ => &self.default_band,
        };
        self.bands.get(&priority).unwrap_or(fallback)
    }
}

/// Computes the longest wait without endpoints from the configured values, where `Some(0)` waits for ever. The result
/// is `written` if it is set, else `request_ttl` if that is set, else [`DEFAULT_NO_ENDPOINT_TTL`].
pub fn no_endpoint_ttl(written: Option<Duration>, request_ttl: Option<Duration>) -> Option<Duration> {
    let ttl = written.or(request_ttl).unwrap_or(DEFAULT_NO_ENDPOINT_TTL);
    (!ttl.is_zero()).then_some(ttl)
}

/// Computes the longest wait with endpoints from the configured value, where `Some(0)` waits for ever.
pub fn request_ttl(written: Option<Duration>) -> Option<Duration> {
    let ttl = written.unwrap_or(DEFAULT_REQUEST_TTL);
    (!ttl.is_zero()).then_some(ttl)
}

/// The settings of one priority band.
#[derive(Clone, Debug, PartialEq)]
pub struct BandSettings {
    /// The most body bytes that may wait in the band; at least 1.
    pub max_bytes: u64,
    /// The most requests that may wait in the band; at least 1.
    pub max_requests: u64,
    /// The longest wait while the pool has endpoints. Zero waits for ever; `None` takes
    /// [`FlowSettings::default_request_ttl`].
    pub request_ttl: Option<Duration>,
    /// The policy that chooses the flow of the band that is served next.
    pub fairness: Fairness,
    /// The policy that chooses the request of a flow that goes first.
    pub ordering: Ordering,
}

impl Default for BandSettings {
    fn default() -> Self {
        Self {
            max_bytes: DEFAULT_BAND_BYTES,
            max_requests: DEFAULT_BAND_REQUESTS,
            request_ttl: None,
            fairness: Fairness::default(),
            ordering: Ordering::default(),
        }
    }
}

/// A policy that chooses the request of a flow that goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// The request that arrived first goes first.
    #[default]
    Fcfs,
    /// The request whose wait ends first goes first. Its wait ends at its arrival plus its longest wait. Requests
    /// without a longest wait come last. Equal deadlines are ordered by arrival.
    Edf,
    /// The request whose first token is due first goes first. The token is due at the receipt of the request plus its
    /// objective for the time to the first token. Requests without an objective come last. Equal deadlines are ordered
    /// by receipt.
    SloDeadline,
}

/// A policy that chooses the flow of a band that is served next.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Fairness {
    /// All flows of the band compete in one queue, which the band's ordering sorts.
    #[default]
    GlobalStrict,
    /// The flows take turns, with one request each, in the order in which they began to wait.
    RoundRobin,
    /// The program that got the least service goes first, with a bonus for the wait of its first request. The flow id
    /// names the program. All bands with equal parameters share the accounts of the programs.
    ProgramAware(ProgramAware),
    /// The session with the highest turn goes first, with a bonus for the wait of its first request. The flow id names
    /// the session. All bands with equal parameters share the turns of the sessions.
    TurnPriority(TurnPriority),
}

/// Parameters of [`Fairness::TurnPriority`]. A flow's score is `turn + time_weight * seconds that its head waits`; the
/// highest score is served. `turn` is the number of requests that were released for the session, plus one.
#[derive(Clone, Debug, PartialEq)]
pub struct TurnPriority {
    /// The turns that one second of waiting is worth; finite and at least 0.
    pub time_weight: f64,
    /// The idle time after which a session begins at turn one again; `None` never resets a session.
    pub inactivity: Option<Duration>,
    /// The idle time after which a session is forgotten; `None` never forgets a session.
    pub eviction_ttl: Option<Duration>,
    /// The time between two searches for idle sessions; more than 0.
    pub eviction_sweep: Duration,
}

impl Default for TurnPriority {
    fn default() -> Self {
        Self {
            time_weight: 0.05,
            inactivity: Some(Duration::from_mins(2)),
            eviction_ttl: Some(Duration::from_hours(1)),
            eviction_sweep: Duration::from_mins(5),
        }
    }
}

/// Parameters of [`Fairness::ProgramAware`]. The flow with the highest score is served. A flow's score is
/// `weight_service * (1 - norm(service)) + weight_head_wait * norm(head wait)`. `norm` maps the values of all waiting
/// flows to 0..=1, and gives 0.5 if all are equal. Service is prompt tokens plus twice the completion tokens, and halves
/// every `half_life`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgramAware {
    /// The weight of the service term; finite and at least 0.
    pub weight_service: f64,
    /// The weight of the wait of the flow's first request; finite and at least 0.
    pub weight_head_wait: f64,
    /// The time after which past service counts half; `None` counts it in full for ever.
    pub half_life: Option<Duration>,
    /// The idle time after which a program is forgotten; `None` never forgets a program.
    pub eviction_ttl: Option<Duration>,
    /// The time between two searches for idle programs; more than 0.
    pub eviction_sweep: Duration,
}

impl Default for ProgramAware {
    fn default() -> Self {
        Self {
            weight_service: 0.8,
            weight_head_wait: 0.2,
            half_life: Some(Duration::from_mins(1)),
            eviction_ttl: Some(Duration::from_hours(1)),
            eviction_sweep: Duration::from_mins(5),
        }
    }
}

/// A policy for the share of the pool that each band may fill. A band is held while the saturation is at or above its
/// ceiling.
#[derive(Clone, Debug, PartialEq)]
pub enum UsageLimit {
    /// The same ceiling for all bands.
    Static {
        /// The ceiling; finite. 1 is a full pool. At 0 or less no request is released.
        threshold: f64,
    },
    /// The ceilings fall evenly from the most important band to the least important one. The room above a band's
    /// ceiling is kept for more important requests.
    PriorityHoldback {
        /// The ceiling of the least important band, in [0, 1) and less than `max_ceiling`.
        min_ceiling: f64,
        /// The ceiling of the most important band, in (0, 1].
        max_ceiling: f64,
        /// The measure by which the ceilings fall evenly.
        domain: HoldbackDomain,
    },
    /// The most important band is never limited. The other bands are released more rarely the fuller the pool is.
    SoftReflectiveCeiling,
}

impl Default for UsageLimit {
    fn default() -> Self {
        Self::Static { threshold: 1.0 }
    }
}

/// The measure by which the ceilings of [`UsageLimit::PriorityHoldback`] fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldbackDomain {
    /// The band's place among the bands.
    #[default]
    Rank,
    /// The band's priority as a number.
    Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: Option<Duration> = Some(Duration::ZERO);
    const SOME: Option<Duration> = Some(Duration::from_secs(7));

    #[test]
    fn waits_are_a_minute_and_ten_minutes_without_endpoints_if_none_is_written() {
        assert_eq!(request_ttl(None), Some(Duration::from_mins(1)));
        assert_eq!(no_endpoint_ttl(None, None), Some(Duration::from_mins(10)));
    }

    #[test]
    fn the_wait_without_endpoints_follows_the_other_one_if_only_that_is_written() {
        assert_eq!(no_endpoint_ttl(None, SOME), SOME);
        assert_eq!(no_endpoint_ttl(SOME, ZERO), SOME);
        assert_eq!((request_ttl(ZERO), no_endpoint_ttl(None, ZERO)), (None, None));
        assert_eq!(no_endpoint_ttl(ZERO, SOME), None);
    }

    #[test]
    fn a_band_of_its_own_comes_before_the_default_for_its_sign() {
        let small = BandSettings { max_requests: 1, ..BandSettings::default() };
        let smaller = BandSettings { max_requests: 2, ..BandSettings::default() };
        let mut settings =
            FlowSettings { default_negative_band: Some(small.clone()), ..FlowSettings::default() };
        settings.bands.insert(-5, smaller);
        let limits: Vec<u64> = [-5, -1, 0, 4].iter().map(|p| settings.band(*p).max_requests).collect();
        assert_eq!(limits, [2, 1, 5000, 5000]);
        settings.default_negative_band = None;
        assert_eq!(settings.band(-1).max_requests, 5000);
    }
}
