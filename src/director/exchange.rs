//! The response side of a request, and what the request holds until it ends.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::beside::{Beside, between_decisions};
use super::bindings::{ServerBindings, StateKey};
use super::claim::Claim;
use super::hooks::{tell_end, tell_first_byte, tell_headers};
use super::outcome_note::Seen;
use super::reading::{self, Reading};
use super::retry::Pace;
use super::shadow_follow::Following;
use super::unseen::Unseen;
use super::{Hook, Pieces, Refusal, ResponseSide, decision_header};
use crate::capture::Note;
use crate::capture::lines::{AnswerLine, FirstByteLine};
use crate::clock;
use crate::decisions::{Ended, Outcome, Ticket};
use crate::metrics::{
    AnswerMetrics, InflightShare, PluginTimer, ProcessingMetrics, RequestMetrics, ResponseEnd, ResponseStats,
    RunningGuard, UsageUnread,
};
use crate::pool::{Endpoint, Lease};
use crate::request::{Api, Headers, ModelRestorer, Usage};
use crate::scheduling::{
    Decision, EndedCall, HeaderEdits, PluginState, ProfilePlugin, Reported, ResponseCall, UsageReporter,
};

/// The parts that make an exchange.
pub(super) struct ExchangeParts {
    pub(super) metrics: RequestMetrics,
    #[expect(dead_code, reason = "held until the request ends")]
    pub(super) running: RunningGuard,
    pub(super) inflight: Option<InflightShare>,
    /// Shares of the servers of other stages; they have done their work when the response begins.
    pub(super) stages: Vec<(Lease, Option<InflightShare>)>,
    /// Tokens in flight count until the response ends, and not only until it begins.
    pub(super) until_end: bool,
    pub(super) api: Api,
    pub(super) response_timer: Option<PluginTimer>,
    pub(super) streaming: bool,
    /// Target and incoming model, if the body's model was replaced.
    pub(super) restore: Option<(String, String)>,
    pub(super) decision: Decision,
    pub(super) profile_names: Arc<[Arc<str>]>,
    pub(super) hooks: Arc<[Hook]>,
    /// What goes on beside decisions.
    pub(super) beside: Option<Arc<Beside>>,
    /// Number of the request in the process.
    pub(super) number: u64,
    pub(super) states: Vec<PluginState>,
    /// Plugins of a shadow that follow the request.
    pub(super) following: Option<Box<Following>>,
    pub(super) reporters: Arc<[ProfilePlugin<dyn UsageReporter>]>,
    pub(super) claim: Claim,
    pub(super) received: Instant,
    pub(super) usage_limit: usize,
    pub(super) processing: ProcessingMetrics,
    pub(super) answers: AnswerMetrics,
    pub(super) pace: Arc<Pace>,
    /// The memory of which server made which response; `None` where nothing is remembered.
    pub(super) bindings: Option<Arc<ServerBindings>>,
    /// The conversation that the request names: whoever serves it has that conversation from then on.
    pub(super) conversation: Option<StateKey>,
    /// What the client is told of the decision.
    pub(super) decision_header: Option<Bytes>,
    /// The work that remains for a body that was not seen.
    pub(super) unseen: Unseen,
}

