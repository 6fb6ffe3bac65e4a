//! The cycle, with plugins that do what a test tells them.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::pool::{Endpoint, EndpointId, EndpointSpec, Pool, Subset};
use crate::request::{Headers, Inference};
use crate::scheduling::{Candidates, Category, Column, Columns, Produced, RequestView};

type Log = Arc<Mutex<Vec<String>>>;

/// A filter that keeps endpoints whose names please, and notes whom it saw.
struct Keep<F> {
    name: &'static str,
    log: Log,
    pleases: F,
}

fn names(call: &Call<'_>) -> String {
    let names: Vec<&str> = call.endpoints().map(|endpoint| endpoint.id().name()).collect();
    names.join("")
}

impl<F: Fn(&str) -> bool + Send + Sync> Filter for Keep<F> {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        self.log.lock().push(format!("{}:{}", self.name, names(call)));
        keep.retain(call.endpoints(), |endpoint| (self.pleases)(endpoint.id().name()));
    }
}

/// A scorer with a score for each endpoint name.
struct Give(&'static [(&'static str, f64)]);

impl Scorer for Give {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        assert!(out.iter().all(|score| *score == 0.0));
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            let given = self.0.iter().find(|(name, _)| *name == endpoint.id().name());
            *score = given.map_or(0.0, |(_, score)| *score);
        }
    }
}

/// A picker of the highest totals, ties by position; with a limit.
struct Best(usize);

impl Picker for Best {
    fn pick(&self, _call: &Call<'_>, totals: &[f64], _rng: &mut Rng, picked: &mut SmallVec<[u32; 4]>) {
        let mut order: Vec<u32> = (0..totals.len() as u32).collect();
        order.sort_by(|a, b| totals[*b as usize].total_cmp(&totals[*a as usize]));
        picked.extend(order.into_iter().take(self.0));
    }
}

/// A handler that asks for the given profiles round by round; the primary is the first, which must have a result.
struct Rounds(Vec<Vec<usize>>, Mutex<usize>);

impl ProfileHandler for Rounds {
    fn pick(&self, _call: &Call<'_>, _names: &[Arc<str>], _results: &mut Results) -> SmallVec<[usize; 2]> {
        let mut round = self.1.lock();
        *round += 1;
        self.0.get(*round - 1).cloned().unwrap_or_default().into()
    }

    fn conclude(
        &self,
        _names: &[Arc<str>],
        results: &Results,
        errors: &mut SmallVec<[(usize, ScheduleError); 1]>,
    ) -> Result<usize, ScheduleError> {
        match results.first() {
            Some(ProfileRun::Chose(_)) => Ok(0),
            _ => Err(errors.pop().map_or(ScheduleError::NoProfile("none".into()), |(_, error)| error)),
        }
    }

    fn peer(&self, _names: &[Arc<str>], results: &Results, _next: &[usize]) -> Option<Arc<Endpoint>> {
        results[0].result()?.targets.first().cloned()
    }

    fn proxy_port(&self) -> Option<u16> {
        Some(9000)
    }
}

/// A filter that notes the peer it saw.
struct SeesPeer(Log);

impl Filter for SeesPeer {
    fn narrow(&self, call: &Call<'_>, _keep: &mut Mask) {
        self.0.lock().push(call.peer().map_or("nobody", |peer| peer.id().name()).to_owned());
    }
}

fn named<T: ?Sized>(plugin: Arc<T>) -> ProfilePlugin<T> {
    ProfilePlugin::new("plugin", "plugin", plugin)
}

fn profile(
    name: &str,
    filters: Vec<Arc<dyn Filter>>,
    scorers: Vec<(Arc<dyn Scorer>, f64)>,
    picker: Best,
) -> Profile {
    Profile {
        name: name.into(),
        filters: filters.into_iter().map(named).collect(),
        scorers: scorers
            .into_iter()
            .map(|(scorer, weight)| WeightedScorer { scorer: named(scorer), weight })
            .collect(),
        picker: named(Arc::new(picker)),
    }
}

fn scheduler(profiles: Vec<Profile>, rounds: &[&[usize]]) -> Scheduler {
    let rounds = rounds.iter().map(|round| round.to_vec()).collect();
    Scheduler::new(profiles, named(Arc::new(Rounds(rounds, Mutex::default()))), None)
}

/// Endpoints `a`, `b`, `c`, `d`.
fn candidates() -> Candidates {
    let pool = Pool::new("default", "pool", Instant::now());
    let spec = |(name, last): (&str, u8)| {
        EndpointSpec::new(EndpointId::new("default", name), SocketAddr::from(([10, 0, 0, last], 80)))
    };
    pool.replace_endpoints([("a", 1), ("b", 2), ("c", 3), ("d", 4)].map(spec).into());
    Candidates::all(pool.snapshot())
}

