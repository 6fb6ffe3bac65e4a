//! The way of a request, step by step.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use smallvec::SmallVec;

use super::course::Course;
use super::exchange::Exchange;
use super::observed::{describe_stages, observer};
use super::prepare::Preparation;
use super::request_body::{RequestBody, Unparsed};
use super::retry;
use super::rewrite::Incoming;
use super::route::Routing;
use super::settle::{Ready, Settled};
use super::understood::{Understood, kept_request_id, new_request_id};
use super::{
    AdmissionCall, AdmissionPlace, Ask, BodySeen, Director, Pieces, Reason, Refusal, Routed, SubsetHint,
    decision_header, names, objective, rewrite, unseen,
};
use crate::clock;
use crate::decisions::Waited;
use crate::pool::{Pool, Subset};
use crate::prefix::PrefixMatch;
use crate::request::{self, Headers};
use crate::scheduling::{
    Call, Candidates, Columns, CycleRecorder, DecidedCall, Decision, HeaderEdits, PluginState, RequestView,
    ScheduleError,
};
use crate::telemetry::Span;

impl Director {
    /// Asks whoever tells about requests for something small, so that the first request finds them awake, or is not
    /// kept waiting by them. Needs a runtime.
    pub fn warm_up(&self) {
        self.prepare.warm_up();
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.sequence.load(Ordering::Relaxed)
    }

