//! The steps of a request that wait for nothing: from the candidates to the pre-request hooks.

use bytes::Bytes;
use fastrand::Rng;

use super::beside::Watch;
use super::claim::Claim;
use super::counted::Counted;
use super::course::Course;
use super::session::Both;
use super::shadow::Asked;
use super::shadow_compare::Chosen;
use super::shadow_follow::Following;
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
    /// Plugins of a shadow that follow the request.
    pub(super) following: Option<Box<Following>>,
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
        let Some(beside) = self.parts.beside.as_deref() else { return self.steps(ready, course, rng, None) };
        let mut watch = beside.watch();
        let result = self.steps(ready, course, rng, Some(&mut watch));
        let profile =
            |settled: &Settled| self.profile_names.get(settled.decision.primary).map_or("", |name| &**name);
        watch.finish(course.number, course.waited.queue, result.as_ref().map(profile));
        result
    }

    fn steps(
        &self,
        ready: Ready<'_>,
        course: &mut Course,
        rng: &mut Rng,
        mut watch: Option<&mut Watch<'_>>,
    ) -> Result<Settled, Refusal> {
        let Ready { headers, path, body, request, subset, permit, orchestration } = ready;
        let now = clock::now();
        let view = request.view(headers, &self.parts.media);
        let before = rng.get_seed();
        let unscreened = self.candidates(subset)?;
        let unscreened = match &mut watch {
            Some(watch) => watch.freeze(unscreened, before),
            None => unscreened,
        };
        // A shadow screens them on its own.
        let for_shadow = watch.as_ref().filter(|watch| watch.compares()).map(|_| unscreened.clone());
        let candidates = self.screened(unscreened, view, now, rng)?;
        let everyone = candidates.slots();
        let columns = self.produce(view, now, &candidates, &everyone);
        let call = Call::new(view, now, &candidates, &everyone, &columns);
        let matches = self.shown_matches(&columns);
        if let Some(session) = watch.as_mut().and_then(|watch| watch.captures()) {
            session.request(&view, &request.incoming_model, matches);
        }
        self.admit_scheduling(&call, rng)?;
        course.candidates(self, &candidates, &columns, now);
        let scheduled = self.choose(&call, rng, orchestration, course, watch.as_deref_mut());
        if let (Some(watch), Some(unscreened)) = (&mut watch, &for_shadow) {
            let (screened, columns, noted) = (&candidates, &columns, course.is_kept());
            watch.decide(&Asked { view, now, unscreened, screened, columns, rng: before, noted });
        }
        let chosen =
            |decision| Chosen { candidates: &candidates, matches, decision, tokens: request.prompt_tokens() };
        let mut decision = match (scheduled, &mut watch) {
            (Ok(decision), _) => decision,
            (Err(refusal), watch) => {
                let note = watch.as_mut().and_then(|watch| watch.compare(&chosen(None), false));
                course.shadow(note);
                return Err(refusal);
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
        if let Some(watch) = &mut watch {
            course.shadow(watch.compare(&chosen(Some(&decision)), bound));
        }
        self.require_cached(headers, &decision, &columns, &candidates)?;
        let forwarded = self.forwarded(body, request)?;
        let live = watch.as_mut().and_then(|watch| watch.live(&candidates, &decision, bound));
        let counted = self.count(request, &decision, &columns, &candidates);
        let lease = take_lease(live.as_ref().unwrap_or(&decision), &counted)?;
        let claim = Claim::new(lease, permit, counted.until_end);
        let _turn = watch.as_ref().and_then(|watch| watch.turn());
        let (edits, states) = self.before_forward(call, &decision)?;
        let seen = live.as_ref().unwrap_or(&decision);
        let following = watch.as_mut().and_then(|watch| watch.follow(&call, &decision, seen));
        course.edits(&edits);
        let decision_header = self.decision_header(&decision, &candidates, &columns, course.waited);
        let decision = live.unwrap_or(decision);
        Ok(Settled {
            candidates,
            decision,
            edits,
            states,
            following,
            claim,
            counted,
            forwarded,
            decision_header,
        })
    }

    /// The choice of the scheduler, which is written down where somebody wants that.
    fn choose(
        &self,
        call: &Call<'_>,
        rng: &mut Rng,
        orchestration: &Span,
        course: &mut Course,
        watch: Option<&mut Watch<'_>>,
    ) -> Result<Decision, Refusal> {
        let Some(session) = watch.and_then(|watch| watch.captures()) else {
            return self.schedule(call, rng, orchestration, course.recorder());
        };
        let mut notes = RunNotes::new(call.candidates(), self.parts.scheduler.profiles());
        let mut both = Both(course.recorder(), &mut notes);
        let scheduled = self.schedule(call, rng, orchestration, Some(&mut both));
        session.runs(notes.finish());
        scheduled
    }
}

/// The share of the endpoint that answers.
fn take_lease(decision: &Decision, counted: &Counted) -> Result<Lease, Refusal> {
    match decision.targets().first() {
        Some(endpoint) => Ok(Lease::take(endpoint, counted.at_target(decision))),
        None => Err(Refusal::new(Reason::NoResult, "results must be greater than zero")),
    }
}
