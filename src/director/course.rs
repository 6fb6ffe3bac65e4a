//! What is noted of a request on its way: labels for series and logs, and the draft of its record.

use std::sync::Arc;
use std::time::Instant;

use super::understood::{LabelText, Understood, kept_request_id};
use super::{Director, Exchange, Refusal, names, objective};
use crate::clock;
use crate::decisions::{
    DecisionView, Decisions, Draft, Known, PolicyNames, Record, ShadowNote, Ticket, Verdict, Waited,
};
use crate::request::Headers;
use crate::scheduling::{Candidates, Columns, CycleRecorder, Decision, Entry, HeaderEdits};

/// The notes of one request. A request that is given up before it is decided gets a record too.
#[derive(Default)]
pub(super) struct Course {
    /// Number of the request in the process.
    pub(super) number: u64,
    pub(super) labels: LabelText,
    pub(super) waited: Waited,
    /// Where the record goes.
    ring: Option<Decisions>,
    /// The draft of the record; `None` if none is kept.
    draft: Option<Box<Draft>>,
    /// What a record would begin with, of a request that is not noted unless it is refused.
    passed_over: Option<(Arc<PolicyNames>, u64, Instant)>,
    tokens: u64,
    exact: bool,
    /// Request id and fairness id of a request that was not understood.
    named: Option<(String, String)>,
}

impl Course {
    /// The notes of the request with this number, whose generator begins with `seed`.
    pub(super) fn new(director: &Director, sequence: u64, seed: u64, received: Instant) -> Self {
        let ring = director.parts.decisions.clone();
        let names = &director.policy_names;
        let mut course = Self::default();
        course.number = sequence;
        if let Some(ring) = &ring {
            if ring.notes(received) {
                course.draft = Some(Box::new(Draft::new(names, sequence, seed, received)));
            } else {
                course.passed_over = Some((Arc::clone(names), seed, received));
            }
        }
        course.ring = ring;
        course
    }

    /// The notes of a request that nobody sends: its record is kept nowhere.
    pub(super) fn dry(director: &Director, sequence: u64, seed: u64, received: Instant) -> Self {
        let draft = Draft::new(&director.policy_names, sequence, seed, received);
        let mut course = Self::default();
        course.draft = Some(Box::new(draft));
        course
    }

    fn draft(&mut self) -> Option<&mut Draft> {
        self.draft.as_deref_mut()
    }

    /// The time, if somebody wants to know it.
    pub(super) fn now(&self) -> Option<Instant> {
        self.draft.as_ref().map(|_| clock::now())
    }

    /// The request has all that it waited for; the last of it since `began`.
    pub(super) fn prepared(&mut self, request: &Understood, began: Option<Instant>) {
        if let Some(began) = began {
            self.waited.preparation = clock::now().saturating_duration_since(began);
            (self.tokens, self.exact) = (request.prompt_tokens(), request.tokens.is_some());
        }
    }

    /// The prompt has this many tokens, as whoever asks says.
    pub(super) fn counted(&mut self, tokens: u64) {
        (self.tokens, self.exact) = (tokens, true);
    }

    /// The endpoints that may serve.
    pub(super) fn candidates(
        &mut self,
        director: &Director,
        candidates: &Candidates,
        columns: &Columns,
        now: Instant,
    ) {
        if let Some(draft) = self.draft() {
            draft.candidates(candidates, director.shown_matches(columns), now);
        }
    }

    /// Whoever takes down the numbers of the cycle.
    pub(super) fn recorder(&mut self) -> Option<&mut dyn CycleRecorder> {
        self.draft().map(|draft| draft as &mut dyn CycleRecorder)
    }

    /// A record is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.draft.is_some()
    }

    /// What a shadow would have chosen.
    pub(super) fn shadow(&mut self, note: Option<ShadowNote>) {
        if let (Some(draft), Some(note)) = (self.draft(), note) {
            draft.shadow(note);
        }
    }

    /// What plugins change in the headers.
    pub(super) fn edits(&mut self, edits: &HeaderEdits) {
        if let Some(draft) = self.draft() {
            draft.edits(edits);
        }
    }

    /// The request cannot be understood. Its headers say who sent it all the same.
    pub(super) fn not_understood(&mut self, headers: &Headers, entry: &Entry) {
        if self.ring.is_some() {
            let id = headers.first(names::REQUEST_ID).map(|id| kept_request_id(id)).unwrap_or_default();
            self.named = Some((id, objective::fairness_id(headers, entry)));
        }
    }

    fn known(&mut self) -> Known {
        let known = Known { tokens: self.tokens, exact: self.exact, ..self.labels.known() };
        match self.named.take() {
            Some((id, fairness_id)) => Known { id, fairness_id, ..known },
            None => known,
        }
    }

    fn finish(&mut self, finish: impl FnOnce(Draft, Known) -> Record) -> Option<Record> {
        let mut draft = self.draft.take()?;
        *draft.waited() = self.waited.until(clock::now());
        let known = self.known();
        Some(finish(*draft, known))
    }

    fn keep(&mut self, finish: impl FnOnce(Draft, Known) -> Record) -> Option<Ticket> {
        let ring = self.ring.take()?;
        self.finish(finish).map(|record| ring.push(record))
    }

    /// What the record of a request would show that nobody sends.
    pub(super) fn tried(mut self, result: Result<&Decision, &Refusal>) -> DecisionView {
        let record = match result {
            Ok(decision) => {
                let (targets, primary) = (decision.targets().into(), decision.primary);
                self.finish(|draft, known| draft.routed(known, targets, primary))
            }
            Err(refusal) => {
                let verdict = verdict(refusal, true);
                self.finish(|draft, known| draft.finish(known, verdict))
            }
        };
        record.map(|record| record.view()).unwrap_or_default()
    }

    /// The request goes on.
    pub(super) fn routed(&mut self, exchange: &mut Exchange) {
        let decision = exchange.decision();
        let (targets, primary) = (decision.targets().into(), decision.primary);
        self.passed_over = None;
        if let Some(ticket) = self.keep(|draft, known| draft.routed(known, targets, primary)) {
            exchange.recorded(ticket);
        }
    }

    /// A request that was passed over is noted all the same, since it ends here. The record has no candidates.
    fn note_refusal(&mut self) {
        if let (Some(ring), Some((names, seed, received))) = (&self.ring, self.passed_over.take())
            && ring.notes_refusal(received)
        {
            self.draft = Some(Box::new(Draft::new(&names, self.number, seed, received)));
        }
    }

    /// The request is refused. The text is kept where it cannot quote the client.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let verdict = verdict(refusal, refusal.reason.dropped().is_some());
        self.note_refusal();
        self.keep(|draft, known| draft.finish(known, verdict));
    }
}

fn verdict(refusal: &Refusal, with_text: bool) -> Verdict {
    Verdict::Refused {
        reason: refusal.reason.label(),
        status: refusal.reason.code().status(),
        message: if with_text { refusal.message.clone() } else { String::new() },
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        let verdict = if std::thread::panicking() {
            let reason = super::Reason::Panic;
            let (status, message) = (reason.code().status(), String::new());
            Verdict::Refused { reason: reason.label(), status, message }
        } else {
            Verdict::Abandoned
        };
        self.note_refusal();
        self.keep(|draft, known| draft.finish(known, verdict));
    }
}