    /// The pool it decides for.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.parts.pool
    }

    /// Decides a request whose headers came at `received`, and reports how that went.
    pub async fn handle(
        &self,
        ask: Ask,
        received: Instant,
        span: &mut Span,
    ) -> Result<Routed<Exchange>, Refusal> {
        let (sequence, seed) = self.draw_seed();
        let mut rng = Rng::with_seed(seed);
        let mut course = Course::new(self, sequence, seed, received);
        let mut result = self.decide(ask, received, span, &mut course, &mut rng).await;
        self.processing.request(clock::now().saturating_duration_since(received));
        match &mut result {
            Ok(routed) => course.routed(&mut routed.exchange),
            Err(refusal) => course.refused(refusal),
        }
        let labels = &course.labels;
        if let Err(refusal) = &mut result {
            let expected = self.expected_wait(refusal.reason, labels.priority());
            refusal.retry_after = Some(retry::retry_after_seconds(expected, rng.u64(..)));
            // The stream counts what it refuses by itself elsewhere.
            if !refusal.reason.is_of_the_stream() {
                self.parts.metrics.request(labels.borrow()).error(refusal.reason.code().name());
            }
            span.error(&refusal.message);
        }
        labels.log(&result);
        result
    }

    /// The steps, in the order they happen.
    async fn decide(
        &self,
        ask: Ask,
        received: Instant,
        span: &Span,
        course: &mut Course,
        rng: &mut Rng,
    ) -> Result<Routed<Exchange>, Refusal> {
        let Ask { headers, body, body_seen, hint } = ask;
        let path = request::routing_path(&headers);
        let unparsed = Unparsed { path: &path, headers: &headers, body: &body, seen: body_seen };
        let header_counts = self.parts.settings.model_rewrite_header;
        let read = self.read(unparsed).await.inspect_err(|_| {
            course.not_understood(&headers, &self.parts.entry);
            course.labels.asked_for(rewrite::asked(&headers, header_counts).unwrap_or_default());
        })?;
        self.note_unread(&read, &path);
        let replacing =
            unseen::Replacing { pool: &self.parts.pool, header_counts, budget: &self.parts.budget };
        let checked = unseen::check(&replacing, unparsed, &read)
            .and_then(|unseen| Ok((unseen, self.understand(&headers, read, rng)?)));
        let (unseen, mut request) =
            checked.inspect_err(|_| course.not_understood(&headers, &self.parts.entry))?;
        course.labels = request.labels();
        let mut orchestration = span.server_child(|| "gateway.request_orchestration");
        if orchestration.is_recording() {
            orchestration.attribute("target_model", request.target_model.clone());
            orchestration.attribute("request_prio", i64::from(request.priority));
        }
        let subset = self.subset(hint)?;
        let mut preparation = self.prepare(&request, unparsed, false);
        let subset_ref = subset.as_ref();
        let waited = &mut course.waited;
        let permit =
            self.admit(&mut request, unparsed, received, subset_ref, &mut preparation, waited).await?;
        let began = course.now();
        (request.tokens, request.findings) = preparation.finish().await;
        course.prepared(&request, began);
        let ready = Ready {
            headers: &headers,
            path: &path,
            body: &body,
            request: &request,
            subset: subset.as_ref(),
            permit,
            orchestration: &orchestration,
        };
        let settled = self.settle(ready, course, rng)?;
        let Settled {
            candidates,
            decision,
            edits,
            states,
            following,
            claim,
            counted,
            forwarded,
            decision_header,
        } = settled;
        describe_stages(&orchestration, &request.view(&headers, &self.parts.media), &decision);
        Ok(self.route(Routing {
            number: course.number,
            headers: &headers,
            forwarded,
            path: &path,
            request,
            candidates: &candidates,
            edits,
            states,
            following,
            claim,
            counted,
            decision_header,
            labels: &course.labels,
            decision,
            received,
            trace: span.inject(),
            unseen,
        }))
    }

    /// The number of a request, and the seed of its generator.
    fn draw_seed(&self) -> (u64, u64) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        (sequence, self.seed_of(sequence))
    }

    /// The seed of the request with this number. An odd multiplier spreads neighbouring numbers over the whole range.
    pub(super) fn seed_of(&self, sequence: u64) -> u64 {
        self.parts.settings.seed ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// What each candidate is believed to hold of the prompt, as records show it.
    pub(super) fn shown_matches<'c>(&self, columns: &'c Columns) -> Option<&'c [PrefixMatch]> {
        self.parts.shown_matches.and_then(|column| columns.slice(column))
    }

    /// What the client is told of the decision, where the operator wants that.
    pub(super) fn decision_header(
        &self,
        decision: &Decision,
        candidates: &Candidates,
        columns: &Columns,
        waited: Waited,
    ) -> Option<Bytes> {
        if !self.parts.settings.decision_header {
            return None;
        }
        decision_header::value(decision, candidates, self.shown_matches(columns), waited)
    }

    /// The time after which a request that was refused for this reason has a chance, as far as that is known.
    fn expected_wait(&self, reason: Reason, priority: i32) -> Duration {
        match reason {
            Reason::Saturated | Reason::TtlExpired | Reason::NothingLeft | Reason::NotAdmitted => {
                let held = self.parts.admission.as_ref().and_then(|admission| admission.ahead(priority));
                let ahead = held.unwrap_or_else(|| {
                    self.parts
                        .pool
                        .snapshot()
                        .endpoints()
                        .iter()
                        .map(|endpoint| endpoint.load().waiting())
                        .sum()
                });
                self.pace.time_for(ahead.saturating_add(1), clock::now()).unwrap_or(retry::DEFAULT_WAIT)
            }
            Reason::NoEndpoints => {
                self.parts.pool.expected_absence(clock::now()).unwrap_or(retry::DEFAULT_START)
            }
            Reason::InvalidSubset => retry::DEFAULT_START,
            _ => retry::DEFAULT_WAIT,
        }
    }

    pub(super) fn understand(
        &self,
        headers: &Headers,
        body: RequestBody,
        rng: &mut Rng,
    ) -> Result<Understood, Refusal> {
        let RequestBody { inference, plain, .. } = &body;
        let Incoming { model: incoming_model, in_query } =
            rewrite::incoming_model(inference, plain, headers)?;
        // Only a body that could be read whole can be rewritten, whatever the proxy said of it.
        let rewritable = inference.is_rewritable();
        let sources = rewrite::Sources {
            pool: &self.parts.pool,
            headers,
            header_counts: self.parts.settings.model_rewrite_header,
            metrics: &self.parts.metrics,
        };
        sources.check_read(inference)?;
        let target_model = sources.target_model(&incoming_model, rewritable || in_query, rng.f64())?;
        let changes = target_model != incoming_model;
        let new_path =
            (in_query && changes).then(|| request::with_query_model(headers, &target_model)).flatten();
        let rewrites = rewritable && changes;
        if rewrites {
            rewrite::check(inference, &target_model)?;
        }
        let given = headers.first(names::REQUEST_ID).filter(|id| !id.is_empty());
        let id = given.map_or_else(|| new_request_id(rng), |id| kept_request_id(id));
        Ok(Understood {
            id,
            id_is_new: given.is_none(),
            body,
            target_model,
            incoming_model,
            rewrites,
            new_path,
            priority: objective::priority(&self.parts.pool, headers, &self.unknown_objectives),
            fairness_id: objective::fairness_id(headers, &self.parts.entry),
            tokens: None,
            findings: SmallVec::new(),
        })
    }

    /// A hint that cannot be understood never means the whole pool.
    pub(super) fn subset(&self, hint: SubsetHint) -> Result<Option<Subset>, Refusal> {
        match hint {
            _ if self.parts.settings.ignore_subset => Ok(None),
            SubsetHint::Absent => Ok(None),
            SubsetHint::Addresses(addresses) => Subset::parse(addresses.iter().map(String::as_str))
                .map(Some)
                .map_err(|error| Refusal::new(Reason::InvalidSubset, error.to_string())),
            SubsetHint::Malformed(text) => {
                let text = format!("subset hint x-gateway-destination-endpoint-subset is malformed: {text}");
                Err(Refusal::new(Reason::InvalidSubset, text))
            }
        }
    }

    /// Begins to find out what has to be known before the request is scheduled.
    pub(super) fn prepare(&self, request: &Understood, unparsed: Unparsed<'_>, dry_run: bool) -> Preparation {
        if self.prepare.is_empty() || unparsed.seen != BodySeen::Whole {
            return Preparation::default();
        }
        self.prepare.begin(&request.prepare_call(unparsed, &self.parts.media, dry_run))
    }

    /// The one wait that can be long. What is being found out goes on meanwhile.
    async fn admit(
        &self,
        request: &mut Understood,
        unparsed: Unparsed<'_>,
        received: Instant,
        subset: Option<&Subset>,
        preparation: &mut Preparation,
        waited: &mut Waited,
    ) -> Result<AdmissionPlace, Refusal> {
        let Some(admission) = &self.parts.admission else { return Ok(None) };
        if !preparation.is_done() {
            preparation.advance().await;
        }
        let call = AdmissionCall {
            headers: unparsed.headers,
            priority: request.priority,
            fairness_id: &request.fairness_id,
            model: &request.incoming_model,
            target_model: &request.target_model,
            size: unparsed.body.len() as u64,
            tokens: preparation.token_count(),
            received,
            subset,
            pool: &self.parts.pool,
        };
        let mut admitted = admission.admit(call);
        match poll_fn(|cx| Poll::Ready(admitted.as_mut().poll(cx))).await {
            Poll::Ready(verdict) => verdict,
            Poll::Pending => {
                let began = clock::now();
                waited.held = Some(began);
                preparation.held(&request.prepare_call(unparsed, &self.parts.media, false));
                let mut first = |cx: &mut Context<'_>| match admitted.as_mut().poll(cx) {
                    Poll::Ready(verdict) => Poll::Ready(Some(verdict)),
                    Poll::Pending => preparation.poll(cx).map(|()| None),
                };
                if let Some(verdict) = poll_fn(|cx| first(cx)).await {
                    waited.queue = clock::now().saturating_duration_since(began);
                    return verdict;
                }
                // Nobody needs what was read until the request's turn comes.
                let gone = request.body.let_go(unparsed.body);
                let permit = admitted.await?;
                waited.queue = clock::now().saturating_duration_since(began);
                if gone {
                    request.body = self.read(unparsed).await?;
                }
                Ok(permit)
            }
        }
    }

    pub(super) fn candidates(&self, subset: Option<&Subset>) -> Result<Candidates, Refusal> {
        let snapshot = self.parts.pool.snapshot();
        let candidates = match subset {
            None => Candidates::all(snapshot),
            Some(subset) => Candidates::within(snapshot, subset),
        };
        if candidates.is_empty() {
            let text = "failed to find endpoint candidates for serving the request";
            return Err(Refusal::new(Reason::NoEndpoints, text));
        }
        Ok(if self.parts.settings.avoid_unreachable { candidates.reachable() } else { candidates })
    }

    /// Runs the producers. One that fails is reported, and the others run all the same.
    pub(super) fn produce(
        &self,
        view: RequestView<'_>,
        now: Instant,
        candidates: &Candidates,
        everyone: &[u32],
    ) -> Columns {
        let mut columns = Columns::new();
        if self.parts.producers.is_empty() {
            return columns;
        }
        for producer in &self.parts.producers {
            let call = Call::new(view, now, candidates, everyone, &columns);
            match producer.call(|producer| producer.produce(&call)) {
                Ok(produced) => produced.into_iter().for_each(|column| columns.insert(column)),
                Err(error) => {
                    self.extproc.producer_error(producer.kind, &producer.name);
                    tracing::debug!(producer = %producer.name, request_id = view.id, error, "data producer failed");
                }
            }
        }
        columns
    }

    pub(super) fn schedule(
        &self,
        call: &Call<'_>,
        rng: &mut Rng,
        span: &Span,
        recorder: Option<&mut dyn CycleRecorder>,
    ) -> Result<Decision, Refusal> {
        let start = Instant::now();
        let result = self.parts.scheduler.schedule_recorded(call, rng, observer(span), recorder);
        self.scheduler_metrics.e2e_duration(start.elapsed());
        match result {
            Ok(decision) => Ok(decision),
            Err(error) => {
                self.scheduler_metrics.failure(call.request.target_model);
                Err(refuse(&error))
            }
        }
    }

    /// `Prefer: if-available`: the client would rather have an error than an endpoint that does not hold the prompt.
    pub(super) fn require_cached(
        &self,
        headers: &Headers,
        decision: &Decision,
        columns: &Columns,
        candidates: &Candidates,
    ) -> Result<(), Refusal> {
        if !prefers_available(headers) {
            return Ok(());
        }
        let matches = self.parts.prefix_match.and_then(|column| columns.slice(column));
        let chosen = decision.targets().first();
        let held = matches.zip(chosen).is_some_and(|(matches, chosen)| {
            candidates
                .iter()
                .zip(matches)
                .any(|(candidate, found)| Arc::ptr_eq(candidate, chosen) && found.matched > 0)
        });
        if held {
            return Ok(());
        }
        Err(Refusal::new(Reason::NotCached, "no decode worker has the requested KV cache"))
    }

    /// Runs all pre-request hooks, even when one fails.
    pub(super) fn before_forward(
        &self,
        call: Call<'_>,
        decision: &Decision,
    ) -> Result<(HeaderEdits, Vec<PluginState>), Refusal> {
        let mut edits = HeaderEdits::default();
        let mut states = Vec::with_capacity(self.hooks.len());
        let mut failures: Vec<String> = Vec::new();
        let decided = DecidedCall { call, decision, profiles: &self.profile_names };
        for hook in &*self.hooks {
            let Some(before) = &hook.before else {
                states.push(None);
                continue;
            };
            match before.call(|plugin| plugin.before_forward(&decided, &mut edits)) {
                Ok(state) => states.push(state),
                Err(error) => {
                    states.push(None);
                    failures.push(format!("PreRequest {:?} failed: {error}", before.name));
                }
            }
        }
        if failures.is_empty() {
            return Ok((edits, states));
        }
        Err(Refusal::new(Reason::PluginFailed, failures.join("\n")))
    }

    /// The body as it goes on.
    pub(super) fn forwarded(&self, body: &Bytes, request: &Understood) -> Result<Pieces, Refusal> {
        if request.rewrites {
            let limit = self.parts.settings.body_limit;
            let RequestBody { plain, inference, .. } = &request.body;
            return rewrite::rewritten(plain, inference, &request.target_model, limit);
        }
        Ok([body.clone()].into_iter().filter(|body| !body.is_empty()).collect())
    }
}

/// The refusal of a request that cannot be scheduled.
pub(super) fn refuse(error: &ScheduleError) -> Refusal {
    if error.is_nothing_left() {
        return Refusal::new(Reason::NothingLeft, ScheduleError::NothingLeft.to_string());
    }
    if let Some(role) = error.missing_role() {
        return Refusal::new(Reason::NoneOfRole, ScheduleError::NoneOfRole { role }.to_string());
    }
    Refusal::new(Reason::SchedulingFailed, format!("failed to find target endpoint: {error}"))
}

/// True if a `Prefer` header holds the token `if-available`.
fn prefers_available(headers: &Headers) -> bool {
    headers.text("prefer").is_some_and(|text| {
        text.split(',')
            .map(|token| token.split(';').next().unwrap_or_default().trim())
            .any(|token| token.eq_ignore_ascii_case("if-available"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefer_is_a_list_of_tokens_with_parameters() {
        for (value, expected) in [
            ("if-available", true),
            ("respond-async, If-Available; q=1", true),
            ("if-available-later", false),
            ("", false),
        ] {
            assert_eq!(prefers_available(&Headers::from([("prefer", value)])), expected, "{value}");
        }
    }
}