/// A forwarded request. It holds the request's share of load; dropping it gives all of it back.
pub struct Exchange {
    parts: ExchangeParts,
    reader: Option<Reading>,
    /// The target that served, as far as the proxy tells: the first one otherwise.
    served_by: usize,
    restorer: Option<ModelRestorer>,
    first_byte: Option<Instant>,
    last_chunk: Option<Instant>,
    response_bytes: u64,
    chunks: u64,
    error: bool,
    done: bool,
    /// The connection became a tunnel, which ends when it is closed.
    upgraded: bool,
    /// Something of the response was seen.
    begun: bool,
    revoked: bool,
    /// What plugins say of the complete response.
    reported: Vec<Reported>,
    spent: Duration,
    /// HTTP status of the response; 0 until it is seen.
    status: u16,
    /// Leads to the record of the decision.
    ticket: Option<Ticket>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Exchange {
    pub(super) fn new(parts: ExchangeParts) -> Self {
        Self {
            parts,
            reader: None,
            served_by: 0,
            restorer: None,
            first_byte: None,
            last_chunk: None,
            response_bytes: 0,
            chunks: 0,
            error: false,
            done: false,
            upgraded: false,
            begun: false,
            revoked: false,
            reported: Vec::new(),
            spent: Duration::ZERO,
            status: 0,
            ticket: None,
        }
    }

    /// What was decided.
    pub(super) fn decision(&self) -> &Decision {
        &self.parts.decision
    }

    /// The decision has a record, which shall say what becomes of the request.
    pub(super) fn recorded(&mut self, ticket: Ticket) {
        self.ticket = Some(ticket);
    }

    /// Tells the record what became of the request.
    fn conclude(&mut self, ended: ResponseEnd, usage: Option<Usage>, now: Instant) {
        let Some(ticket) = self.ticket.take() else { return };
        let since = |at: Instant| at.saturating_duration_since(self.parts.received);
        ticket.conclude(Outcome {
            ended: Ended(ended.label()),
            status: self.status,
            first_byte: self.first_byte.map(since),
            duration: since(now),
            bytes: self.response_bytes,
            usage,
            served_by: self.served_by,
        });
    }

    /// Takes what the headers say of the body that follows.
    fn expect_body(&mut self, headers: &Headers) {
        let event_stream = headers.get("content-type").is_some_and(|kind| {
            kind.to_ascii_lowercase().windows(EVENT_STREAM.len()).any(|part| part == EVENT_STREAM)
        });
        let event_stream = event_stream || (headers.is_empty() && self.parts.streaming);
        self.parts.streaming |= event_stream;
        if self.error {
            return;
        }
        let api = self.parts.api;
        if api != Api::Opaque {
            let made = self.parts.bindings.is_some();
            self.reader = Some(Reading::new(api, event_stream, headers, self.parts.usage_limit, made));
        }
        if let Some((target, incoming)) = &self.parts.restore
            && reading::is_plain(headers)
        {
            self.restorer = Some(ModelRestorer::new(self.parts.api, event_stream, target, incoming));
        }
    }

    fn run_hooks(&mut self, headers: &Headers, served: Option<&str>) -> HeaderEdits {
        let mut edits = HeaderEdits::default();
        let Some(endpoint) = self.parts.decision.targets().first() else { return edits };
        let call = ResponseCall {
            headers,
            served,
            endpoint,
            decision: &self.parts.decision,
            profiles: &self.parts.profile_names,
        };
        let (hooks, states) = (&self.parts.hooks, &mut self.parts.states);
        let following = self.parts.following.as_deref_mut();
        let tell = || {
            tell_headers(hooks, states, &call, &mut edits);
            if let Some(following) = following {
                following.headers(&call);
            }
        };
        let (n, status) = (self.parts.number, self.status);
        let note = |now_ns| Note::Answer(AnswerLine { n, now_ns, status, served: served.map(str::to_owned) });
        between_decisions(self.parts.beside.as_deref(), None, tell, note);
        edits
    }

    /// Remembers that the server which answers has the state of this key.
    fn bind(&self, key: impl FnOnce(&ServerBindings) -> StateKey) {
        if let Some(bindings) = &self.parts.bindings
            && let Some(server) = self.parts.decision.targets().get(self.served_by)
        {
            bindings.bind(key(bindings), server.incarnation());
        }
    }

    fn note_chunk(&mut self, chunk: &Bytes, now: Instant) {
        if chunk.is_empty() {
            return;
        }
        self.response_bytes += chunk.len() as u64;
        self.chunks += 1;
        if self.first_byte.is_none() {
            self.first_byte = Some(now);
            self.parts.stages.clear();
            if let Some(inflight) = self.parts.inflight.as_mut().filter(|_| !self.parts.until_end) {
                inflight.release_tokens();
            }
            self.parts.claim.ease();
            self.tell_first_byte(now);
        }
        if let Some(last) = self.last_chunk.replace(now)
            && self.parts.streaming
        {
            self.parts.metrics.inter_token(now.saturating_duration_since(last));
        }
    }

    fn tell_first_byte(&mut self, now: Instant) {
        if self.error {
            return;
        }
        let (n, streamed) = (self.parts.number, self.parts.streaming);
        let (hooks, states) = (&self.parts.hooks, &mut self.parts.states);
        let following = self.parts.following.as_deref_mut();
        let tell = || {
            tell_first_byte(hooks, states, now, streamed);
            if let Some(following) = following {
                following.first_byte(now, streamed);
            }
        };
        let note = |now_ns| Note::FirstByte(FirstByteLine { n, now_ns, streamed });
        between_decisions(self.parts.beside.as_deref(), Some(now), tell, note);
    }

    /// The exchange is over, at the end of the response or before it. Whatever ended it, what was learned counts.
    fn end(&mut self, complete: bool) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let now = clock::now();
        self.parts.pace.note(now);
        let usage = self.read_usage();
        let ended = self.how_it_ended(complete);
        self.parts.answers.ended(ended);
        self.conclude(ended, usage, now);
        if self.restorer.as_ref().is_some_and(ModelRestorer::limited) {
            self.parts.answers.models_limited();
        }
        if let Some(usage) = &usage {
            self.parts.claim.served(usage);
            if complete {
                let reporters = self.parts.reporters.iter();
                self.reported = reporters.filter_map(|it| it.call(|plugin| plugin.report(usage))).collect();
            }
        }
        self.tell_hooks(usage.as_ref(), ended, now);
        if self.begun {
            self.parts.metrics.response_done(ResponseStats {
                received: self.parts.received,
                first_byte: self.first_byte,
                completed: now,
                response_bytes: self.response_bytes,
                usage,
                streaming: self.parts.streaming,
            });
        }
        if self.error {
            self.parts.metrics.error("ModelServerError");
        }
        self.parts.processing.response(self.spent);
    }

