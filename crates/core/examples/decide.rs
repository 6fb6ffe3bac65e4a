//! A first user of the core from outside: a pool of three endpoints, two scorers, a picker, and ten decisions.
//!
//! `cargo run -p pointsman-core --example decide`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fastrand::Rng;
use pointsman_core::pool::{EndpointId, EndpointSpec, Lease, Pool, Reading};
use pointsman_core::request::{Headers, Inference};
use pointsman_core::scheduling::{
    Call, Candidates, Category, Columns, Picker, Profile, ProfileHandler, ProfilePlugin, RequestView,
    Results, ScheduleError, Scheduler, Scorer, WeightedScorer,
};
use smallvec::{SmallVec, smallvec};

/// Prefers endpoints whose cache is emptier: 1 for an empty one, 0 for a full one.
struct FreeCache;

impl Scorer for FreeCache {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *score = 1.0 - endpoint.load().kv_usage();
        }
    }
}

/// Prefers endpoints that serve fewer requests of ours: 1 for none, 1/2 for one, 1/3 for two.
struct FewInFlight;

impl Scorer for FewInFlight {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *score = 1.0 / (1.0 + endpoint.load().in_flight() as f64);
        }
    }
}

/// Takes the first endpoint of the highest total.
struct Best;

impl Picker for Best {
    fn pick(&self, _call: &Call<'_>, totals: &[f64], _rng: &mut Rng, picked: &mut SmallVec<[u32; 4]>) {
        let best = totals.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
        picked.extend(best.map(|(position, _)| position as u32));
    }
}

/// Runs the only profile once.
struct Only;

impl ProfileHandler for Only {
    fn pick(&self, _call: &Call<'_>, _names: &[Arc<str>], results: &mut Results) -> SmallVec<[usize; 2]> {
        if results[0].is_over() { smallvec![] } else { smallvec![0] }
    }

    fn conclude(
        &self,
        _names: &[Arc<str>],
        _results: &Results,
        errors: &mut SmallVec<[(usize, ScheduleError); 1]>,
    ) -> Result<usize, ScheduleError> {
        errors.pop().map_or(Ok(0), |(_, error)| Err(error))
    }
}

fn weighted(name: &str, scorer: impl Scorer + 'static, weight: f64) -> WeightedScorer {
    WeightedScorer { scorer: ProfilePlugin::new(name, "example", Arc::new(scorer)), weight }
}

fn main() {
    let now = Instant::now();
    let pool = Pool::new("default", "example", now);
    let usages = [("a", 0.9), ("b", 0.2), ("c", 0.5)];
    let address = |host: usize| SocketAddr::from(([10, 0, 0, host as u8], 8000));
    let specs = usages.iter().enumerate();
    pool.replace_endpoints(
        specs
            .map(|(host, (name, _))| EndpointSpec::new(EndpointId::new("default", name), address(host)))
            .collect(),
    );
    let snapshot = pool.snapshot();
    for (endpoint, (_, usage)) in snapshot.endpoints().iter().zip(usages) {
        endpoint.load().record(Reading { kv_usage: Some(usage), ..Reading::default() }, 0, now);
    }

    let profile = Profile {
        name: "default".into(),
        filters: Vec::new(),
        scorers: vec![weighted("free-cache", FreeCache, 1.0), weighted("few-in-flight", FewInFlight, 1.0)],
        picker: ProfilePlugin::new("best", "example", Arc::new(Best)),
    };
    let scheduler =
        Scheduler::new(vec![profile], ProfilePlugin::new("only", "example", Arc::new(Only)), None);

    let (headers, body, inference) = (Headers::new(), Bytes::new(), Inference::opaque());
    let (candidates, columns, mut rng) = (Candidates::all(snapshot), Columns::new(), Rng::with_seed(1));
    let everyone = candidates.slots();
    let mut leases = Vec::new();
    for number in 0..10 {
        let id = format!("request-{number}");
        let request = RequestView {
            id: &id,
            target_model: "example",
            headers: &headers,
            body: &body,
            inference: &inference,
            tokens: None,
            findings: &[],
            media: &pointsman_core::request::MediaEstimate::DEFAULT,
            priority: 0,
            fairness_id: "default-flow",
        };
        let call = Call::new(request, now, &candidates, &everyone, &columns);
        match scheduler.schedule(&call, &mut rng, None) {
            Ok(decision) => {
                let chosen = &decision.targets()[0];
                println!("{id} goes to {}", chosen.id());
                // The share of load lasts until the lease is dropped.
                leases.push(Lease::take(chosen, 100));
            }
            Err(error) => println!("{id} goes nowhere: {error}"),
        }
    }
}