fn schedule(scheduler: &Scheduler, candidates: &Candidates) -> Result<Decision, ScheduleError> {
    let request = RequestView {
        id: "request-1",
        target_model: "m",
        headers: &Headers::new(),
        body: &Bytes::new(),
        inference: &Inference::opaque(),
        tokens: None,
        findings: &[],
        media: &crate::request::MediaEstimate::DEFAULT,
        priority: 0,
        fairness_id: "default",
    };
    let (columns, mut rng) = (Columns::new(), Rng::with_seed(1));
    let everyone = candidates.slots();
    let call = Call::new(request, Instant::now(), candidates, &everyone, &columns);
    scheduler.schedule(&call, &mut rng, None)
}

fn targets(result: &ProfileResult) -> String {
    result.targets.iter().map(|endpoint| endpoint.id().name()).collect::<Vec<_>>().join("")
}

fn keep(
    name: &'static str,
    log: &Log,
    keep: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Arc<dyn Filter> {
    Arc::new(Keep { name, log: Arc::clone(log), pleases: keep })
}

#[test]
fn filters_run_in_order_on_what_the_last_one_left_until_nothing_is_left() {
    let log = Log::default();
    let filters = vec![
        keep("first", &log, |name| name != "b"),
        keep("second", &log, |name| name != "a"),
        keep("third", &log, |name| name == "b"),
        keep("fourth", &log, |_| true),
    ];
    let scheduler = scheduler(vec![profile("p", filters, vec![], Best(1))], &[&[0]]);
    assert_eq!(schedule(&scheduler, &candidates()).unwrap_err(), ScheduleError::NothingLeft);
    assert_eq!(*log.lock(), ["first:abcd", "second:acd", "third:cd"]);
}

#[test]
fn survivors_keep_their_slots_and_all_of_them_are_reported() {
    let log = Log::default();
    let filters = vec![keep("f", &log, |name| name == "b" || name == "d")];
    let scores: Arc<dyn Scorer> = Arc::new(Give(&[("a", 1.0), ("b", 0.25), ("d", 0.75)]));
    let scheduler = scheduler(vec![profile("p", filters, vec![(scores, 2.0)], Best(9))], &[&[0]]);
    let decision = schedule(&scheduler, &candidates()).unwrap();
    let result = decision.primary_result().unwrap();
    assert_eq!(result.scored, [(1, 0.5), (3, 1.5)]);
    assert_eq!(targets(result), "db");
}

#[test]
fn scores_are_clamped_weighted_and_summed() {
    let one: Arc<dyn Scorer> = Arc::new(Give(&[("a", 0.5), ("b", 7.0), ("c", -7.0), ("d", f64::NAN)]));
    let two: Arc<dyn Scorer> = Arc::new(Give(&[("a", 1.0), ("b", 1.0), ("c", f64::INFINITY)]));
    let scorers = vec![(Arc::clone(&one), 3.0), (two, -0.5), (one, 0.0)];
    let scheduler = scheduler(vec![profile("p", vec![], scorers, Best(4))], &[&[0]]);
    let decision = schedule(&scheduler, &candidates()).unwrap();
    let result = decision.primary_result().unwrap();
    assert_eq!(result.scored, [(0, 1.0), (1, 2.5), (2, -0.5), (3, 0.0)]);
    assert_eq!(targets(result), "badc");
}

#[test]
fn a_negative_weight_is_a_penalty_even_where_all_totals_are_negative() {
    let scores: Arc<dyn Scorer> = Arc::new(Give(&[("a", 0.9), ("b", 0.1), ("c", 0.5), ("d", 1.0)]));
    let scheduler = scheduler(vec![profile("p", vec![], vec![(scores, -1.0)], Best(1))], &[&[0]]);
    let decision = schedule(&scheduler, &candidates()).unwrap();
    assert_eq!(targets(decision.primary_result().unwrap()), "b");
}

#[test]
fn without_scorers_every_total_is_zero() {
    let scheduler = scheduler(vec![profile("p", vec![], vec![], Best(2))], &[&[0]]);
    let decision = schedule(&scheduler, &candidates()).unwrap();
    let scored = &decision.primary_result().unwrap().scored;
    assert!(!scored.is_empty() && scored.iter().all(|(_, total)| *total == 0.0), "{scored:?}");
    assert_eq!(decision.targets().len(), 2);
}

#[test]
fn a_picker_that_picks_nobody_leaves_nothing() {
    let scheduler = scheduler(vec![profile("p", vec![], vec![], Best(0))], &[&[0]]);
    assert_eq!(schedule(&scheduler, &candidates()).unwrap_err(), ScheduleError::NothingLeft);
}

#[test]
fn each_profile_starts_from_all_candidates() {
    let log = Log::default();
    let profiles = vec![
        profile("decode", vec![keep("one", &log, |name| name == "a")], vec![], Best(1)),
        profile("prefill", vec![keep("two", &log, |name| name == "b")], vec![], Best(1)),
        profile("unused", vec![keep("three", &log, |_| true)], vec![], Best(1)),
    ];
    let scheduler = scheduler(profiles, &[&[0], &[1]]);
    let decision = schedule(&scheduler, &candidates()).unwrap();
    assert_eq!(*log.lock(), ["one:abcd", "two:abcd"]);
    assert_eq!(decision.primary, 0);
    let chosen: Vec<Option<String>> =
        decision.profiles.iter().map(|result| result.as_ref().map(targets)).collect();
    assert_eq!(chosen, [Some("a".to_owned()), Some("b".to_owned()), None]);
}

#[test]
fn a_secondary_profile_may_fail_and_the_primary_may_not() {
    let log = Log::default();
    let nothing = || vec![keep("nothing", &log, |_| false)];
    let decode = || profile("decode", vec![], vec![], Best(1));
    let works = scheduler(vec![decode(), profile("prefill", nothing(), vec![], Best(1))], &[&[0, 1]]);
    let decision = schedule(&works, &candidates()).unwrap();
    assert!(decision.profiles[0].is_some() && decision.profiles[1].is_none());
    let fails = scheduler(vec![profile("decode", nothing(), vec![], Best(1)), decode()], &[&[0, 1]]);
    assert!(schedule(&fails, &candidates()).unwrap_err().is_nothing_left());
}

#[test]
fn no_profile_at_all_is_an_error_that_names_the_request() {
    let scheduler = scheduler(vec![profile("p", vec![], vec![], Best(1))], &[]);
    let error = schedule(&scheduler, &candidates()).unwrap_err();
    assert_eq!(error.to_string(), "failed to run any scheduler profile for request request-1");
}

#[test]
fn a_handler_that_never_ends_and_names_unknown_profiles_is_stopped() {
    let endless: Vec<&[usize]> = vec![&[0, 7]; 1000];
    let scheduler = scheduler(vec![profile("p", vec![], vec![], Best(1))], &endless);
    assert_eq!(schedule(&scheduler, &candidates()).unwrap().targets().len(), 1);
}

#[test]
fn a_subset_is_all_a_profile_sees() {
    let log = Log::default();
    let subset = Subset::parse(["10.0.0.2", "10.0.0.4:80", "10.0.0.9:81"]).unwrap();
    let candidates = Candidates::within(Arc::clone(candidates().snapshot()), &subset);
    assert_eq!((candidates.len(), candidates.place(1)), (2, 3));
    let scheduler = scheduler(vec![profile("p", vec![keep("f", &log, |_| true)], vec![], Best(9))], &[&[0]]);
    let decision = schedule(&scheduler, &candidates).unwrap();
    assert_eq!(*log.lock(), ["f:bd"]);
    assert_eq!(targets(decision.primary_result().unwrap()), "bd");
}

#[test]
fn columns_follow_the_survivors_and_a_column_of_another_length_is_absent() {
    let candidates = candidates();
    let (cells, fact, missing) = (Column::<u32>::new(0), Column::<u8>::new(3), Column::<u32>::new(1));
    let mut columns = Columns::new();
    columns.insert(Produced::new(cells, vec![10, 11, 12, 13]));
    columns.insert(Produced::new(fact, vec![1]));
    let (headers, body, inference) = (Headers::new(), Bytes::new(), Inference::opaque());
    let request = RequestView {
        id: "",
        target_model: "",
        headers: &headers,
        body: &body,
        inference: &inference,
        tokens: None,
        findings: &[],
        media: &crate::request::MediaEstimate::DEFAULT,
        priority: 0,
        fairness_id: "",
    };
    let call = Call::new(request, Instant::now(), &candidates, &[1, 3], &columns);
    assert_eq!(call.column(cells).unwrap().copied().collect::<Vec<_>>(), [11, 13]);
    assert!(call.column(missing).is_none() && call.column(fact).is_none());
    assert!(call.columns().slice(Column::<u8>::new(0)).is_none());
    assert_eq!(call.columns().slice(fact), Some(&[1][..]));
}

#[test]
fn a_mask_of_any_length_keeps_what_it_is_told() {
    for len in [0, 1, 63, 64, 65, 200] {
        let mut mask = Mask::full(len);
        assert_eq!((mask.count(), mask.len(), mask.contains(len)), (len, len, false));
        mask.retain(0..len, |position| position % 3 == 0);
        assert_eq!(mask.count(), len.div_ceil(3));
        mask.clear(len + 5);
        mask.reset(70);
        assert_eq!(mask.count(), 70);
    }
}

#[test]
fn a_later_round_sees_the_endpoint_that_an_earlier_one_chose_and_the_decision_knows_the_stages() {
    let log = Log::default();
    let decode = profile("decode", vec![], vec![(Arc::new(Give(&[("c", 1.0)])), 1.0)], Best(1));
    let prefill = profile("prefill", vec![Arc::new(SeesPeer(Arc::clone(&log)))], vec![], Best(2));
    let encode = profile("encode", vec![], vec![(Arc::new(Give(&[("d", 1.0), ("b", 0.5)])), 1.0)], Best(2));
    let candidates = candidates();
    let scheduler = scheduler(vec![decode, prefill, encode], &[&[0], &[1, 2]]);
    let decision = schedule(&scheduler, &candidates).unwrap();
    assert_eq!(*log.lock(), ["c"]);
    let name = |endpoint: &Arc<Endpoint>| endpoint.id().name().to_owned();
    assert_eq!(decision.prefill_target().map(name).as_deref(), Some("a"));
    assert_eq!(decision.encode_targets().iter().map(name).collect::<String>(), "db");
    assert_eq!(decision.stage_firsts().map(name).collect::<String>(), "ad");
    assert!(!decision.answers_for_a_stage());
    assert_eq!(decision.address(&decision.targets()[0]), "10.0.0.3:9000");
    let alone = Decision { primary: 1, ..decision };
    assert!(alone.answers_for_a_stage() && alone.prefill_target().is_none());
}

/// Writes down what it is told.
#[derive(Default)]
struct Notes {
    lines: Vec<String>,
    draw: u64,
    totals: Vec<f64>,
    picked: Vec<u32>,
}

impl CycleRecorder for Notes {
    fn begin(&mut self, profile: usize, slots: &[u32]) {
        self.lines.push(format!("profile {profile} over {slots:?}"));
    }

    fn filtered(&mut self, filter: usize, slots: &[u32], keep: &Mask) {
        self.lines.push(format!("filter {filter} kept {} of {slots:?}", keep.count()));
    }

    fn scored(&mut self, scorer: usize, scores: &[f64]) {
        self.lines.push(format!("scorer {scorer} gave {scores:?}"));
    }

    fn picked(&mut self, draw: u64, totals: &[f64], picked: &[u32]) {
        (self.draw, self.totals, self.picked) = (draw, totals.to_vec(), picked.to_vec());
    }
}

#[test]
fn a_recorder_hears_every_number_of_the_choice_and_the_draw_makes_it_again() {
    let log = Log::default();
    let filters = vec![keep("f", &log, |name| name != "b")];
    let scores: Arc<dyn Scorer> = Arc::new(Give(&[("a", 7.0), ("c", 0.25), ("d", -1.0)]));
    let scheduler = scheduler(vec![profile("p", filters, vec![(scores, 2.0)], Best(9))], &[&[0]]);
    let candidates = candidates();
    let request = RequestView {
        id: "request-1",
        target_model: "m",
        headers: &Headers::new(),
        body: &Bytes::new(),
        inference: &Inference::opaque(),
        tokens: None,
        findings: &[],
        media: &crate::request::MediaEstimate::DEFAULT,
        priority: 0,
        fairness_id: "default",
    };
    let (columns, everyone) = (Columns::new(), candidates.slots());
    let call = Call::new(request, Instant::now(), &candidates, &everyone, &columns);
    let mut notes = Notes::default();
    let mut rng = Rng::with_seed(5);
    rng.u64(..);
    let before = rng.get_seed();
    scheduler.schedule_recorded(&call, &mut rng, None, Some(&mut notes)).unwrap();
    assert_eq!(
        notes.lines,
        ["profile 0 over [0, 1, 2, 3]", "filter 0 kept 3 of [0, 1, 2, 3]", "scorer 0 gave [7.0, 0.25, -1.0]"]
    );
    assert_eq!((notes.totals.as_slice(), notes.draw), ([2.0, 0.5, 0.0].as_slice(), before));
    let survivors = [0, 2, 3];
    let mut again = SmallVec::new();
    let call = call.among(&survivors);
    scheduler.profiles()[0].picker.plugin.pick(
        &call,
        &notes.totals,
        &mut Rng::with_seed(notes.draw),
        &mut again,
    );
    assert_eq!(again.as_slice(), notes.picked.as_slice());
}