    fn tell_hooks(&mut self, usage: Option<&Usage>, ended: ResponseEnd, now: Instant) {
        let targets = self.parts.decision.targets();
        let Some(endpoint) = targets.get(self.served_by).or_else(|| targets.first()) else { return };
        let call = EndedCall {
            api: self.parts.api,
            endpoint,
            decision: &self.parts.decision,
            usage,
            succeeded: matches!(ended, ResponseEnd::Complete | ResponseEnd::ClosedAfterUsage),
            streamed: self.parts.streaming,
            now,
            first_byte: self.first_byte,
            chunks: self.chunks,
        };
        let (hooks, states) = (&self.parts.hooks, &mut self.parts.states);
        let following = self.parts.following.as_deref_mut();
        let tell = || {
            tell_end(hooks, states, &call);
            if let Some(following) = following {
                following.end(&call);
            }
        };
        let seen = Seen {
            n: self.parts.number,
            ended: ended.label(),
            status: self.status,
            received: self.parts.received,
            bytes: self.response_bytes,
        };
        let note = |now_ns| Note::Outcome(Box::new(seen.line(&call, now_ns)));
        between_decisions(self.parts.beside.as_deref(), Some(now), tell, note);
    }

    fn read_usage(&mut self) -> Option<Usage> {
        let reader = self.reader.as_mut()?;
        reader.finish();
        if reader.clipped() {
            self.parts.answers.usage_unread(UsageUnread::TooLong);
        }
        if reader.undecoded() {
            self.parts.answers.usage_unread(UsageUnread::Encoding);
        }
        if reader.unbelievable() {
            self.parts.answers.usage_unread(UsageUnread::Unbelievable);
        }
        reader.usage()
    }

