//! Who keeps series of its own: now and then the idle give way to the busy.
//!
//! A tenant or a model that loses its label counts as `other` from then on. Its own series end: a scraper marks them as
//! gone, and no series ever falls. If it is elected again, its series begin anew at 0, as after a restart.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::histogram_set::HistogramSet;
use super::label_sets::{LabelSets, Written};
use super::labels::Labels;
use super::request::LabelSet;

/// Share of the sets that give way when there was no room for new ones, as a divisor.
const COLD_SHARE: usize = 8;

/// Sets that may get histograms of their own in place of others at one election.
const CHANGES: usize = 4;

/// Uses beyond twice those of an idle one that a busy one needs to take its place.
const MARGIN: u64 = 8;

impl LabelSets {
    /// Looks at what happened since the last election. `priorities` are those that objectives have; series of other
    /// ones go once they are idle.
    pub(super) fn elect(&self, priorities: &[i32]) {
        let mut writer = self.writer.lock();
        let sets = self.sets.load_full();
        for set in sets.iter().chain([&self.last]) {
            let activity = set.activity.load(Relaxed) / 2 + set.uses.swap(0, Relaxed);
            set.activity.store(activity, Relaxed);
        }
        let losers = self.losers(&sets, priorities);
        if !losers.is_empty() {
            let mut next = hashbrown::HashSet::clone(&sets);
            for loser in losers {
                next.remove(&loser);
                writer.retired.push(loser);
            }
            self.sets.store(Arc::new(next));
        }
        drop(sets);
        self.share_histograms(&mut writer);
        self.sweep(&mut writer);
    }

    fn losers(&self, sets: &hashbrown::HashSet<Arc<LabelSet>>, priorities: &[i32]) -> Vec<Arc<LabelSet>> {
        let mut tenants: HashMap<String, u64> = HashMap::new();
        let mut models: HashMap<String, u64> = HashMap::new();
        for set in sets {
            let (key, activity) = (set.key(), set.activity.load(Relaxed));
            *tenants.entry(key.fairness_id.to_owned()).or_default() += activity;
            *models.entry(key.model.to_owned()).or_default() += activity;
            if key.target_model != key.model {
                *models.entry(key.target_model.to_owned()).or_default() += activity;
            }
        }
        let (tenants, models) = (self.fairness.elect(&tenants), self.models.elect(&models));
        let lost = |set: &LabelSet| {
            let key = set.key();
            let gone = key.priority != 0 && !priorities.contains(&key.priority);
            gone && set.activity.load(Relaxed) == 0
                || tenants.iter().any(|tenant| **tenant == *key.fairness_id)
                || models.iter().any(|model| **model == *key.model || **model == *key.target_model)
        };
        let (mut losers, mut rest): (Vec<_>, Vec<_>) = sets.iter().cloned().partition(|set| lost(set));
        if self.crowded.swap(false, Relaxed) && losers.len() < self.bounds.sets / COLD_SHARE {
            rest.sort_by_key(|set| set.activity.load(Relaxed));
            let cold = rest.len() / COLD_SHARE;
            losers.extend(rest.into_iter().take(cold));
        }
        losers
    }

    /// Gives histograms to the busiest sets that have none of their own, and takes them from the least busy for the
    /// next election.
    fn share_histograms(&self, writer: &mut Written) {
        let sets = self.sets.load();
        let nobody = self.last.histograms();
        let mut without: Vec<&Arc<LabelSet>> =
            sets.iter().filter(|set| Arc::ptr_eq(&set.histograms(), &nobody)).collect();
        without.sort_by_key(|set| std::cmp::Reverse(set.activity.load(Relaxed)));
        let mut waiting = Vec::new();
        for set in without.into_iter().take(CHANGES) {
            match self.histograms(writer, set.key()) {
                Some(histograms) => set.use_histograms(histograms),
                None => waiting.push(set.activity.load(Relaxed)),
            }
        }
        if waiting.is_empty() {
            return;
        }
        let mut holders: Vec<(u64, Arc<HistogramSet>)> =
            writer.histograms.values().map(|held| (0, Arc::clone(held))).collect();
        for (activity, held) in &mut holders {
            let users = sets.iter().filter(|set| Arc::ptr_eq(&set.histograms(), held));
            *activity = users.map(|set| set.activity.load(Relaxed)).sum();
        }
        holders.sort_by_key(|(activity, _)| *activity);
        for (busy, (idle, held)) in waiting.into_iter().zip(holders) {
            if busy <= idle.saturating_mul(2) + MARGIN {
                break;
            }
            for set in sets.iter().filter(|set| Arc::ptr_eq(&set.histograms(), &held)) {
                set.use_histograms(Arc::clone(&nobody));
            }
        }
    }

    /// Takes the series of sets off the page that nobody holds any more: no request can touch them again.
    fn sweep(&self, writer: &mut Written) {
        let sets = self.sets.load();
        let retired = std::mem::take(&mut writer.retired);
        let (kept, gone): (Vec<_>, Vec<_>) = retired.into_iter().partition(|set| Arc::strong_count(set) > 1);
        for set in gone {
            let others: Vec<&Labels> = sets.iter().chain(&kept).map(|other| other.labels()).collect();
            if !others.contains(&set.labels()) {
                set.remove(&others);
            }
        }
        writer.retired = kept;
        let unused: Vec<_> = writer
            .histograms
            .iter()
            .filter(|(_, held)| Arc::strong_count(held) == 1)
            .map(|(labels, _)| labels.clone())
            .collect();
        for labels in unused {
            if let Some(set) = writer.histograms.remove(&labels) {
                set.remove(writer.histograms.keys().any(|other| other.shares_legacy(&labels)));
            }
        }
    }
}
