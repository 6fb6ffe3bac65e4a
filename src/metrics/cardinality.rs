//! Bounds on label values that clients choose.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use prometheus::IntCounter;

use super::sketch::Sketch;

/// The label value that stands for all values beyond a bound.
pub(super) const OTHER: &str = "other";

/// Distinct values that a limiter admits by default.
pub(super) const VALUES: usize = 1000;

/// Bytes of a label value as it stands on the page; longer ones are folded, so that a thousand of them cannot fill the
/// memory.
const VALUE_BYTES: usize = 128;

/// Values that change places at one election: what a scraper sees come and go is bounded, however the traffic changes.
const CHANGES: usize = 8;

/// How often a value without a label must have been seen beyond twice the least busy one with a label, to take its
/// place.
const MARGIN: u64 = 8;

/// Pinned values; names from configuration, which may still change many times in the life of a process.
const PINNED: usize = 10_000;

/// Admits a bounded number of distinct values and folds the others. The first ones are admitted as they come; an
/// election now and then gives the places of the least busy ones to busier ones. Looking up an admitted value takes no
/// lock.
#[derive(Debug)]
pub(super) struct Limiter {
    cap: usize,
    sets: ArcSwap<Sets>,
    writer: Mutex<()>,
    folded: IntCounter,
    candidates: Mutex<Sketch>,
}

#[derive(Clone, Debug, Default)]
struct Sets {
    admitted: HashSet<Arc<str>>,
    pinned: HashSet<Arc<str>>,
}

impl Limiter {
    /// A limiter that admits `cap` values and counts each time it folds one.
    pub(super) fn new(cap: usize, folded: IntCounter) -> Self {
        Self { cap, sets: ArcSwap::default(), writer: Mutex::new(()), folded, candidates: Mutex::default() }
    }

    /// `value` if it is admitted, else [`OTHER`]. Empty values pass and take no place.
    pub(super) fn admit<'v>(&self, value: &'v str) -> &'v str {
        if value.is_empty() || value == OTHER || self.knows(value) {
            return value;
        }
        let fits = fits(value);
        if fits && self.insert(value) {
            return value;
        }
        self.folded.inc();
        // Whoever meets another one counting goes on: the busiest are found all the same.
        if fits && let Some(mut candidates) = self.candidates.try_lock() {
            candidates.see(value);
        }
        OTHER
    }

    /// Gives places of the least busy admitted values to values that were seen more often, and tells which lost theirs.
    /// `activity` says how busy the admitted ones were; whoever is not in it was not.
    pub(super) fn elect(&self, activity: &HashMap<String, u64>) -> Vec<Arc<str>> {
        let writer = self.writer.lock();
        let mut candidates = self.candidates.lock();
        let mut sets = Sets::clone(&self.sets.load());
        let mut losers = Vec::new();
        if sets.admitted.len() >= self.cap && candidates.busiest().is_some() {
            let mut places: Vec<(u64, Arc<str>)> = sets
                .admitted
                .iter()
                .map(|value| (activity.get(&**value).copied().unwrap_or(0), Arc::clone(value)))
                .collect();
            places.sort_unstable();
            for (busy, loser) in places.into_iter().take(CHANGES) {
                let best = candidates.busiest().filter(|(_, seen)| *seen > busy.saturating_mul(2) + MARGIN);
                let Some(winner) = best.map(|(winner, _)| Arc::<str>::from(winner)) else { break };
                candidates.forget(&winner);
                sets.admitted.remove(&loser);
                sets.admitted.insert(winner);
                losers.push(loser);
            }
        }
        candidates.fade();
        drop(candidates);
        if !losers.is_empty() {
            self.sets.store(Arc::new(sets));
        }
        drop(writer);
        losers
    }

    /// Values that are never folded and take no place; they stay pinned.
    pub(super) fn pin<'v>(&self, values: impl IntoIterator<Item = &'v str>) {
        let writer = self.writer.lock();
        let mut sets = Sets::clone(&self.sets.load());
        for value in values {
            if fits(value) && sets.pinned.len() < PINNED && !sets.pinned.contains(value) {
                sets.pinned.insert(value.into());
            }
        }
        self.sets.store(Arc::new(sets));
        drop(writer);
    }

    /// True if `value` is admitted or pinned. Asking takes no place.
    pub(super) fn knows(&self, value: &str) -> bool {
        let sets = self.sets.load();
        sets.admitted.contains(value) || sets.pinned.contains(value)
    }

    fn insert(&self, value: &str) -> bool {
        if self.sets.load().admitted.len() >= self.cap {
            return false;
        }
        let writer = self.writer.lock();
        let sets = self.sets.load();
        let known = sets.admitted.contains(value);
        let admitted = known || sets.admitted.len() < self.cap;
        if admitted && !known {
            let mut next = Sets::clone(&sets);
            next.admitted.insert(value.into());
            self.sets.store(Arc::new(next));
        }
        drop(writer);
        admitted
    }
}

