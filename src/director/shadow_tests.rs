//! A shadow beside requests through the director.

#![allow(clippy::float_cmp, reason = "the numbers compared are counts and sums of small whole ones")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use fastrand::Rng;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::tests::{COMPLETION, ask, handle, parts};
use super::{Beside, Director, DirectorParts, Hook, ResponseSide, Shadow, ShadowParts};
use crate::decisions::Decisions;
use crate::metrics::Metrics;
use crate::plugins::profiles::single;
use crate::request::{Headers, MediaEstimate, Parsers};
use crate::scheduling::{
    Call, Category, DecidedCall, EndedCall, Entry, HeaderEdits, Picker, PluginState, PreRequest,
    PreRequestError, Profile, ProfilePlugin, ResponseEndHook, Scheduler, Scorer, WeightedScorer,
};

/// Gives each endpoint, in the order of the pool, the score at its place.
struct Fixed([f64; 3]);

impl Scorer for Fixed {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        for (score, slot) in out.iter_mut().zip(call.slots()) {
            *score = self.0[call.candidates().place(*slot) as usize];
        }
    }
}

struct Panics;

impl Scorer for Panics {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(&self, _: &Call<'_>, _: &mut [f64]) {
        panic!("a plugin of the shadow");
    }
}

struct Highest;

impl Picker for Highest {
    fn pick(&self, _: &Call<'_>, totals: &[f64], _: &mut Rng, picked: &mut SmallVec<[u32; 4]>) {
        let best = (0..totals.len()).max_by(|a, b| totals[*a].total_cmp(&totals[*b]));
        picked.extend(best.map(|best| best as u32));
    }
}

/// Hears of requests, and where they really went.
#[derive(Default)]
struct Hears {
    sent: Mutex<Vec<String>>,
    ended: AtomicU64,
}

impl PreRequest for Hears {
    fn before_forward(
        &self,
        call: &DecidedCall<'_>,
        edits: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        edits.set("x-of-the-shadow", "1");
        self.sent.lock().push(call.decision.targets()[0].id().to_string());
        Ok(Some(Box::new(7_u32)))
    }
}

impl ResponseEndHook for Hears {
    fn on_response_end(&self, _: &EndedCall<'_>, state: &mut PluginState) {
        let kept = state.take().and_then(|state| state.downcast::<u32>().ok());
        self.ended.fetch_add(u64::from(*kept.expect("its own state")), Relaxed);
    }
}

type Scorers = Vec<(Arc<dyn Scorer>, f64)>;

fn scheduler(scorers: Scorers) -> Scheduler {
    let scorers = scorers.into_iter().map(|(scorer, weight)| WeightedScorer {
        scorer: ProfilePlugin::new("fixed", "fixed", scorer),
        weight,
    });
    let profile = Profile {
        name: "default".into(),
        filters: Vec::new(),
        scorers: scorers.collect(),
        picker: ProfilePlugin::new("highest", "highest", Arc::new(Highest)),
    };
    let handler = ProfilePlugin::new("single", "single", single_handler());
    Scheduler::new(vec![profile], handler, None)
}

fn single_handler() -> Arc<dyn crate::scheduling::ProfileHandler> {
    let metrics = Arc::new(Metrics::new());
    let mut columns = Vec::new();
    let mut cx = crate::plugins::BuildCx::new("single", None, &metrics, &mut columns, 1);
    (single::TYPE.build)(&mut cx).ok().and_then(|roles| roles.profile_handler).expect("a handler")
}

fn shadow(scorers: Scorers, hooks: Vec<Hook>, share: f64, metrics: &Metrics) -> Arc<Shadow> {
    Arc::new(Shadow::new(ShadowParts {
        scheduler: scheduler(scorers),
        entry: Entry::default(),
        producers: Vec::new(),
        own_producers: Vec::new(),
        own_hooks: hooks,
        media: MediaEstimate::DEFAULT,
        shown_matches: None,
        shares_columns: true,
        running_profiles: vec!["default".into()],
        generation: 1,
        share,
        metrics: metrics.shadow(),
    }))
}

/// Endpoints 8000, 8001 and 8002 score 1, 0.5 and 0 by the first scorer and the reverse by the second one.
fn both(first: f64, second: f64) -> Scorers {
    vec![(Arc::new(Fixed([1.0, 0.5, 0.0])), first), (Arc::new(Fixed([0.0, 0.5, 1.0])), second)]
}

/// A director whose records are kept, with this shadow.
fn director(
    make: impl FnOnce(&Metrics) -> Option<Arc<Shadow>>,
) -> (Director, Decisions, Option<Arc<Shadow>>) {
    let parts = parts(&[8000, 8001, 8002], &Parsers::default());
    let beside = Arc::new(Beside::new(None, Instant::now()));
    let shadow = make(&parts.metrics);
    beside.cast(shadow.clone());
    let decisions = Decisions::new(1 << 20, parts.metrics.records());
    let director = Director::new(DirectorParts {
        scheduler: scheduler(both(2.0, 1.0)),
        decisions: Some(decisions.clone()),
        beside: Some(beside),
        ..parts
    });
    (director, decisions, shadow)
}

