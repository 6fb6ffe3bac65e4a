//! What is taken down of a cycle, in numbers.

use crate::scheduling::{CycleRecorder, Mask};

/// Runs of profiles that are kept of a request.
const MOST_RUNS: usize = 16;

/// No filter removed this candidate.
pub(super) const KEPT: u16 = u16::MAX;

/// One run of one profile.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Index of the profile.
    pub(super) profile: u16,
    /// By slot, the index of the filter that removed the candidate, or [`KEPT`]. Empty if no filter ran.
    pub(super) removed: Vec<u16>,
    /// Slots of the survivors; empty stands for all candidates.
    pub(super) survivors: Vec<u32>,
    /// Raw scores: all of the first scorer by position, then all of the second, and so on.
    pub(super) scores: Vec<f32>,
    /// Weighted totals by position.
    pub(super) totals: Vec<f64>,
    /// State of the random generator before the choice.
    pub(super) draw: u64,
    /// Chosen slots, best first; empty if the profile found none.
    pub(super) picked: Vec<u32>,
}

/// The runs of profiles of one request. It listens to the cycle.
#[derive(Debug, Default)]
pub struct Runs {
    candidates: usize,
    pub(super) list: Vec<Run>,
}

impl Runs {
    /// None yet, over so many candidates.
    pub fn new(candidates: usize) -> Self {
        Self { candidates, list: Vec::new() }
    }

    /// Bytes behind the list.
    pub(super) fn bytes(list: &[Run]) -> usize {
        let run = |run: &Run| {
            size_of::<Run>()
                + run.removed.capacity() * 2
                + (run.survivors.capacity() + run.scores.capacity() + run.picked.capacity()) * 4
                + run.totals.capacity() * 8
        };
        list.iter().map(run).sum()
    }
}

impl CycleRecorder for Runs {
    fn begin(&mut self, profile: usize, slots: &[u32]) {
        if self.list.len() == MOST_RUNS {
            self.list.pop();
        }
        let everyone = slots.len() == self.candidates;
        self.list.push(Run {
            profile: u16::try_from(profile).unwrap_or(u16::MAX),
            survivors: if everyone { Vec::new() } else { slots.to_vec() },
            ..Run::default()
        });
    }

    fn filtered(&mut self, filter: usize, slots: &[u32], keep: &Mask) {
        let Some(run) = self.list.last_mut() else { return };
        if run.removed.is_empty() {
            run.removed = vec![KEPT; self.candidates];
        }
        let filter = u16::try_from(filter).unwrap_or(KEPT - 1);
        for (position, slot) in slots.iter().enumerate() {
            if !keep.contains(position)
                && let Some(removed) = run.removed.get_mut(*slot as usize)
            {
                *removed = filter;
            }
        }
    }

    fn scored(&mut self, _scorer: usize, scores: &[f64]) {
        let Some(run) = self.list.last_mut() else { return };
        run.scores.extend(scores.iter().map(|score| *score as f32));
    }

    fn picked(&mut self, draw: u64, totals: &[f64], picked: &[u32]) {
        let Some(run) = self.list.last_mut() else { return };
        if run.removed.iter().any(|filter| *filter != KEPT) {
            let slots = 0..run.removed.len() as u32;
            run.survivors = slots
                .zip(&run.removed)
                .filter(|(_, filter)| **filter == KEPT)
                .map(|(slot, _)| slot)
                .collect();
        }
        run.draw = draw;
        run.totals = totals.to_vec();
        let slot = |position: &u32| match run.survivors.as_slice() {
            [] => Some(*position),
            survivors => survivors.get(*position as usize).copied(),
        };
        run.picked = picked.iter().filter_map(slot).collect();
    }
}
