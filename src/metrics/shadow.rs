//! Series of the shadow: a second configuration that decides beside the running one, without effect.

use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Registry,
};

use super::family::{Definition, Family};

const ACTIVE: Definition<0> =
    Definition::new("pointsman_shadow_active", "1 while a second configuration decides in the shadow.", []);

const REQUESTS: Definition<1> = Definition::new(
    "pointsman_shadow_requests_total",
    "Requests that the shadow could decide, by whether it did: compared, skipped for its share of CPU, bound to a \
     server by their conversation, or failed.",
    ["result"],
);

const DECISIONS: Definition<2> = Definition::new(
    "pointsman_shadow_decisions_total",
    "Choices of the shadow beside those of the running configuration, by profile and result.",
    ["profile", "result"],
);

const AGREEMENT: Definition<1> = Definition::new(
    "pointsman_shadow_agreement_ratio",
    "Share of the choices on which the shadow and the running configuration agree, since the shadow was loaded.",
    ["profile"],
);

const REGRET: Definition<2> = Definition::new(
    "pointsman_shadow_regret",
    "By how much the choice of one configuration scores worse under the totals of the other, where they differ.",
    ["profile", "choice"],
)
.buckets(&[0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]);

const RULED_OUT: Definition<2> = Definition::new(
    "pointsman_shadow_ruled_out_total",
    "Choices of one configuration that the filters of the other rule out.",
    ["profile", "choice"],
);

const CACHED: Definition<2> = Definition::new(
    "pointsman_shadow_predicted_cached_tokens_total",
    "Tokens of prompts that the chosen endpoints are believed to hold, by whose choice it is.",
    ["profile", "choice"],
);

const SECONDS: Definition<1> = Definition::new(
    "pointsman_shadow_seconds_total",
    "Time that scheduling took while a shadow was there: of the running configuration, and of the shadow beside it.",
    ["choice"],
);

const PANICS: Definition<0> = Definition::new(
    "pointsman_shadow_panics_total",
    "Panics in the shadow. No request notices one; after three the shadow is switched off.",
    [],
);

/// Whose choice something is.
const SHADOW: &str = "shadow";
const RUNNING: &str = "running";

/// Families of these series. Nothing shows before a shadow is there.
#[derive(Clone)]
pub(super) struct ShadowFamilies {
    active: Family<GaugeVec, 0>,
    requests: Family<IntCounterVec, 1>,
    decisions: Family<IntCounterVec, 2>,
    agreement: Family<GaugeVec, 1>,
    regret: Family<HistogramVec, 2>,
    ruled_out: Family<IntCounterVec, 2>,
    cached: Family<IntCounterVec, 2>,
    seconds: Family<CounterVec, 1>,
    panics: Family<IntCounterVec, 0>,
}

impl ShadowFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            active: Family::register(ACTIVE, registry),
            requests: Family::register(REQUESTS, registry),
            decisions: Family::register(DECISIONS, registry),
            agreement: Family::register(AGREEMENT, registry),
            regret: Family::register(REGRET, registry),
            ruled_out: Family::register(RULED_OUT, registry),
            cached: Family::register(CACHED, registry),
            seconds: Family::register(SECONDS, registry),
            panics: Family::register(PANICS, registry),
        }
    }

    pub(super) fn handles(&self) -> ShadowMetrics {
        let requests = |result| self.requests.child([result]).into_current();
        ShadowMetrics {
            active: self.active.child([]).into_current(),
            compared: requests("compared"),
            skipped: requests("skipped"),
            bound: requests("bound"),
            failed: requests("failed"),
            shadow_seconds: self.seconds.child([SHADOW]).into_current(),
            running_seconds: self.seconds.child([RUNNING]).into_current(),
            panics: self.panics.child([]).into_current(),
            families: self.clone(),
        }
    }
}

/// Handles of these series. Cheap to clone.
#[derive(Clone)]
pub struct ShadowMetrics {
    active: Gauge,
    compared: IntCounter,
    skipped: IntCounter,
    bound: IntCounter,
    failed: IntCounter,
    shadow_seconds: Counter,
    running_seconds: Counter,
    panics: IntCounter,
    families: ShadowFamilies,
}

impl std::fmt::Debug for ShadowMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShadowMetrics")
    }
}

impl ShadowMetrics {
    /// Sets whether a shadow decides.
    pub fn active(&self, active: bool) {
        self.active.set(f64::from(u8::from(active)));
    }

    /// Counts a request that was decided twice.
    pub fn compared(&self) {
        self.compared.inc();
    }

    /// Counts a request for which the share of CPU was used up.
    pub fn skipped(&self) {
        self.skipped.inc();
    }

    /// Counts a request that goes where its conversation is.
    pub fn bound(&self) {
        self.bound.inc();
    }

    /// Counts a panic.
    pub fn panicked(&self) {
        self.failed.inc();
        self.panics.inc();
    }

    /// Adds time that scheduling took: of the running configuration, and of the shadow.
    pub fn spent(&self, running: f64, shadow: f64) {
        self.running_seconds.inc_by(running.max(0.0));
        self.shadow_seconds.inc_by(shadow.max(0.0));
    }

    /// Handles of a profile.
    pub fn profile(&self, profile: &str) -> ShadowProfileMetrics {
        let decisions = |result| self.families.decisions.child([profile, result]).into_current();
        let side = |choice| SideMetrics {
            regret: self.families.regret.child([profile, choice]).into_current(),
            ruled_out: self.families.ruled_out.child([profile, choice]).into_current(),
            cached: self.families.cached.child([profile, choice]).into_current(),
        };
        ShadowProfileMetrics {
            agree: decisions("agree"),
            differ: decisions("differ"),
            only_shadow: decisions("only_shadow"),
            only_running: decisions("only_running"),
            agreement: self.families.agreement.child([profile]).into_current(),
            shadow: side(SHADOW),
            running: side(RUNNING),
        }
    }
}

/// What is counted of one configuration's choices.
#[derive(Clone, Debug)]
struct SideMetrics {
    regret: Histogram,
    ruled_out: IntCounter,
    cached: IntCounter,
}

impl SideMetrics {
    fn regrets(&self, regret: Option<f64>) {
        match regret {
            Some(regret) => self.regret.observe(regret),
            None => self.ruled_out.inc(),
        }
    }
}

/// Handles of the series of one profile.
#[derive(Clone, Debug)]
pub struct ShadowProfileMetrics {
    agree: IntCounter,
    differ: IntCounter,
    only_shadow: IntCounter,
    only_running: IntCounter,
    agreement: Gauge,
    shadow: SideMetrics,
    running: SideMetrics,
}

impl ShadowProfileMetrics {
    /// Counts a choice that is the same.
    pub fn agrees(&self) {
        self.agree.inc();
    }

    /// Counts a choice that differs. Each side's regret is how much worse its choice scores under the other one; `None`
    /// if that rules it out.
    pub fn differs(&self, of_shadow: Option<f64>, of_running: Option<f64>) {
        self.differ.inc();
        self.shadow.regrets(of_shadow);
        self.running.regrets(of_running);
    }

    /// Counts a choice that one of them alone makes: the shadow, or the running configuration.
    pub fn alone(&self, shadow: bool) {
        if shadow { self.only_shadow.inc() } else { self.only_running.inc() }
    }

    /// Adds the tokens that the choices of both are believed to hold.
    pub fn cached(&self, running: u64, shadow: u64) {
        self.running.cached.inc_by(running);
        self.shadow.cached.inc_by(shadow);
    }

    /// Sets the share of choices on which both agree.
    pub fn agreement(&self, share: f64) {
        self.agreement.set(share);
    }
}
