//! Plays a request through its machine against servers that a test scripts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use crate::request::JsonObject;
use crate::sidecar::api::{Api, MEMBERS};
use crate::sidecar::engines::EngineIds;
use crate::sidecar::ids::Ids;
use crate::sidecar::machine::{
    Ask, Call, Calls, Destination, Event, Leg, LegFailure, LegRequest, Machine, Note, Peek, Rewrite, Shared,
};
use crate::sidecar::outcome::Outcome;
use crate::sidecar::route::Route;
use crate::sidecar::settings::Settings;
use crate::sidecar::spare::Spare;
use crate::sidecar::target::Target;

/// What a server of the test does with a call.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// It answers with this status and body.
    Answer(u16, String),
    /// The call fails for this reason.
    Fail(LegFailure),
    /// It answers with a head of this status, and then the connection breaks.
    BreakOff(u16),
    /// It never answers.
    Hang,
}

pub(super) fn ok(body: &str) -> Reply {
    Reply::Answer(200, body.to_owned())
}

/// What the client gets in the end.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Got {
    /// The answer of this call.
    Relayed(Leg, Rewrite),
    /// An error with this status.
    Refused(StatusCode),
    /// A document.
    Document(Value),
    /// A stream of events.
    Stream(String),
    /// No answer up to now.
    Nothing,
}

/// A call that the machine made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) leg: Leg,
    pub(super) to: String,
    pub(super) request: LegRequest,
    pub(super) after: Duration,
}

impl Made {
    pub(super) fn body(&self) -> Value {
        serde_json::from_slice(&self.bytes()).unwrap_or(Value::Null)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.request.body.as_ref().map(|pieces| pieces.concat()).unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        let found = self.request.headers.iter().find(|(known, _)| known.as_str() == name)?;
        Some(found.1.to_str().unwrap().to_owned())
    }
}

type Script<'s> = Box<dyn FnMut(&Made) -> Reply + 's>;

/// A request that is played to its end in virtual time.
pub(super) struct Played {
    pub(super) made: Vec<Made>,
    pub(super) cancelled: Vec<Leg>,
    pub(super) got: Got,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) notes: Vec<Note>,
    pub(super) open: Vec<Leg>,
    pub(super) took: Duration,
    pub(super) on_gone: bool,
}

impl Played {
    pub(super) fn of(&self, leg: Leg) -> Vec<&Made> {
        self.made.iter().filter(|made| made.leg == leg).collect()
    }

    pub(super) fn one(&self, leg: Leg) -> &Made {
        let made = self.of(leg);
        assert_eq!(made.len(), 1, "{leg:?}: {made:?}");
        made[0]
    }

    pub(super) fn outcome(&self) -> String {
        assert_eq!(self.outcomes.len(), 1, "{:?}", self.outcomes);
        format!("{}/{}", self.outcomes[0].name(), self.outcomes[0].reason())
    }
}

pub(super) fn shared(settings: Settings) -> Arc<Shared> {
    Arc::new(Shared {
        spare: Spare::new(settings.local_per_second),
        engines: EngineIds::default(),
        encoder: AtomicUsize::new(0),
        settings,
    })
}

pub(super) fn ask(api: Api, body: &str, prefill: &[&str]) -> Ask {
    let target = |text: &&str| Target::parse(text).unwrap();
    Ask {
        api,
        object: JsonObject::read(Bytes::copy_from_slice(body.as_bytes()), MEMBERS).unwrap(),
        route: Route { prefill: prefill.iter().map(target).collect(), ..Route::default() },
        rank: 0,
        request_id: "id".to_owned(),
    }
}

/// Plays a request against servers that do with each call what `script` says.
pub(super) fn play(shared: &Arc<Shared>, ask: Ask, script: impl FnMut(&Made) -> Reply) -> Played {
    Player::new(Box::new(script)).play(Arc::clone(shared), ask)
}

struct Player<'s> {
    script: Script<'s>,
    start: Instant,
    now: Instant,
    /// The events that are still to come, in order.
    events: VecDeque<Event>,
    replies: Vec<(Leg, Reply)>,
    /// The times at which calls without an answer reach their limit.
    limits: Vec<(Leg, Instant)>,
    timer: Option<Instant>,
    played: Played,
}

impl<'s> Player<'s> {
    fn new(script: Script<'s>) -> Self {
        let now = Instant::now();
        let played = Played {
            made: Vec::new(),
            cancelled: Vec::new(),
            got: Got::Nothing,
            outcomes: Vec::new(),
            notes: Vec::new(),
            open: Vec::new(),
            took: Duration::ZERO,
            on_gone: false,
        };
        Self {
            script,
            start: now,
            now,
            events: VecDeque::new(),
            replies: Vec::new(),
            limits: Vec::new(),
            timer: None,
            played,
        }
    }

