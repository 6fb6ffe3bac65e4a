//! What another configuration would have chosen, decision by decision, from the same figures.

use std::collections::BTreeMap;

use serde::Serialize;

use super::policy::Made;
use super::scene::Scene;
use crate::capture::lines::{DecisionLine, RunLine};

/// Differences that are listed.
const LISTED: usize = 10_000;
/// Endpoints that have a row of their own.
const ROWS: usize = 10_000;

/// What the two configurations send to one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EndpointShare {
    /// Requests: with the configuration of the capture, and with the other one.
    pub requests: [u64; 2],
    /// Tokens of their prompts.
    pub tokens: [u64; 2],
    /// Tokens of the prompts that the endpoint was believed to hold.
    pub cached_tokens: [u64; 2],
}

/// How much worse the choice of one configuration looks to the other one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Regret {
    /// Sum over the decisions that differ, in units of totals.
    pub sum: f64,
    /// The largest.
    pub most: f64,
    /// Decisions whose choice it would not have allowed at all.
    pub ruled_out: u64,
}

/// A decision that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Number of the request.
    pub n: u64,
    /// Its id.
    pub id: String,
    /// What was chosen.
    pub captured: String,
    /// What the other configuration chooses.
    pub other: String,
    /// By how much the other's choice scores worse under the configuration of the capture; null if that rules it out.
    pub regret_of_other: Option<f64>,
    /// By how much the choice of the capture scores worse under the other configuration; null if that rules it out.
    pub regret_of_captured: Option<f64>,
}

/// Two configurations on the same decisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Decisions that both made.
    pub decisions: u64,
    /// Those that chose different endpoints.
    pub differ: u64,
    /// Decisions that the other configuration would have refused.
    pub refused_by_other: u64,
    /// Decisions that neither makes: the request's conversation is on a server.
    pub bound: u64,
    /// Runs of a profile that both have, and those that chose different endpoints, by its name.
    pub profiles: BTreeMap<String, [u64; 2]>,
    /// The other's choices under the configuration of the capture.
    pub regret_of_other: Regret,
    /// The choices of the capture under the other configuration.
    pub regret_of_captured: Regret,
    /// By endpoint.
    pub endpoints: BTreeMap<String, EndpointShare>,
    /// The first of the decisions that differ.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// One decision more.
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

    /// Sum over all endpoints.
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

impl Regret {
    fn add(&mut self, regret: Option<f64>) {
        match regret {
            Some(regret) => {
                self.sum += regret;
                self.most = self.most.max(regret);
            }
            None => self.ruled_out += 1,
        }
    }
}

/// The last run of the profile that answers, and the endpoint it picked first.
fn choice<'r>(runs: &'r [RunLine], primary: Option<&str>) -> Option<(&'r RunLine, u32)> {
    let run = runs.iter().rfind(|run| Some(run.profile.as_str()) == primary)?;
    Some((run, *run.picked.first()?))
}

/// By how much the total of `instead` is below that of `chosen`; `None` if it did not survive the filters.
fn regret(run: &RunLine, chosen: u32, instead: u32) -> Option<f64> {
    let total = |place| {
        let position = run.survivors.iter().position(|survivor| *survivor == place)?;
        run.totals.get(position).map(|total| total.0)
    };
    Some(total(chosen)? - total(instead)?)
}
