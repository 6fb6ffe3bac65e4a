//! Bounds on label values that clients choose.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::IntCounter;

/// What values beyond a bound become.
pub(super) const OTHER: &str = "other";

/// Distinct values that a limiter admits by default.
pub(super) const VALUES: usize = 1000;

/// Bytes of a label value; longer ones are folded, so that a thousand of them cannot fill the memory.
const VALUE_BYTES: usize = 512;

/// Pinned values; names from configuration, which may still change many times in the life of a process.
const PINNED: usize = 10_000;

/// Admits a bounded number of distinct values for the life of the process and folds the others. Looking up an admitted value takes no lock.
#[derive(Debug)]
pub(super) struct Limiter {
    cap: usize,
    sets: ArcSwap<Sets>,
    writer: Mutex<()>,
    folded: IntCounter,
}

#[derive(Clone, Debug, Default)]
struct Sets {
    admitted: HashSet<Arc<str>>,
    pinned: HashSet<Arc<str>>,
}

impl Limiter {
    /// A limiter that admits `cap` values and counts each time it folds one.
    pub(super) fn new(cap: usize, folded: IntCounter) -> Self {
        Self { cap, sets: ArcSwap::default(), writer: Mutex::new(()), folded }
    }

    /// `value` if it is admitted, else [`OTHER`]. Once admitted a value stays so. Empty values pass and take no place.
    pub(super) fn admit<'v>(&self, value: &'v str) -> &'v str {
        if value.is_empty() || value == OTHER || self.knows(value) {
            return value;
        }
        if value.len() <= VALUE_BYTES && self.insert(value) {
            return value;
        }
        self.folded.inc();
        OTHER
    }

    /// Values that are never folded and take no place; they stay pinned.
    pub(super) fn pin<'v>(&self, values: impl IntoIterator<Item = &'v str>) {
        let writer = self.writer.lock();
        let mut sets = Sets::clone(&self.sets.load());
        for value in values {
            if value.len() <= VALUE_BYTES && sets.pinned.len() < PINNED && !sets.pinned.contains(value) {
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
