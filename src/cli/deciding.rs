//! The director, made from a plan and what it shares with others.

use std::sync::Arc;

use super::capturing::Capturing;
use super::holding::Holding;
use super::queueing::Queueing;
use crate::config::Plan;
use crate::decisions::Decisions;
use crate::director::{
    Admission, Beside, BodyBudget, Director, DirectorParts, DirectorSettings, Hook, QueuedAdmission, Shadow,
    Shedding,
};
use crate::metrics::Metrics;
use crate::plugins::producers::inflight_load;
use crate::plugins::scorers::active_request;
use crate::pool::Pool;
use crate::scheduling::{PreRequest, ProfilePlugin, ResponseEndHook, ResponseHeaderHook};

/// The store of records in `bytes` of memory, if any are to be kept.
pub(super) fn records(bytes: u64, metrics: &Metrics) -> Option<Decisions> {
    (bytes > 0).then(|| Decisions::new(bytes, metrics.records()))
}

/// What a director keeps for itself and others.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) decisions: Option<Decisions>,
    pub(super) budget: Arc<BodyBudget>,
    /// What goes on beside decisions.
    pub(super) beside: Option<Arc<Beside>>,
}

/// What directors of one process share.
pub(super) struct Deciding {
    pub(super) pool: Arc<Pool>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) queueing: Arc<Queueing>,
    pub(super) settings: DirectorSettings,
    pub(super) kept: Kept,
    pub(super) capturing: Option<Capturing>,
}

impl Deciding {
    /// This plan decides from now on, as the configuration with this number.
    pub(super) fn announce(&self, plan: &Plan, generation: u64) {
        if let Some(capturing) = &self.capturing {
            capturing.decides(plan, generation);
        }
    }

    /// This shadow decides beside whatever serves, or none.
    pub(super) fn cast(&self, shadow: Option<Arc<Shadow>>) {
        if let Some(beside) = &self.kept.beside {
            beside.cast(shadow);
        }
    }

    /// What a director of this plan is made of, which is the configuration with this number.
    pub(super) fn parts(&self, plan: Plan, generation: u64) -> DirectorParts {
        let Self { pool, metrics, queueing, settings, kept, .. } = self;
        let beside = kept.beside.as_ref().map(|beside| Arc::new(beside.of_generation(generation)));
        let kept = Kept { beside, ..kept.clone() };
        // Without the gate nothing new waits, whatever waits still.
        let holding = queueing.current().filter(|_| plan.flow.is_some());
        parts(plan, pool, metrics, holding.as_deref(), settings.clone(), kept)
    }
}

/// The director of `pool` by this plan. Whoever tells it about requests is asked for something small. Needs a runtime.
pub(super) fn director(
    plan: Plan,
    pool: &Arc<Pool>,
    metrics: &Arc<Metrics>,
    holding: Option<&Holding>,
    settings: DirectorSettings,
    kept: Kept,
) -> Arc<Director> {
    let director = Director::new(parts(plan, pool, metrics, holding, settings, kept));
    director.warm_up();
    Arc::new(director)
}

fn parts(
    plan: Plan,
    pool: &Arc<Pool>,
    metrics: &Arc<Metrics>,
    holding: Option<&Holding>,
    settings: DirectorSettings,
    kept: Kept,
) -> DirectorParts {
    let admission: Arc<dyn Admission> = match holding {
        Some(holding) => {
            Arc::new(QueuedAdmission::new(Arc::clone(&holding.controller), holding.metrics.clone()))
        }
        None => Arc::new(Shedding::new(plan.detector, Arc::clone(metrics))),
    };
    // The reference's producer of these figures exists where a plugin reads them, or where it is listed.
    let inflight = plan
        .instances
        .iter()
        .any(|instance| [active_request::TYPE.name, inflight_load::TYPE.name].contains(&instance.kind))
        .then(|| metrics.inflight(inflight_load::TYPE.name));
    for producer in &plan.producers {
        metrics.extproc().produces(producer.kind, &producer.name);
    }
    let hooks = hooks(plan.pre_request, plan.response_headers, plan.response_ends);
    DirectorParts {
        pool: Arc::clone(pool),
        scheduler: plan.scheduler,
        preparers: plan.preparers,
        media: plan.media,
        in_flight: plan.in_flight,
        in_flight_matches: plan.in_flight_matches,
        entry: plan.entry,
        producers: plan.producers,
        hooks,
        reporters: plan.reporters,
        parsers: plan.parsers,
        prefix_match: plan.prefix_match,
        shown_matches: plan.shown_matches,
        admission: Some(admission),
        inflight,
        budget: kept.budget,
        decisions: kept.decisions,
        beside: kept.beside,
        metrics: Arc::clone(metrics),
        settings,
    }
}

/// The hooks of each plugin together, for they share its state.
pub(super) fn hooks(
    before: Vec<ProfilePlugin<dyn PreRequest>>,
    mut responses: Vec<ProfilePlugin<dyn ResponseHeaderHook>>,
    mut ends: Vec<ProfilePlugin<dyn ResponseEndHook>>,
) -> Vec<Hook> {
    let mut hooks: Vec<Hook> = Vec::new();
    for before in before {
        let same = responses.iter().position(|response| response.name == before.name);
        let response = same.map(|index| responses.remove(index));
        let same = ends.iter().position(|end| end.name == before.name);
        let end = same.map(|index| ends.remove(index));
        hooks.push(Hook { before: Some(before), response, end });
    }
    for response in responses {
        let same = ends.iter().position(|end| end.name == response.name);
        let end = same.map(|index| ends.remove(index));
        hooks.push(Hook { before: None, response: Some(response), end });
    }
    hooks.extend(ends.into_iter().map(|end| Hook { before: None, response: None, end: Some(end) }));
    hooks
}
