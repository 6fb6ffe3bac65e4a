//! What is noted while a request is decided.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use smallvec::SmallVec;

use super::facts::{Known, Verdict, Waited};
use super::names::PolicyNames;
use super::record::{Figures, Record};
use super::runs::Runs;
use super::shadow::ShadowNote;
use crate::pool::{Age, Endpoint};
use crate::prefix::PrefixMatch;
use crate::scheduling::{Candidates, CycleRecorder, HeaderEdits, Mask};

/// Header changes of plugins that are kept of a request.
const MOST_EDITS: usize = 16;
/// Bytes of a header's name or value that are kept.
const LONGEST_EDIT: usize = 128;

/// The notes of one request. It listens to the cycle.
#[derive(Debug)]
pub struct Draft {
    names: Arc<PolicyNames>,
    sequence: u64,
    seed: u64,
    time: SystemTime,
    received: Instant,
    waited: Waited,
    candidates: Option<Candidates>,
    figures: Vec<Figures>,
    blocks: u32,
    block_size: u32,
    matches: bool,
    runs: Runs,
    shadow: Option<Box<ShadowNote>>,
    edits: Vec<(String, String)>,
}

impl Draft {
    /// The notes of the request with this number, whose generator began with `seed`, and whose headers came at
    /// `received`.
    pub fn new(names: &Arc<PolicyNames>, sequence: u64, seed: u64, received: Instant) -> Self {
        Self {
            names: Arc::clone(names),
            sequence,
            seed,
            time: SystemTime::now(),
            received,
            waited: Waited::default(),
            candidates: None,
            figures: Vec::new(),
            blocks: 0,
            block_size: 0,
            matches: false,
            runs: Runs::default(),
            shadow: None,
            edits: Vec::new(),
        }
    }

    /// What the request waited for.
    pub fn waited(&mut self) -> &mut Waited {
        &mut self.waited
    }

    /// The candidates, with their figures as they are at `now`. `matches` has a cell for each candidate.
    pub fn candidates(&mut self, candidates: &Candidates, matches: Option<&[PrefixMatch]>, now: Instant) {
        let matches = matches.filter(|matches| matches.len() == candidates.len());
        self.matches = matches.is_some();
        if let Some(first) = matches.and_then(<[PrefixMatch]>::first) {
            (self.blocks, self.block_size) = (first.total, first.block_size);
        }
        self.figures = candidates.iter().map(|endpoint| figures(endpoint, now)).collect();
        for (figures, found) in self.figures.iter_mut().zip(matches.unwrap_or_default()) {
            figures.matched = found.matched;
        }
        self.runs = Runs::new(self.figures.len());
        self.candidates = Some(candidates.clone());
    }

    /// What a shadow would have chosen.
    pub fn shadow(&mut self, note: ShadowNote) {
        self.shadow = Some(Box::new(note));
    }

    /// What plugins change in the headers of the request.
    pub fn edits(&mut self, edits: &HeaderEdits) {
        let text = |bytes: &[u8]| {
            let kept = bytes.get(..LONGEST_EDIT).unwrap_or(bytes);
            String::from_utf8_lossy(kept).into_owned()
        };
        let set = edits.set.iter().map(|(name, value)| (text(name), text(value)));
        let removed = edits.remove.iter().map(|name| (text(name), String::new()));
        self.edits = set.chain(removed).take(MOST_EDITS).collect();
    }

    /// The record of a request that was forwarded.
    pub fn routed(mut self, known: Known, targets: SmallVec<[Arc<Endpoint>; 1]>, primary: usize) -> Record {
        let edits = std::mem::take(&mut self.edits);
        self.finish(known, Verdict::Routed { targets, primary, edits })
    }

    /// The record.
    pub fn finish(self, known: Known, verdict: Verdict) -> Record {
        let places = self.candidates.as_ref().and_then(|candidates| {
            let everyone = candidates.len() == candidates.snapshot().len();
            (!everyone).then(|| candidates.slots().into_iter().map(|slot| candidates.place(slot)).collect())
        });
        Record {
            sequence: self.sequence,
            seed: self.seed,
            time: self.time,
            received: self.received,
            decided: Instant::now(),
            known,
            waited: self.waited,
            names: self.names,
            snapshot: self.candidates.map(|candidates| Arc::clone(candidates.snapshot())),
            places,
            figures: self.figures,
            blocks: self.blocks,
            block_size: self.block_size,
            matches: self.matches,
            runs: self.runs.list,
            shadow: self.shadow,
            verdict,
            outcome: std::sync::OnceLock::new(),
        }
    }
}

fn figures(endpoint: &Endpoint, now: Instant) -> Figures {
    let load = endpoint.load();
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Figures {
        age_ms: match load.age(now) {
            Age::Never => u32::MAX,
            Age::Since(age) => {
                u32::try_from(age.as_millis()).map_or(u32::MAX - 1, |age| age.min(u32::MAX - 1))
            }
        },
        waiting: small(load.waiting()),
        running: small(load.running()),
        kv_usage: load.kv_usage() as f32,
        in_flight: small(load.in_flight()),
        in_flight_tokens: small(load.in_flight_tokens()),
        sent_since_reading: small(load.dispatched_since_reading()),
        matched: 0,
    }
}

impl CycleRecorder for Draft {
    fn begin(&mut self, profile: usize, slots: &[u32]) {
        self.runs.begin(profile, slots);
    }

    fn filtered(&mut self, filter: usize, slots: &[u32], keep: &Mask) {
        self.runs.filtered(filter, slots, keep);
    }

    fn scored(&mut self, scorer: usize, scores: &[f64]) {
        self.runs.scored(scorer, scores);
    }

    fn picked(&mut self, draw: u64, totals: &[f64], picked: &[u32]) {
        self.runs.picked(draw, totals, picked);
    }
}
