//! Records the runs of profiles for a capture.

use super::exact::Exact;
use super::lines::{RemovedLine, RunLine};
use crate::scheduling::{Candidates, CycleRecorder, Mask, Profile};

/// The most runs of profiles that are kept of one request.
const MOST_RUNS: usize = 16;

/// Records the runs of profiles over these candidates.
#[derive(Debug)]
pub struct RunNotes<'c> {
    candidates: &'c Candidates,
    profiles: &'c [Profile],
    current: Option<usize>,
    slots: Vec<u32>,
    runs: Vec<RunLine>,
}

impl<'c> RunNotes<'c> {
    /// Makes a recorder without runs.
    pub fn new(candidates: &'c Candidates, profiles: &'c [Profile]) -> Self {
        Self { candidates, profiles, current: None, slots: Vec::new(), runs: Vec::new() }
    }

    /// Returns the recorded runs.
    pub fn finish(self) -> Vec<RunLine> {
        self.runs
    }

    fn place(&self, slot: u32) -> u32 {
        self.candidates.place(slot)
    }
}

impl CycleRecorder for RunNotes<'_> {
    fn begin(&mut self, profile: usize, slots: &[u32]) {
        if self.runs.len() == MOST_RUNS {
            self.runs.pop();
        }
        self.current = Some(profile);
        self.slots = slots.to_vec();
        let name = self.profiles.get(profile).map(|profile| profile.name.to_string());
        let survivors = slots.iter().map(|slot| self.place(*slot)).collect();
        self.runs.push(RunLine { profile: name.unwrap_or_default(), survivors, ..RunLine::default() });
    }

    fn filtered(&mut self, filter: usize, slots: &[u32], keep: &Mask) {
        let (kept, gone): (Vec<_>, Vec<_>) =
            slots.iter().enumerate().partition(|(position, _)| keep.contains(*position));
        self.slots = kept.iter().map(|(_, slot)| **slot).collect();
        let survivors = self.slots.iter().map(|slot| self.place(*slot)).collect();
        let endpoints: Vec<u32> = gone.iter().map(|(_, slot)| self.place(**slot)).collect();
        let profile = self.current.and_then(|profile| self.profiles.get(profile));
        let filter = profile.and_then(|profile| profile.filters.get(filter));
        let filter = filter.map(|filter| filter.name.to_string()).unwrap_or_default();
        let Some(run) = self.runs.last_mut() else { return };
        run.survivors = survivors;
        if !endpoints.is_empty() {
            run.removed.push(RemovedLine { filter, endpoints });
        }
    }

    fn scored(&mut self, _scorer: usize, scores: &[f64]) {
        if let Some(run) = self.runs.last_mut() {
            run.scores.push(scores.iter().copied().map(Exact).collect());
        }
    }

    fn picked(&mut self, draw: u64, totals: &[f64], picked: &[u32]) {
        let Some(run) = self.runs.last_mut() else { return };
        run.draw = draw.to_string();
        run.totals = totals.iter().copied().map(Exact).collect();
        run.picked =
            picked.iter().filter_map(|position| run.survivors.get(*position as usize).copied()).collect();
    }
}
