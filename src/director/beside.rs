//! What goes on beside decisions, where somebody asked for it: the capture of what they were made from.
//!
//! While it does, requests are decided one after the other, each on figures that stand still, so that what is written
//! down is what was read. Where nobody asked for it, one look at a switch is all it costs.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};

use super::Refusal;
use crate::capture::lines::{DecisionLine, MatchLine, RunLine};
use crate::capture::{Capture, Note, features};
use crate::clock;
use crate::pool::{Endpoint, LoadState, Snapshot};
use crate::prefix::PrefixMatch;
use crate::scheduling::{Candidates, CycleRecorder, Decision, Mask, RequestView};

/// What goes on beside the decisions of one pool.
#[derive(Debug)]
pub struct Beside {
    capture: Option<Arc<Capture>>,
    /// Times of lines are counted from here, as ages of figures are.
    epoch: Instant,
    stage: Mutex<Stage>,
}

/// The list of endpoints on whose figures a decision is made, with a list of the same whose figures stand still.
#[derive(Debug, Default)]
struct Stage {
    lists: Option<(Arc<Snapshot>, Arc<Snapshot>)>,
}

impl Beside {
    /// Beside the decisions of a pool that counts time from `epoch`.
    pub fn new(capture: Option<Arc<Capture>>, epoch: Instant) -> Self {
        Self { capture, epoch, stage: Mutex::default() }
    }

    /// The capture, while it is on.
    fn capturing(&self) -> Option<&Arc<Capture>> {
        self.capture.as_ref().filter(|capture| capture.is_on())
    }

    /// A decision begins; `None` if nothing goes on beside it.
    pub(super) fn enter(&self) -> Option<Session<'_>> {
        let capture = self.capturing()?;
        let stage = self.stage.lock();
        let now = clock::now();
        Some(Session {
            beside: self,
            stage,
            capture: Arc::clone(capture),
            now,
            _still: clock::stand_still(now),
            live: None,
            line: Box::default(),
            loads: Vec::new(),
        })
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_nanos() as u64
    }
}

/// Calls hooks of a response. Where somebody watches, they run between two decisions, and `note` says what happened at
/// how many nanoseconds.
pub(super) fn between_decisions<R>(
    beside: Option<&Beside>,
    now: Option<Instant>,
    call: impl FnOnce() -> R,
    note: impl FnOnce(u64) -> Note,
) -> R {
    let Some((beside, capture)) = beside.and_then(|beside| Some((beside, beside.capturing()?))) else {
        return call();
    };
    let _stage = beside.stage.lock();
    let now = now.unwrap_or_else(clock::now);
    let _still = clock::stand_still(now);
    let result = call();
    capture.note(note(beside.nanos(now)));
    result
}

/// One decision that somebody watches. Others wait until it is dropped.
pub(super) struct Session<'b> {
    beside: &'b Beside,
    stage: MutexGuard<'b, Stage>,
    capture: Arc<Capture>,
    now: Instant,
    _still: clock::Standstill,
    /// The endpoints as others see them.
    live: Option<Arc<Snapshot>>,
    line: Box<DecisionLine>,
    loads: Vec<(u32, LoadState)>,
}