    fn how_it_ended(&self, complete: bool) -> ResponseEnd {
        let complete = complete || self.upgraded;
        if self.revoked {
            ResponseEnd::Evicted
        } else if !self.begun {
            ResponseEnd::NoResponse
        } else if self.error {
            ResponseEnd::ErrorStatus
        } else if self.reader.as_ref().is_some_and(Reading::failed) {
            ResponseEnd::ErrorEvent
        } else if complete {
            ResponseEnd::Complete
        } else if self.reader.as_ref().is_some_and(Reading::closed) {
            ResponseEnd::ClosedAfterUsage
        } else {
            ResponseEnd::CutOff
        }
    }
}

const EVENT_STREAM: &[u8] = b"text/event-stream";

impl ResponseSide for Exchange {
    fn on_headers(&mut self, headers: &Headers, served: Option<&str>, end: bool) -> HeaderEdits {
        let start = clock::now();
        let status = headers.get(":status").or_else(|| headers.get("status"));
        // 101 is the success of an upgrade.
        self.upgraded = status.is_some_and(|status| *status == "101");
        self.error = !self.upgraded && status.is_some_and(|status| !status.starts_with(b"2"));
        self.status = status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok()).unwrap_or(0);
        self.begun = true;
        if let Some(served) = served {
            let decision = &self.parts.decision;
            let served_it = |target: &Arc<Endpoint>| decision.address(target) == served;
            self.served_by = decision.targets().iter().position(served_it).unwrap_or(0);
        }
        if let Some(key) = self.parts.conversation.filter(|_| !self.error) {
            self.bind(|_| key);
        }
        if !end {
            self.expect_body(headers);
        }
        let mut edits = self.run_hooks(headers, served);
        if let Some(value) = self.parts.decision_header.take() {
            edits.set(decision_header::NAME, value);
        }
        if self.restorer.as_ref().is_some_and(ModelRestorer::is_active)
            && headers.get("content-length").is_some()
        {
            // The body may change its length on the way back.
            edits.remove("content-length");
        }
        self.spent += clock::now().saturating_duration_since(start);
        if end {
            self.end(true);
        }
        edits
    }

    fn on_request_chunk(&mut self, chunk: &Bytes, end: bool) -> Result<(), Refusal> {
        match &mut self.parts.unseen {
            Unseen::Watch(model) => model.feed(chunk, end),
            Unseen::Nothing => Ok(()),
        }
    }

    fn on_chunk(&mut self, chunk: Bytes, end: bool) -> Pieces {
        let start = clock::now();
        self.note_chunk(&chunk, start);
        // A proxy that sends no response headers tells nothing of the body; it is read as what was asked for.
        if !std::mem::replace(&mut self.begun, true) {
            self.expect_body(&Headers::new());
        }
        if let Some(reader) = &mut self.reader {
            let made = match &self.parts.response_timer {
                Some(timer) => timer.time(|| reader.feed(&chunk)),
                None => reader.feed(&chunk),
            };
            for id in made {
                self.bind(|bindings| bindings.key(&id));
            }
        }
        let pieces = match &mut self.restorer {
            Some(restorer) => {
                let mut pieces = restorer.feed(chunk);
                if end {
                    pieces.extend(restorer.finish());
                }
                pieces
            }
            None => [chunk].into_iter().collect(),
        };
        self.spent += clock::now().saturating_duration_since(start);
        if end {
            self.end(true);
        }
        pieces
    }

    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.done {
            return Poll::Pending;
        }
        let revoked = self.parts.claim.poll_revoked(cx);
        self.revoked |= revoked.is_ready();
        revoked
    }

    fn flush(&mut self) -> Pieces {
        self.restorer.as_mut().and_then(ModelRestorer::finish).into_iter().collect()
    }

    fn on_end(&mut self) -> Pieces {
        let rest = self.flush();
        self.end(true);
        rest
    }

    fn reported(&mut self) -> Vec<Reported> {
        std::mem::take(&mut self.reported)
    }
}

impl Drop for Exchange {
    /// A stream that ends before its response does: the client or the server went away, which proxies do not tell
    /// apart. The claim and the gauges go with the fields.
    fn drop(&mut self) {
        self.end(false);
    }
}
