//! The blocks of one engine, by the engine's hash.
//!
//! Entries lie in one vector without gaps, 20 bytes each, and a table leads from a hash to its index (6 to 8 bytes).
//! What was not stored for longest goes first, roughly: a hand goes round the entries and passes those that were stored
//! since it came by last (the algorithm known as CLOCK). An exact order would take 8 bytes more for each entry.

use super::tiers::SENT;
use crate::prefix::table::{Cell, LinearTable};

/// A block that an engine holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// The index's key, in halves, so that an entry has no unused bytes.
    key: [u32; 2],
    /// How often the engine holds the block in each tier. Engines may report one block for several groups of layers.
    pub(super) held: [u8; SENT],
    /// It was stored since the hand came by.
    used: bool,
}

impl Block {
    /// The index's key.
    pub(super) fn key(&self) -> u64 {
        whole(self.key)
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: [u32; 2],
    block: Block,
}

fn whole([high, low]: [u32; 2]) -> u64 {
    (u64::from(high) << 32) | u64::from(low)
}

fn halves(whole: u64) -> [u32; 2] {
    [(whole >> 32) as u32, whole as u32]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u32);

impl Cell for Place {
    const VACANT: Self = Self(u32::MAX);
    fn is_vacant(&self) -> bool {
        *self == Self::VACANT
    }
}

/// Blocks by hash. The hashes have to be spread well.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    entries: Vec<Entry>,
    places: LinearTable<Place>,
    /// Index at which the hand looks next.
    hand: usize,
}

impl Blocks {
    /// Number of blocks.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.places.bytes()
    }

    /// Index of the block with this hash; valid until the next removal.
    pub(super) fn position(&self, hash: u64) -> Option<u32> {
        let is_it = |place: &Place| self.hash_at(place.0) == hash;
        Some(self.places.at(self.places.find(hash, is_it)?).0)
    }

    /// The block at an index.
    pub(super) fn at(&self, index: u32) -> Option<&Block> {
        self.entries.get(index as usize).map(|entry| &entry.block)
    }

    /// The block at an index, which was stored just now.
    pub(super) fn stored(&mut self, index: u32) -> Option<&mut Block> {
        let block = &mut self.entries.get_mut(index as usize)?.block;
        block.used = true;
        Some(block)
    }

    /// The block at an index, to be changed.
    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut Block> {
        self.entries.get_mut(index as usize).map(|entry| &mut entry.block)
    }

    /// Adds a block with a hash that is not there yet. Its index.
    pub(super) fn insert(&mut self, hash: u64, key: u64) -> u32 {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact((self.entries.len() / 8).max(8));
        }
        let index = self.entries.len() as u32;
        let block = Block { key: halves(key), held: [0; SENT], used: true };
        self.entries.push(Entry { hash: halves(hash), block });
        let entries = &self.entries;
        self.places.insert(hash, Place(index), |place| hash_of(entries, place.0));
        index
    }

    /// Removes the block at an index.
    pub(super) fn remove(&mut self, index: u32) -> Option<Block> {
        let hash = whole(self.entries.get(index as usize)?.hash);
        let entries = &self.entries;
        if let Some(place) = self.places.find(hash, |place| place.0 == index) {
            self.places.remove(place, |place| hash_of(entries, place.0));
        }
        let last = self.entries.len() as u32 - 1;
        if index != last
            && let Some(place) = self.places.find(self.hash_at(last), |place| place.0 == last)
        {
            *self.places.at_mut(place) = Place(index);
        }
        Some(self.entries.swap_remove(index as usize).block)
    }

    /// Removes a block that was not stored for long.
    pub(super) fn pop(&mut self) -> Option<Block> {
        // The second round finds one in any case.
        for _ in 0..=self.entries.len() * 2 {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let entry = self.entries.get_mut(self.hand)?;
            self.hand += 1;
            if !std::mem::take(&mut entry.block.used) {
                // The last one takes its place, behind the hand.
                return self.remove(self.hand as u32 - 1);
            }
        }
        None
    }

    /// Gives memory back if much of it is unused.
    pub(super) fn shrink(&mut self) {
        let wanted = self.entries.len() + self.entries.len() / 16;
        if self.entries.capacity() > wanted {
            self.entries.shrink_to(wanted);
        }
        let entries = &self.entries;
        self.places.shrink(|place| hash_of(entries, place.0));
    }

    fn hash_at(&self, index: u32) -> u64 {
        hash_of(&self.entries, index)
    }
}

fn hash_of(entries: &[Entry], index: u32) -> u64 {
    entries.get(index as usize).map_or(0, |entry| whole(entry.hash))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

    #[test]
    fn an_entry_takes_twenty_bytes() {
        assert_eq!(size_of::<Entry>(), 20);
    }

    #[test]
    fn what_is_stored_again_stays_and_the_rest_goes_in_its_order() {
        let mut blocks = Blocks::default();
        for number in 0..100_u64 {
            blocks.insert(number.wrapping_mul(SPREAD), number);
        }
        // The first round passes all of them, and the second begins at the oldest.
        assert_eq!(blocks.pop().map(|block| block.key()), Some(0));
        for number in (0..100_u64).filter(|number| number % 2 == 0) {
            if let Some(at) = blocks.position(number.wrapping_mul(SPREAD)) {
                blocks.stored(at);
            }
        }
        let gone: Vec<u64> = (0..20).filter_map(|_| blocks.pop()).map(|block| block.key()).collect();
        assert_eq!(gone, (0..20).map(|number| number * 2 + 1).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn blocks_are_a_map_that_forgets_when_told_to(
            steps in prop::collection::vec((0_u8..4, 0_u64..60), 0..300),
        ) {
            let mut blocks = Blocks::default();
            let mut model: HashMap<u64, u64> = HashMap::new();
            for (step, number) in steps {
                let hash = number.wrapping_mul(SPREAD);
                let found = blocks.position(hash);
                prop_assert_eq!(found.and_then(|at| blocks.at(at)).map(Block::key), model.get(&hash).copied());
                match (step, found) {
                    (0 | 1, None) => {
                        let at = blocks.insert(hash, number + 7);
                        prop_assert_eq!(blocks.position(hash), Some(at));
                        model.insert(hash, number + 7);
                    }
                    (2, Some(at)) => {
                        prop_assert_eq!(blocks.remove(at).map(|block| block.key()), model.remove(&hash));
                    }
                    (3, _) => match blocks.pop() {
                        Some(block) => prop_assert_eq!(model.remove(&(block.key() - 7).wrapping_mul(SPREAD)), Some(block.key())),
                        None => prop_assert!(model.is_empty()),
                    },
                    _ => blocks.shrink(),
                }
                prop_assert_eq!(blocks.len(), model.len());
            }
        }
    }
}
