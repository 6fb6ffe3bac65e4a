//! Settings of flow control, as plain values. What the configuration file says is turned into these, checked, by
//! `config`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::detector::Detector;

/// Longest wait in a pool with endpoints, unless set.
pub const DEFAULT_REQUEST_TTL: Duration = Duration::from_mins(1);

/// Longest wait in a pool without endpoints if no wait at all is set: enough for a server to be scheduled, to load its
/// model and to answer. The reference waits for one minute.
pub const DEFAULT_NO_ENDPOINT_TTL: Duration = Duration::from_mins(10);

/// Bytes that may wait in a band, unless set.
pub const DEFAULT_BAND_BYTES: u64 = 1_000_000_000;

/// Requests that may wait in a band, unless set.
pub const DEFAULT_BAND_REQUESTS: u64 = 5000;

/// Flow of requests that name none.
pub const DEFAULT_FLOW: &str = "default-flow";

/// The settings of one pool's queues.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSettings {
    /// Bytes of request bodies that may wait in all; `None` is unlimited.
    pub max_bytes: Option<u64>,
    /// Requests that may wait in all; `None` is unlimited.
    pub max_requests: Option<u64>,
    /// Longest wait while the pool has endpoints; `None` is forever.
    pub default_request_ttl: Option<Duration>,
    /// Longest wait while the pool has none; `None` is forever. See [`no_endpoint_ttl`] for what it is if unset.
    pub no_endpoint_request_ttl: Option<Duration>,
    /// The band of a priority that has none of its own.
    pub default_band: BandSettings,
    /// The same for priorities below 0; `None` for [`FlowSettings::default_band`].
    pub default_negative_band: Option<BandSettings>,
    /// Bands by priority that exist from the start and stay. Priority 0 is always among them.
    pub bands: BTreeMap<i32, BandSettings>,
    /// The share of the pool that each band may fill.
    pub usage_limit: UsageLimit,
    /// Requests below priority 0 that run already may be stopped to make room for more important ones.
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
    /// Settings of the band of `priority`: its own, else the default for its sign.
    pub fn band(&self, priority: i32) -> &BandSettings {
        let fallback = match &self.default_negative_band {
            Some(band) if priority < 0 => band,
            _ => &self.default_band,
        };
        self.bands.get(&priority).unwrap_or(fallback)
    }
}

/// The wait without endpoints from what was written, where `Some(0)` is forever: the value itself, else the wait with
/// endpoints if that one is written, else [`DEFAULT_NO_ENDPOINT_TTL`].
pub fn no_endpoint_ttl(written: Option<Duration>, request_ttl: Option<Duration>) -> Option<Duration> {
    let ttl = written.or(request_ttl).unwrap_or(DEFAULT_NO_ENDPOINT_TTL);
    (!ttl.is_zero()).then_some(ttl)
}

/// The wait with endpoints from what was written, where `Some(0)` is forever.
pub fn request_ttl(written: Option<Duration>) -> Option<Duration> {
    let ttl = written.unwrap_or(DEFAULT_REQUEST_TTL);
    (!ttl.is_zero()).then_some(ttl)
}

/// One priority band.
#[derive(Clone, Debug, PartialEq)]
pub struct BandSettings {
    /// Bytes of request bodies that may wait in the band; at least 1.
    pub max_bytes: u64,
    /// Requests that may wait in the band; at least 1.
    pub max_requests: u64,
    /// Longest wait while the pool has endpoints; zero is forever, `None` is [`FlowSettings::default_request_ttl`].
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
    /// The request that arrived first.
    #[default]
    Fcfs,
    /// The request whose wait ends first: its arrival plus its longest wait. Requests without a bound come last. Equal
    /// deadlines are ordered by arrival.
    Edf,
    /// The request whose first token is due first: its receipt plus its objective for the time to the first token.
    /// Requests without an objective come last. Equal deadlines are ordered by receipt.
    SloDeadline,
}

/// A policy that chooses the flow of a band that is served next.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Fairness {
    /// Flows have no shares. The band's ordering chooses the best head of all flows.
    #[default]
    GlobalStrict,
    /// One request per flow in turn, in the order in which they began to wait.
    RoundRobin,
    /// The program that got the least service; the wait of its head also counts. The flow id names the program. All
    /// bands with this policy share the programs.
    ProgramAware(ProgramAware),
    /// The session with the highest turn; the wait of its head also counts. The flow id names the session. All bands
    /// with this policy share the sessions.
    TurnPriority(TurnPriority),
}

/// Parameters of [`Fairness::TurnPriority`]. A flow's score is `turn + time_weight * seconds that its head waits`; the
/// highest score is served. `turn` is the number of requests that were released for the session, plus one.
#[derive(Clone, Debug, PartialEq)]
pub struct TurnPriority {
    /// Turns that a second of waiting is worth; finite and at least 0.
    pub time_weight: f64,
    /// Idle time after which a session begins at turn one again; `None` never does.
    pub inactivity: Option<Duration>,
    /// Idle time after which a session is forgotten; `None` never forgets.
    pub eviction_ttl: Option<Duration>,
    /// How often idle sessions are looked for; more than 0.
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
    /// Weight of little service; finite and at least 0.
    pub weight_service: f64,
    /// Weight of the head's wait; finite and at least 0.
    pub weight_head_wait: f64,
    /// Time after which service counts half; `None` counts it in full for good.
    pub half_life: Option<Duration>,
    /// Idle time after which a program is forgotten; `None` never forgets.
    pub eviction_ttl: Option<Duration>,
    /// Time between two searches for idle programs; more than 0.
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
        /// The ceiling; finite. 1 is a full pool, at or below 0 nothing is let through.
        threshold: f64,
    },
    /// Ceilings fall evenly from the first band to the last, which keeps the rest for more important requests.
    PriorityHoldback {
        /// Ceiling of the last band, in [0, 1) and less than `max_ceiling`.
        min_ceiling: f64,
        /// Ceiling of the first band, in (0, 1].
        max_ceiling: f64,
        /// The measure of "evenly".
        domain: HoldbackDomain,
    },
    /// The first band is never limited; the others are let through ever more rarely the fuller the pool is.
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
