//! One decision that somebody watches: it is made on figures that stand still.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use parking_lot::MutexGuard;

use super::Refusal;
use crate::capture::lines::{DecisionLine, MatchLine, RunLine};
use crate::capture::{Capture, Note, features};
use crate::clock;
use crate::pool::{Endpoint, LoadState, Snapshot};
use crate::prefix::PrefixMatch;
use crate::scheduling::{Candidates, CycleRecorder, Decision, Mask, RequestView};

/// The list of endpoints on whose figures a decision is made, with a list of the same whose figures stand still.
pub(super) type Lists = Option<(Arc<Snapshot>, Arc<Snapshot>)>;

/// One decision that somebody watches. Others wait until it is dropped.
pub(super) struct Session<'b> {
    lists: MutexGuard<'b, Lists>,
    /// Times are counted from here, as ages of figures are.
    epoch: Instant,
    /// Number of the configuration.
    generation: u64,
    /// Where it is written down.
    capture: Option<Arc<Capture>>,
    now: Instant,
    _still: clock::Standstill,
    /// The endpoints as others see them.
    live: Option<Arc<Snapshot>>,
    line: Box<DecisionLine>,
    loads: Vec<(u32, LoadState)>,
}

impl<'b> Session<'b> {
    /// A decision under the configuration with this number. Others wait for `lists`.
    pub(super) fn begin(
        lists: MutexGuard<'b, Lists>,
        epoch: Instant,
        generation: u64,
        capture: Option<Arc<Capture>>,
    ) -> Self {
        let now = clock::now();
        Self {
            lists,
            epoch,
            generation,
            capture,
            now,
            _still: clock::stand_still(now),
            live: None,
            line: Box::default(),
            loads: Vec::new(),
        }
    }

    /// The decision is written down.
    pub(super) fn captures(&self) -> bool {
        self.capture.is_some()
    }

    /// The same candidates with figures that stand still. `rng` is the state of the request's generator.
    pub(super) fn freeze(&mut self, candidates: &Candidates, rng: u64) -> Candidates {
        let live = candidates.snapshot();
        let known = self.lists.as_ref().filter(|(known, _)| Arc::ptr_eq(known, live));
        let still = if let Some((_, still)) = known {
            Arc::clone(still)
        } else {
            let endpoints = live.endpoints().iter();
            let endpoints = endpoints.map(|endpoint| (endpoint.spec().clone(), endpoint.incarnation()));
            let still = Arc::new(Snapshot::of(live.version(), endpoints, self.epoch));
            *self.lists = Some((Arc::clone(live), Arc::clone(&still)));
            still
        };
        let captures = self.captures();
        if captures {
            self.loads.reserve(candidates.len());
        }
        for slot in 0..candidates.len() as u32 {
            let place = candidates.place(slot);
            let state = candidates.at(slot).load().state();
            if let Some(endpoint) = still.endpoints().get(place as usize) {
                endpoint.load().set_state(&state);
            }
            if captures {
                self.loads.push((place, state));
            }
        }
        if captures {
            self.line.rng = rng.to_string();
            self.line.pool_version = live.version();
            self.line.candidates = candidates.places().map(<[u32]>::to_vec);
        }
        self.live = Some(Arc::clone(live));
        candidates.in_snapshot(still)
    }

    /// The request, and what the candidates are believed to hold of its prompt.
    pub(super) fn request(&mut self, view: &RequestView<'_>, model: &str, matches: Option<&[PrefixMatch]>) {
        let Some(capture) = &self.capture else { return };
        self.line.request = features(view, model, &capture.rule());
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

    /// The decision of the request with this number, which was in queues for so long, is made: `primary` is the profile
    /// that answers, or the request is refused.
    pub(super) fn finish(self, number: u64, queue: Duration, primary: Result<&str, &Refusal>) {
        let Self { epoch, generation, capture, now, mut line, loads, live, .. } = self;
        let Some((live, capture)) = live.zip(capture) else { return };
        let wall = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        line.n = number;
        line.generation = generation;
        line.time_us = wall.as_micros() as u64;
        line.now_ns = now.saturating_duration_since(epoch).as_nanos() as u64;
        line.queue_us = queue.as_micros() as u64;
        match primary {
            Ok(profile) => line.primary = Some(profile.to_owned()),
            Err(refusal) => line.refusal = Some(refusal.reason.label().to_owned()),
        }
        capture.note(Note::Decision(line, live, loads));
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
