//! The steps of a request that wait for nothing: from the candidates to the pre-request hooks.

use bytes::Bytes;
use fastrand::Rng;

use super::beside::{Beside, Both, Session};
use super::claim::Claim;
use super::counted::Counted;
use super::course::Course;
use super::understood::Understood;
use super::{AdmissionPlace, Director, Pieces, Reason, Refusal};
use crate::capture::RunNotes;
use crate::clock;
use crate::pool::{Lease, Subset};
use crate::request::Headers;
use crate::scheduling::{Call, Candidates, Decision, HeaderEdits, PluginState};
use crate::telemetry::Span;

/// A request that has all that it waited for.
pub(super) struct Ready<'a> {
    pub(super) headers: &'a Headers,
    pub(super) path: &'a str,
    pub(super) body: &'a Bytes,
    pub(super) request: &'a Understood,
    pub(super) subset: Option<&'a Subset>,
    pub(super) permit: AdmissionPlace,
    pub(super) orchestration: &'a Span,
}

/// A request that is decided.
pub(super) struct Settled {
    pub(super) candidates: Candidates,
    pub(super) decision: Decision,
    pub(super) edits: HeaderEdits,
    pub(super) states: Vec<PluginState>,
    pub(super) claim: Claim,
    pub(super) counted: Counted,
    pub(super) forwarded: Pieces,
    /// What the client is told of the decision.
    pub(super) decision_header: Option<Bytes>,
}

impl Director {
    /// Decides it.
    pub(super) fn settle(
        &self,
        ready: Ready<'_>,
        course: &mut Course,
        rng: &mut Rng,
    ) -> Result<Settled, Refusal> {
        let mut session = self.parts.beside.as_deref().and_then(Beside::enter);
        let result = self.steps(ready, course, rng, session.as_mut());
        if let Some(session) = session {
            let profile = |settled: &Settled| {
                self.profile_names.get(settled.decision.primary).map_or("", |name| &**name)
            };
            session.finish(course.number, course.waited.queue, result.as_ref().map(profile));
        }
        result
    }

    fn steps(
        &self,
        ready: Ready<'_>,
        course: &mut Course,
        rng: &mut Rng,
        mut session: Option<&mut Session<'_>>,
    ) -> Result<Settled, Refusal> {
        let Ready { headers, path, body, request, subset, permit, orchestration } = ready;
        let now = clock::now();
        let view = request.view(headers, &self.parts.media);
        let candidates = self.candidates(subset)?;
        let candidates = match &mut session {
            Some(session) => session.freeze(&candidates, rng.get_seed()),
            None => candidates,
        };
        let candidates = self.screened(candidates, view, now, rng)?;
        let everyone = candidates.slots();
        let columns = self.produce(view, now, &candidates, &everyone);
        let call = Call::new(view, now, &candidates, &everyone, &columns);
        if let Some(session) = &mut session {
            session.request(&view, &request.incoming_model, self.shown_matches(&columns));
        }
        self.admit_scheduling(&call, rng)?;
        course.candidates(self, &candidates, &columns, now);
        let mut decision = match &mut session {
            None => self.schedule(&call, rng, orchestration, course.recorder())?,
            Some(session) => {
                let mut notes = RunNotes::new(&candidates, self.parts.scheduler.profiles());
                let mut both = Both(course.recorder(), &mut notes);
                let scheduled = self.schedule(&call, rng, orchestration, Some(&mut both));
                session.runs(notes.finish());
                scheduled?
            }
        };
        // The conversation is on the server that decodes, which may not do the work of another stage.
        let mut bound = false;
        if let Some(bindings) = self.bindings.as_ref().filter(|_| !decision.answers_for_a_stage())
            && let Some(key) = bindings.referred(path, &request.body.inference, &request.body.plain)
        {
            bound = bindings.apply(key, &candidates, &mut decision);
        }
        if let Some(endpoint) = decision.targets().first() {
            self.scheduler_metrics.success(view.target_model, endpoint);
        }
        self.require_cached(headers, &decision, &columns, &candidates)?;
        let forwarded = self.forwarded(body, request)?;
        let live = session.map(|session| session.live(&candidates, &decision, bound));
        let counted = self.count(request, &decision, &columns, &candidates);
        let lease = take_lease(live.as_ref().unwrap_or(&decision), &counted)?;
        let claim = Claim::new(lease, permit, counted.until_end);
        let (edits, states) = self.before_forward(call, &decision)?;
        course.edits(&edits);
        let decision_header = self.decision_header(&decision, &candidates, &columns, course.waited);
        let decision = live.unwrap_or(decision);
        Ok(Settled { candidates, decision, edits, states, claim, counted, forwarded, decision_header })
    }
}

/// The share of the endpoint that answers.
fn take_lease(decision: &Decision, counted: &Counted) -> Result<Lease, Refusal> {
    match decision.targets().first() {
        Some(endpoint) => Ok(Lease::take(endpoint, counted.at_target(decision))),
        None => Err(Refusal::new(Reason::NoResult, "results must be greater than zero")),
    }
}
