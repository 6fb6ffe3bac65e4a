//! Names of LoRA adapters that engines tell of.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;

use crate::prefix::holders::HolderSlot;

/// Most adapters whose names are kept. With one more, the name that was told longest ago goes.
const MAX_ADAPTERS: usize = 4096;
/// Longest name of an adapter, in bytes.
const MAX_ADAPTER_NAME: usize = 256;

/// The names, each until no engine that told of it is left.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    names: RwLock<HashMap<Box<str>, Told>>,
    /// Counts what was told.
    clock: AtomicU64,
}

#[derive(Debug, Default)]
struct Told {
    /// Bits of the engines that told of the name.
    engines: Vec<u64>,
    /// The clock when it was told last.
    last: AtomicU64,
}

impl Told {
    fn by(&self, engine: HolderSlot) -> bool {
        let word = self.engines.get(usize::from(engine / 64)).copied().unwrap_or_default();
        word & (1 << (engine % 64)) != 0
    }
}

impl Adapters {
    /// True if an engine told of this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.read().contains_key(name)
    }

    /// An engine tells of blocks of this adapter.
    pub(super) fn note(&self, name: &str, engine: HolderSlot) {
        if name.is_empty() || name.len() > MAX_ADAPTER_NAME {
            return;
        }
        let now = self.clock.fetch_add(1, Relaxed);
        if let Some(told) = self.names.read().get(name)
            && told.by(engine)
        {
            told.last.store(now, Relaxed);
            return;
        }
        let mut names = self.names.write();
        if names.len() >= MAX_ADAPTERS && !names.contains_key(name) {
            let oldest = names.iter().min_by_key(|(_, told)| told.last.load(Relaxed));
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|oldest| names.remove(&oldest));
        }
        let told = names.entry(name.into()).or_default();
        told.last.store(now, Relaxed);
        let word = usize::from(engine / 64);
        if told.engines.len() <= word {
            told.engines.resize(word + 1, 0);
        }
        told.engines[word] |= 1 << (engine % 64);
    }

    /// This engine holds nothing any more: the names that only it told of go.
    pub(super) fn forget(&self, engine: HolderSlot) {
        if self.names.read().values().all(|told| !told.by(engine)) {
            return;
        }
        self.names.write().retain(|_, told| {
            if let Some(word) = told.engines.get_mut(usize::from(engine / 64)) {
                *word &= !(1 << (engine % 64));
            }
            told.engines.iter().any(|word| *word != 0)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_until_no_engine_that_told_of_it_is_left() {
        let adapters = Adapters::default();
        for (name, engine) in [("a", 0), ("a", 70), ("b", 70), ("", 1)] {
            adapters.note(name, engine);
        }
        let known = || ["a", "b", ""].map(|name| adapters.contains(name));
        assert_eq!(known(), [true, true, false]);
        adapters.forget(70);
        assert_eq!(known(), [true, false, false]);
        adapters.forget(1);
        adapters.forget(0);
        assert_eq!(known(), [false; 3]);
    }

    #[test]
    fn the_name_that_was_told_longest_ago_makes_room() {
        let adapters = Adapters::default();
        adapters.note("first", 0);
        adapters.note("second", 0);
        for number in 0..MAX_ADAPTERS {
            adapters.note(&number.to_string(), 3);
            adapters.note("first", 0);
        }
        assert!(adapters.contains("first") && !adapters.contains("second"));
        assert_eq!(adapters.names.read().len(), MAX_ADAPTERS);
        adapters.note(&"x".repeat(MAX_ADAPTER_NAME + 1), 0);
        assert!(adapters.contains(&(MAX_ADAPTERS - 1).to_string()));
    }
}
