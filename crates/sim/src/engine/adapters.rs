//! The LoRA adapters of running and of waiting requests, as the server reports them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The number of past states that are kept. vLLM keeps all of them; the newest has the highest time.
const ROWS_KEPT: usize = 32;

/// One state of the adapters: a row of `vllm:lora_requests_info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdapterRow {
    /// The names of adapters with at least one running request, sorted and separated by commas.
    pub(crate) running: String,
    /// The names of adapters with at least one waiting request, sorted and separated by commas.
    pub(crate) waiting: String,
    /// The time, since the engine's start, at which the state was last seen.
    pub(crate) at: Duration,
}

/// The number of running and waiting requests of each adapter.
#[derive(Debug, Default)]
pub(crate) struct Adapters {
    running: BTreeMap<Arc<str>, usize>,
    waiting: BTreeMap<Arc<str>, usize>,
    rows: VecDeque<AdapterRow>,
}

impl Adapters {
    pub(crate) fn waits(&mut self, adapter: Option<&Arc<str>>) {
        add(&mut self.waiting, adapter);
    }

    pub(crate) fn waits_no_more(&mut self, adapter: Option<&Arc<str>>) {
        remove(&mut self.waiting, adapter);
    }

    pub(crate) fn runs(&mut self, adapter: Option<&Arc<str>>) {
        add(&mut self.running, adapter);
    }

    pub(crate) fn runs_no_more(&mut self, adapter: Option<&Arc<str>>) {
        remove(&mut self.running, adapter);
    }

    /// True if a request for `adapter` may join the running requests when at most `max` adapters fit into the batch.
    pub(crate) fn fits(&self, adapter: Option<&Arc<str>>, max: usize) -> bool {
        adapter.is_none_or(|name| self.running.contains_key(name) || self.running.len() < max)
    }

    /// Records the present state at the time `now`.
    pub(crate) fn note(&mut self, now: Duration) {
        let (running, waiting) = (join(&self.running), join(&self.waiting));
        if let Some(row) = self.rows.iter_mut().find(|row| row.running == running && row.waiting == waiting) {
            row.at = now;
            return;
        }
        if self.rows.len() == ROWS_KEPT {
            self.forget_oldest();
        }
        self.rows.push_back(AdapterRow { running, waiting, at: now });
    }

    /// The names of adapters with running requests, and of those with waiting requests, each sorted and separated by
    /// commas.
    pub(crate) fn names(&self) -> (String, String) {
        (join(&self.running), join(&self.waiting))
    }

    /// All recorded states, in the order of their first appearance.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &AdapterRow> {
        self.rows.iter()
    }

    fn forget_oldest(&mut self) {
        let oldest = self.rows.iter().enumerate().min_by_key(|(_, row)| row.at).map(|(index, _)| index);
        if let Some(index) = oldest {
            self.rows.remove(index);
        }
    }
}

fn add(counts: &mut BTreeMap<Arc<str>, usize>, adapter: Option<&Arc<str>>) {
    if let Some(name) = adapter {
        *counts.entry(Arc::clone(name)).or_default() += 1;
    }
}

fn remove(counts: &mut BTreeMap<Arc<str>, usize>, adapter: Option<&Arc<str>>) {
    let Some(name) = adapter else { return };
    if let Some(count) = counts.get_mut(name) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(name);
        }
    }
}

fn join(counts: &BTreeMap<Arc<str>, usize>) -> String {
    counts.keys().map(AsRef::as_ref).collect::<Vec<&str>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_row_has_the_highest_time_and_old_rows_stay() {
        let mut adapters = Adapters::default();
        let name: Arc<str> = Arc::from("a");
        adapters.note(Duration::from_secs(1));
        adapters.runs(Some(&name));
        adapters.note(Duration::from_secs(2));
        adapters.runs_no_more(Some(&name));
        adapters.note(Duration::from_secs(3));
        let rows: Vec<(&str, u64)> =
            adapters.rows().map(|row| (row.running.as_str(), row.at.as_secs())).collect();
        assert_eq!(rows, [("", 3), ("a", 2)]);
    }

    #[test]
    fn the_rows_are_bounded() {
        let mut adapters = Adapters::default();
        for i in 0..500_u64 {
            let name: Arc<str> = Arc::from(format!("adapter-{i}"));
            adapters.runs(Some(&name));
            adapters.note(Duration::from_secs(i));
            adapters.runs_no_more(Some(&name));
        }
        assert_eq!(adapters.rows().count(), ROWS_KEPT);
        assert!(adapters.rows().any(|row| row.running == "adapter-499"));
    }
}
