//! Numbers of a record, with the names that they stand for.

use std::sync::Arc;

use super::names::PolicyNames;
use super::runs::{KEPT, Run};
use super::view::{ProfileView, RemovedView, RowView, ScorerView};
use crate::pool::{Endpoint, Snapshot};

/// The plugins and endpoints that numbers of a record stand for.
#[derive(Clone, Copy)]
pub(super) struct Cast<'r> {
    pub(super) names: &'r PolicyNames,
    pub(super) snapshot: Option<&'r Arc<Snapshot>>,
    /// Places of the candidates in the snapshot; `None` for all.
    pub(super) places: Option<&'r [u32]>,
}

impl<'r> Cast<'r> {
    /// The endpoint of the candidate in `slot`.
    pub(super) fn endpoint(self, slot: u32) -> Option<&'r Arc<Endpoint>> {
        let place = match self.places {
            None => slot,
            Some(places) => *places.get(slot as usize)?,
        };
        self.snapshot?.endpoints().get(place as usize)
    }

    pub(super) fn name(self, slot: u32) -> String {
        self.endpoint(slot).map(|endpoint| endpoint.id().to_string()).unwrap_or_default()
    }

    fn survivor(self, run: &Run, position: usize) -> Option<&'r Arc<Endpoint>> {
        let slot = match run.survivors.as_slice() {
            [] => u32::try_from(position).ok()?,
            survivors => *survivors.get(position)?,
        };
        self.endpoint(slot)
    }

    /// Total of the winner in the last run of the profile that answers, and how far it is ahead of the best other one.
    pub(super) fn score_and_margin(
        self,
        runs: &[Run],
        primary: usize,
        winner: &Endpoint,
    ) -> Option<(f64, Option<f64>)> {
        let run = runs.iter().rev().find(|run| usize::from(run.profile) == primary)?;
        let is_winner = |position: usize| {
            let endpoint = self.survivor(run, position);
            endpoint.is_some_and(|endpoint| endpoint.incarnation() == winner.incarnation())
        };
        let at = (0..run.totals.len()).find(|position| is_winner(*position))?;
        let others = run.totals.iter().enumerate().filter(|(position, _)| *position != at);
        let best = others.map(|(_, total)| *total).max_by(f64::total_cmp);
        Some((run.totals[at], best.map(|best| run.totals[at] - best)))
    }

    pub(super) fn profile(self, run: &Run) -> ProfileView {
        let Some(names) = self.names.0.get(usize::from(run.profile)) else { return ProfileView::default() };
        let removed = names.filters.iter().enumerate().map(|(index, filter)| {
            let slots =
                (0u32..).zip(&run.removed).filter(|(_, by)| usize::from(**by) == index && **by != KEPT);
            RemovedView {
                filter: filter.name.to_string(),
                r#type: filter.kind.to_owned(),
                endpoints: slots.map(|(slot, _)| self.name(slot)).collect(),
            }
        });
        let scorers = names.scorers.iter().map(|scorer| ScorerView {
            name: scorer.name.to_string(),
            r#type: scorer.kind.to_owned(),
            weight: scorer.weight,
        });
        let survivors = run.totals.len();
        let rows = run.totals.iter().enumerate().map(|(position, total)| {
            let raw: Vec<f32> = run.scores.iter().skip(position).step_by(survivors.max(1)).copied().collect();
            let scores: Vec<f32> =
                raw.iter().map(|raw| if raw.is_nan() { 0.0 } else { raw.clamp(0.0, 1.0) }).collect();
            let endpoint = self.survivor(run, position);
            RowView {
                endpoint: endpoint.map(|endpoint| endpoint.id().to_string()).unwrap_or_default(),
                raw_scores: (raw != scores).then_some(raw),
                scores,
                total: *total,
            }
        });
        ProfileView {
            name: names.name.to_string(),
            removed: removed.filter(|removed| !removed.endpoints.is_empty()).collect(),
            scorers: scorers.collect(),
            rows: rows.collect(),
            picker: names.picker.name.to_string(),
            picker_type: names.picker.kind.to_owned(),
            draw: run.draw.to_string(),
            picked: run.picked.iter().map(|slot| self.name(*slot)).collect(),
        }
    }
}
