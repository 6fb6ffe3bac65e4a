//! Finds what another configuration would have chosen for each decision of a capture, from the same figures.

use std::collections::BTreeMap;

use serde::Serialize;

use super::policy::Made;
use super::scene::Scene;
use crate::capture::lines::{DecisionLine, RunLine};
use crate::decisions::{self, Regret};

/// The most differences that are listed.
const LISTED: usize = 10_000;
/// The most endpoints that have a row of their own.
const ROWS: usize = 10_000;

/// The load that each of the two configurations sends to one endpoint. The first number of each pair belongs to the
/// configuration of the capture, the second to the other one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EndpointShare {
    /// The number of requests.
    pub requests: [u64; 2],
    /// The tokens of their prompts.
    pub tokens: [u64; 2],
    /// The tokens of their prompts that the endpoint was expected to have cached.
    pub cached_tokens: [u64; 2],
}

/// A decision for which the two configurations chose different endpoints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The number of the request.
    pub n: u64,
    /// The id of the request.
    pub id: String,
    /// The endpoint that the configuration of the capture chose.
    pub captured: String,
    /// The endpoint that the other configuration chooses.
    pub other: String,
    /// By how much the other configuration's choice scores lower under the configuration of the capture. `null` if that
    /// configuration's filters remove the choice.
    pub regret_of_other: Option<f64>,
    /// By how much the choice of the capture scores lower under the other configuration. `null` if that configuration's
    /// filters remove the choice.
    pub regret_of_captured: Option<f64>,
}

/// The comparison of two configurations on the same decisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// The number of decisions that both configurations made.
    pub decisions: u64,
    /// The number of those decisions with different choices.
    pub differ: u64,
    /// The number of decisions that the other configuration would have refused.
    pub refused_by_other: u64,
    /// The number of decisions that neither configuration makes, because the conversation of the request is bound to a
    /// server.
    pub bound: u64,
    /// For each profile that both have, the number of its runs and the number of runs with different choices.
    pub profiles: BTreeMap<String, [u64; 2]>,
    /// The regret of the other configuration's choices under the configuration of the capture.
    pub regret_of_other: Regret,
    /// The regret of the capture's choices under the other configuration.
    pub regret_of_captured: Regret,
    /// The load of each endpoint.
    pub endpoints: BTreeMap<String, EndpointShare>,
    /// The first `LISTED` decisions that differ.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Adds one decision.
    pub(super) fn take(&mut self, line: &DecisionLine, captured: &Made, other: &Made, scene: &Scene) {
        for run in &line.runs {
            if let Some(again) = other.runs.iter().rfind(|again| again.profile == run.profile) {
                let [both, differ] = self.profiles.entry(run.profile.clone()).or_default();
                *both += 1;
                *differ += u64::from(again.picked.first() != run.picked.first());
            }
        }
        if line.refusal.is_some() {
            return;
        }
        if line.bound {
            self.bound += 1;
            return;
        }
        let Some((then, chosen)) = choice(&line.runs, line.primary.as_deref()) else { return };
        let Some((now, instead)) = choice(&other.runs, other.primary.as_deref()) else {
            self.refused_by_other += 1;
            return;
        };
        self.decisions += 1;
        self.share(scene.name(chosen), 0, line, captured.cached(chosen, line.request.tokens));
        self.share(scene.name(instead), 1, line, other.cached(instead, line.request.tokens));
        if chosen == instead {
            return;
        }
        self.differ += 1;
        let (of_other, of_captured) = (regret(then, chosen, instead), regret(now, instead, chosen));
        self.regret_of_other.add(of_other);
        self.regret_of_captured.add(of_captured);
        if self.differences.len() < LISTED {
            self.differences.push(Difference {
                n: line.n,
                id: line.id.clone(),
                captured: scene.name(chosen),
                other: scene.name(instead),
                regret_of_other: of_other,
                regret_of_captured: of_captured,
            });
        }
    }

    fn share(&mut self, endpoint: String, side: usize, line: &DecisionLine, cached: u64) {
        if self.endpoints.len() >= ROWS && !self.endpoints.contains_key(&endpoint) {
            return;
        }
        let share = self.endpoints.entry(endpoint).or_default();
        share.requests[side] += 1;
        share.tokens[side] += line.request.tokens;
        share.cached_tokens[side] += cached;
    }

    /// The sum over all endpoints.
    pub fn total(&self) -> EndpointShare {
        let mut total = EndpointShare::default();
        for share in self.endpoints.values() {
            for side in 0..2 {
                total.requests[side] += share.requests[side];
                total.tokens[side] += share.tokens[side];
                total.cached_tokens[side] += share.cached_tokens[side];
            }
        }
        total
    }
}

/// The last run of the profile that answers, and the endpoint that this run picked first.
fn choice<'r>(runs: &'r [RunLine], primary: Option<&str>) -> Option<(&'r RunLine, u32)> {
    let run = runs.iter().rfind(|run| Some(run.profile.as_str()) == primary)?;
    Some((run, *run.picked.first()?))
}

/// By how much the total of `instead` is below that of `chosen`. `None` if the filters removed one of the two.
fn regret(run: &RunLine, chosen: u32, instead: u32) -> Option<f64> {
    let total = |place| {
        let position = run.survivors.iter().position(|survivor| *survivor == place)?;
        run.totals.get(position).map(|total| total.0)
    };
    decisions::regret(total, chosen, instead)
}