    fn play(mut self, shared: Arc<Shared>, ask: Ask) -> Played {
        let (mut machine, calls) = Machine::start(shared, ask, Ids::seeded(7), self.now);
        self.carry_out(calls);
        for _ in 0..1000 {
            if !matches!(self.played.got, Got::Nothing | Got::Stream(_))
                || self.played.outcomes.len() == 1 && self.events.is_empty()
            {
                break;
            }
            let Some(event) = self.next() else { break };
            let calls = machine.on(event, self.now);
            self.carry_out(calls);
        }
        self.played.took = self.now - self.start;
        self.played
    }

    /// The next event. If no event is due, time moves on to the next limit.
    fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let limit = self.limits.iter().min_by_key(|(_, at)| *at).copied();
        match (self.timer, limit) {
            (Some(timer), limit) if limit.is_none_or(|(_, at)| timer <= at) => {
                (self.now, self.timer) = (timer, None);
                Some(Event::Timer)
            }
            (_, Some((leg, at))) => {
                self.now = at;
                self.forget(leg);
                Some(Event::Failed(leg, LegFailure::Timeout))
            }
            (_, None) => None,
        }
    }

    fn forget(&mut self, leg: Leg) {
        self.limits.retain(|(other, _)| *other != leg);
        self.played.open.retain(|other| *other != leg);
        self.replies.retain(|(other, _)| *other != leg);
        self.events.retain(|event| match event {
            Event::Head(other, _)
            | Event::Body(other, _)
            | Event::Peeked(other, ..)
            | Event::Failed(other, _) => *other != leg,
            Event::Timer => true,
        });
    }

    fn carry_out(&mut self, calls: Calls) {
        for call in calls {
            self.carry_out_one(call);
        }
    }

    fn carry_out_one(&mut self, call: Call) {
        let reply = |replies: &[(Leg, Reply)], leg: Leg| {
            replies.iter().find(|(other, _)| *other == leg).map(|(_, reply)| reply.clone())
        };
        match call {
            Call::Send(leg, request) => self.send(leg, *request),
            Call::Collect(leg) | Call::Drain(leg) => match reply(&self.replies, leg) {
                Some(Reply::Answer(_, body)) => {
                    self.forget_limit(leg);
                    self.events.push_back(Event::Body(leg, Bytes::from(body)));
                }
                _ => self.break_off(leg),
            },
            Call::Peek(leg, peek) => match reply(&self.replies, leg) {
                Some(Reply::Answer(_, body)) => {
                    let ended = peek == Peek::FirstByte;
                    self.events.push_back(Event::Peeked(leg, Bytes::from(body), ended));
                }
                _ => self.break_off(leg),
            },
            Call::Cancel(leg) => {
                if self.played.open.contains(&leg) {
                    self.played.cancelled.push(leg);
                }
                self.forget(leg);
            }
            Call::Wake(after) => self.timer = Some(self.now + after),
            Call::Relay(leg, rewrite) => {
                self.forget(leg);
                self.played.got = Got::Relayed(leg, rewrite);
            }
            Call::Refuse(refusal) => self.played.got = Got::Refused(refusal.status),
            Call::Answer(body, _) => self.played.got = Got::Document(serde_json::from_slice(&body).unwrap()),
            Call::Begin(_) => self.played.got = Got::Stream(String::new()),
            Call::Piece(piece) => {
                if let Got::Stream(text) = &mut self.played.got {
                    text.push_str(std::str::from_utf8(&piece).unwrap());
                }
            }
            Call::End => {}
            Call::Outcome(outcome) => self.played.outcomes.push(outcome),
            Call::OnGone(_) => self.played.on_gone = true,
            Call::Note(note) => self.played.notes.push(note),
        }
    }

    fn break_off(&mut self, leg: Leg) {
        self.forget_limit(leg);
        self.events.push_back(Event::Failed(leg, LegFailure::Broken));
    }

    fn forget_limit(&mut self, leg: Leg) {
        self.limits.retain(|(other, _)| *other != leg);
        self.played.open.retain(|other| *other != leg);
    }

    fn send(&mut self, leg: Leg, request: LegRequest) {
        self.forget(leg);
        let to = match &request.to {
            Destination::Engine(rank) => format!("engine{rank}"),
            Destination::Server(target) => target.to_string(),
        };
        let limit = request.limit;
        let made = Made { leg, to, request, after: self.now - self.start };
        let reply = (self.script)(&made);
        self.played.made.push(made);
        self.played.open.push(leg);
        match &reply {
            Reply::Answer(status, _) | Reply::BreakOff(status) => {
                self.events.push_back(Event::Head(leg, StatusCode::from_u16(*status).unwrap()));
            }
            Reply::Fail(failure) => {
                self.played.open.retain(|other| *other != leg);
                self.events.push_back(Event::Failed(leg, *failure));
            }
            Reply::Hang => {
                if let Some(limit) = limit {
                    self.limits.push((leg, self.now + limit));
                }
            }
        }
        self.replies.push((leg, reply));
    }
}