impl Session<'_> {
    /// The same candidates with figures that stand still. `rng` is the state of the request's generator.
    pub(super) fn freeze(&mut self, candidates: &Candidates, rng: u64) -> Candidates {
        let live = candidates.snapshot();
        let known = self.stage.lists.as_ref().filter(|(known, _)| Arc::ptr_eq(known, live));
        let still = if let Some((_, still)) = known {
            Arc::clone(still)
        } else {
            let endpoints = live.endpoints().iter();
            let endpoints = endpoints.map(|endpoint| (endpoint.spec().clone(), endpoint.incarnation()));
            let still = Arc::new(Snapshot::of(live.version(), endpoints, self.beside.epoch));
            self.stage.lists = Some((Arc::clone(live), Arc::clone(&still)));
            still
        };
        self.loads.reserve(candidates.len());
        for slot in 0..candidates.len() as u32 {
            let place = candidates.place(slot);
            let state = candidates.at(slot).load().state();
            if let Some(endpoint) = still.endpoints().get(place as usize) {
                endpoint.load().set_state(&state);
            }
            self.loads.push((place, state));
        }
        self.line.rng = rng.to_string();
        self.line.pool_version = live.version();
        self.line.candidates = candidates.places().map(<[u32]>::to_vec);
        self.live = Some(Arc::clone(live));
        candidates.in_snapshot(still)
    }

    /// The request, and what the candidates are believed to hold of its prompt.
    pub(super) fn request(&mut self, view: &RequestView<'_>, model: &str, matches: Option<&[PrefixMatch]>) {
        self.line.request = features(view, model, &self.capture.rule());
        view.id.clone_into(&mut self.line.id);
        self.line.matches = matches.and_then(match_line);
    }

    /// What the profiles did.
    pub(super) fn runs(&mut self, runs: Vec<RunLine>) {
        self.line.runs = runs;
    }

    /// The decision with the endpoints as others see them.
    pub(super) fn live(&mut self, candidates: &Candidates, decision: &Decision, bound: bool) -> Decision {
        let place = |target: &Arc<Endpoint>| {
            let slot = candidates.iter().position(|candidate| Arc::ptr_eq(candidate, target))?;
            Some(candidates.place(slot as u32))
        };
        self.line.targets = decision.targets().iter().filter_map(place).collect();
        self.line.bound = bound;
        let mut decision = decision.clone();
        for target in decision.profiles.iter_mut().flatten().flat_map(|result| &mut result.targets) {
            let live = self.live.as_ref().zip(place(target));
            if let Some(endpoint) = live.and_then(|(live, place)| live.endpoints().get(place as usize)) {
                *target = Arc::clone(endpoint);
            }
        }
        decision
    }

    /// The decision of the request with this number, which was in queues for so long, is made: `primary` is the profile that answers, or the request is refused.
    pub(super) fn finish(self, number: u64, queue: Duration, primary: Result<&str, &Refusal>) {
        if self.live.is_none() {
            return;
        }
        let Self { beside, capture, now, mut line, loads, live, .. } = self;
        let wall = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        line.n = number;
        line.time_us = wall.as_micros() as u64;
        line.now_ns = beside.nanos(now);
        line.queue_us = queue.as_micros() as u64;
        match primary {
            Ok(profile) => line.primary = Some(profile.to_owned()),
            Err(refusal) => line.refusal = Some(refusal.reason.label().to_owned()),
        }
        if let Some(live) = live {
            capture.note(Note::Decision(line, live, loads));
        }
    }
}

fn match_line(matches: &[PrefixMatch]) -> Option<MatchLine> {
    let first = matches.first()?;
    let list = |read: fn(&PrefixMatch) -> u32| matches.iter().map(read).collect::<Vec<_>>();
    let (matched, cached) = (list(|it| it.matched), list(|it| it.cached));
    let unless = |list: Vec<u32>, idle: bool| if idle { Vec::new() } else { list };
    let same = matched == cached;
    let nothing = matched.iter().all(|matched| *matched == 0);
    Some(MatchLine {
        total: first.total,
        block_size: first.block_size,
        matched: unless(matched, nothing),
        cached: unless(cached, same),
    })
}

/// Two who take down the numbers of one cycle.
pub(super) struct Both<'a>(
    pub(super) Option<&'a mut (dyn CycleRecorder + 'a)>,
    pub(super) &'a mut (dyn CycleRecorder + 'a),
);

impl Both<'_> {
    fn each(&mut self, mut tell: impl FnMut(&mut dyn CycleRecorder)) {
        if let Some(first) = &mut self.0 {
            tell(&mut **first);
        }
        tell(&mut *self.1);
    }
}

impl CycleRecorder for Both<'_> {
    fn begin(&mut self, profile: usize, slots: &[u32]) {
        self.each(|recorder| recorder.begin(profile, slots));
    }

    fn filtered(&mut self, filter: usize, slots: &[u32], keep: &Mask) {
        self.each(|recorder| recorder.filtered(filter, slots, keep));
    }

    fn scored(&mut self, scorer: usize, scores: &[f64]) {
        self.each(|recorder| recorder.scored(scorer, scores));
    }

    fn picked(&mut self, draw: u64, totals: &[f64], picked: &[u32]) {
        self.each(|recorder| recorder.picked(draw, totals, picked));
    }
}