fn page(director: &Director) -> String {
    director.parts.metrics.encode(crate::metrics::Format::Text)
}

fn value(director: &Director, series: &str) -> f64 {
    let page = page(director);
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[test]
fn another_weight_gives_the_regret_that_a_hand_calculation_gives() {
    // Running: 2 + 0, 1 + 0.5, 0 + 1. Shadow: 1 + 0, 0.5 + 1.5, 0 + 3.
    let (director, decisions, _) =
        director(|metrics| Some(shadow(both(1.0, 3.0), Vec::new(), 10.0, metrics)));
    let routed = handle(&director, ask(COMPLETION, Headers::new())).unwrap();
    assert_eq!(routed.destination, "10.0.0.1:8000", "the shadow changes nothing");
    let series =
        |choice: &str| format!("pointsman_shadow_regret_sum{{choice=\"{choice}\",profile=\"default\"}}");
    assert_eq!((value(&director, &series("shadow")), value(&director, &series("running"))), (1.0, 2.0));
    let result = |result: &str| {
        value(
            &director,
            &format!("pointsman_shadow_decisions_total{{profile=\"default\",result=\"{result}\"}}"),
        )
    };
    assert_eq!((result("differ"), result("agree")), (1.0, 0.0));
    let record = decisions.all().remove(0).view();
    let seen = record.shadow.unwrap();
    assert_eq!(
        (record.endpoint.as_deref(), seen.endpoint.as_deref()),
        (Some("default/pod-8000"), Some("default/pod-8002"))
    );
    assert_eq!((seen.score, seen.margin, seen.agrees), (Some(3.0), Some(1.0), false));
    assert_eq!((seen.regret_of_shadow, seen.regret_of_running), (Some(1.0), Some(2.0)));
    let totals: Vec<f64> = seen.profiles[0].rows.iter().map(|row| row.total).collect();
    assert_eq!(totals, [1.0, 2.0, 3.0]);
}

#[test]
fn a_shadow_with_the_same_weights_agrees() {
    let (director, _, shadow) = director(|metrics| Some(shadow(both(2.0, 1.0), Vec::new(), 10.0, metrics)));
    for _ in 0..20 {
        drop(handle(&director, ask(COMPLETION, Headers::new())).unwrap());
    }
    let standing = shadow.unwrap().standing();
    let (_, all, same) = &standing.profiles[0];
    assert!(*all > 0 && all == same, "{standing:?}");
    assert_eq!(value(&director, "pointsman_shadow_agreement_ratio{profile=\"default\"}"), 1.0);
}

#[test]
fn a_shadow_that_panics_costs_no_request_and_is_switched_off() {
    let (director, _, shadow) =
        director(|metrics| Some(shadow(vec![(Arc::new(Panics), 1.0)], Vec::new(), 10.0, metrics)));
    let shadow = shadow.unwrap();
    // A panic may take longer than the share that a request earns, so that not every request is compared.
    while shadow.standing().active {
        let routed = handle(&director, ask(COMPLETION, Headers::new())).unwrap();
        assert_eq!(routed.destination, "10.0.0.1:8000");
    }
    let standing = shadow.standing();
    assert_eq!((standing.active, standing.panics), (false, 3), "{standing:?}");
    assert_eq!(value(&director, "pointsman_shadow_panics_total"), 3.0);
    assert_eq!(value(&director, "pointsman_shadow_active"), 0.0);
    let load: u64 = director.pool().snapshot().endpoints().iter().map(|it| it.load().in_flight()).sum();
    assert_eq!(load, 0);
}

#[test]
fn plugins_of_the_shadow_alone_follow_every_request_to_where_it_really_went() {
    let heard = Arc::new(Hears::default());
    let hook = Hook {
        before: Some(ProfilePlugin::new("hears", "hears", Arc::clone(&heard) as Arc<dyn PreRequest>)),
        response: None,
        end: Some(ProfilePlugin::new("hears", "hears", Arc::clone(&heard) as Arc<dyn ResponseEndHook>)),
    };
    let (director, ..) = director(|metrics| Some(shadow(both(1.0, 3.0), vec![hook], 1e-9, metrics)));
    let skipped = || value(&director, "pointsman_shadow_requests_total{result=\"skipped\"}");
    let mut sent = 0;
    while skipped() < 20.0 {
        let mut routed = handle(&director, ask(COMPLETION, Headers::new())).unwrap();
        assert!(!routed.edits.set.iter().any(|(name, _)| name == "x-of-the-shadow"));
        routed.exchange.on_headers(&Headers::from([(":status", "200")]), None, true);
        sent += 1;
    }
    let places = heard.sent.lock().clone();
    assert_eq!(places, vec!["default/pod-8000".to_owned(); sent], "compared or not");
    assert_eq!(heard.ended.load(Relaxed), 7 * sent as u64);
    let spent =
        |choice: &str| value(&director, &format!("pointsman_shadow_seconds_total{{choice=\"{choice}\"}}"));
    assert!(spent("shadow") > 0.0 && spent("running") > 0.0);
}