/// True if the value may stand on the page: a quote, a backslash and a line feed take two bytes there.
fn fits(value: &str) -> bool {
    let escaped = memchr::memchr3_iter(b'"', b'\\', b'\n', value.as_bytes()).take(VALUE_BYTES).count();
    value.len() + escaped <= VALUE_BYTES
}

/// Bounds the number of series of one family whose labels are made of several values.
#[derive(Debug)]
pub(super) struct Gate {
    cap: usize,
    known: RwLock<HashSet<u64>>,
    folded: IntCounter,
}

impl Gate {
    /// A gate for `cap` series that counts each time it turns one away.
    pub(super) fn new(cap: usize, folded: IntCounter) -> Self {
        Self { cap, known: RwLock::default(), folded }
    }

    /// True if the series with these label values exists or may be made.
    pub(super) fn admits<const N: usize>(&self, values: &[&str; N]) -> bool {
        let key = Self::key(values);
        if self.known.read().contains(&key) {
            return true;
        }
        let mut known = self.known.write();
        let admitted = known.contains(&key) || known.len() < self.cap && known.insert(key);
        drop(known);
        if !admitted {
            self.folded.inc();
        }
        admitted
    }

    /// The series is gone, and its place is free.
    pub(super) fn forget<const N: usize>(&self, values: &[&str; N]) {
        self.known.write().remove(&Self::key(values));
    }

    fn key<const N: usize>(values: &[&str; N]) -> u64 {
        let mut hasher = DefaultHasher::new();
        values.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limiter(cap: usize) -> Limiter {
        Limiter::new(cap, IntCounter::new("folded", "folded").unwrap())
    }

    #[test]
    fn values_beyond_the_cap_become_other_and_are_counted() {
        let limiter = limiter(2);
        assert_eq!(
            ["a", "b", "c", "a", "c"].map(|value| limiter.admit(value)),
            ["a", "b", "other", "a", "other"]
        );
        assert_eq!(limiter.folded.get(), 2);
    }

    #[test]
    fn the_empty_value_takes_no_place() {
        let limiter = limiter(1);
        assert_eq!(["", "a", ""].map(|value| limiter.admit(value)), ["", "a", ""]);
    }

    #[test]
    fn pinned_values_pass_a_full_limiter() {
        let limiter = limiter(1);
        limiter.pin(["p", "q"]);
        assert_eq!(["p", "q", "a", "b"].map(|value| limiter.admit(value)), ["p", "q", "a", "other"]);
    }

    #[test]
    fn a_busy_value_takes_the_place_of_an_idle_one_and_a_flood_takes_none() {
        let limiter = limiter(2);
        assert_eq!(["busy", "idle"].map(|value| limiter.admit(value)), ["busy", "idle"]);
        let activity = HashMap::from([("busy".to_owned(), 100)]);
        for index in 0..10_000 {
            limiter.admit(&format!("flood-{index}"));
        }
        assert!(limiter.elect(&activity).is_empty());
        for _ in 0..50 {
            limiter.admit("late");
        }
        assert_eq!(limiter.elect(&activity), [Arc::<str>::from("idle")]);
        assert_eq!(["busy", "late", "idle"].map(|value| limiter.admit(value)), ["busy", "late", "other"]);
    }

    #[test]
    fn a_gate_admits_as_many_series_as_it_may_and_frees_places() {
        let gate = Gate::new(1, IntCounter::new("folded", "folded").unwrap());
        assert_eq!(
            [["a", "b"], ["a", "c"], ["a", "b"]].map(|values| gate.admits(&values)),
            [true, false, true]
        );
        gate.forget(&["a", "b"]);
        assert!(gate.admits(&["a", "c"]));
        assert_eq!(gate.folded.get(), 1);
    }

    #[test]
    fn a_value_of_megabytes_is_folded() {
        let limiter = limiter(1);
        assert_eq!(limiter.admit(&"x".repeat(1 << 20)), OTHER);
        assert_eq!(limiter.admit("a"), "a");
    }

    proptest! {
        #[test]
        fn at_most_cap_values_are_ever_admitted_and_each_maps_to_one_name(
            values in prop::collection::vec("[a-e]{0,2}", 0..60), cap in 0usize..6
        ) {
            let limiter = limiter(cap);
            let mut seen = std::collections::HashMap::new();
            for value in &values {
                let name = limiter.admit(value).to_owned();
                if name != OTHER {
                    prop_assert_eq!(&name, value);
                }
                if let Some(before) = seen.insert(value.clone(), name.clone()) {
                    prop_assert_eq!(before, name);
                }
            }
            let admitted = seen.values().filter(|name| *name != OTHER && !name.is_empty()).count();
            prop_assert!(admitted <= cap);
        }
    }
}
