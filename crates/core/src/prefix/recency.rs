//! A map that knows in which order its entries were last added: the base of everything here that forgets the oldest
//! first.
//!
//! Entries lie in one vector, without gaps. Two things refer to them by index: a table from hashes to indexes
//! ([`LinearTable`]), and a list from the oldest to the newest entry, whose links (`older`, `newer`) are indexes too.
//! Removing the oldest entry moves the last entry of the vector into its place ([`Vec::swap_remove`]); before that, the
//! one cell of the table and the two links that refer to the moved entry are renamed. Every operation is O(1), but for
//! the vector and the table growing now and then.

use super::table::{Cell, LinearTable};

/// A key of a [`Recency`] map.
pub trait RecencyKey: Eq {
    /// A hash whose bits are all well spread; it must not be guessable where keys come from clients.
    fn spread(&self) -> u64;
}

/// Keys that are spread already.
impl RecencyKey for u64 {
    fn spread(&self) -> u64 {
        *self
    }
}

/// Keys that are spread already.
impl RecencyKey for u128 {
    fn spread(&self) -> u64 {
        (*self >> 64) as u64
    }
}

/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    value: V,
    older: u32,
    newer: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u32);

impl Cell for Place {
    const VACANT: Self = Self(NONE);
    fn is_vacant(&self) -> bool {
        *self == Self::VACANT
    }
}

/// Entries by key, in the order they were last added or touched. It sets no bound: whoever owns it calls
/// [`Recency::pop_oldest`].
///
/// Entries lie densely in one block of memory: 8 bytes beside key and value, and 6 to 8 bytes of table.
#[derive(Debug)]
pub struct Recency<K, V> {
    nodes: Vec<Node<K, V>>,
    places: LinearTable<Place>,
    oldest: u32,
    newest: u32,
}

impl<K, V> Default for Recency<K, V> {
    fn default() -> Self {
        Self { nodes: Vec::new(), places: LinearTable::default(), oldest: NONE, newest: NONE }
    }
}

impl<K: RecencyKey, V> Recency<K, V> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Bytes allocated, without what keys and values point to.
    pub fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<K, V>>() + self.places.bytes()
    }

    /// Index of the entry whose key has this spread and is recognised by `is_it`; valid until the next removal.
    pub fn find(&self, spread: u64, mut is_it: impl FnMut(&K) -> bool) -> Option<u32> {
        let place = self.places.find(spread, |place| is_it(&self.nodes[place.0 as usize].key))?;
        Some(self.places.at(place).0)
    }

    /// Index of the entry with this key; valid until the next removal.
    pub fn position(&self, key: &K) -> Option<u32> {
        self.find(key.spread(), |known| known == key)
    }

    /// The value at an index that [`Recency::position`] returned.
    pub fn value(&self, index: u32) -> Option<&V> {
        self.nodes.get(index as usize).map(|node| &node.value)
    }

    /// The value at an index that [`Recency::position`] returned.
    pub fn value_mut(&mut self, index: u32) -> Option<&mut V> {
        self.nodes.get_mut(index as usize).map(|node| &mut node.value)
    }

    /// Makes the entry at an index that [`Recency::position`] returned the newest.
    pub fn touch(&mut self, index: u32) {
        if index != self.newest && (index as usize) < self.nodes.len() {
            self.unlink(index);
            self.link_newest(index);
        }
    }

    /// Adds an entry whose key is not in the map yet, as the newest.
    pub fn insert(&mut self, key: K, value: V) {
        if self.nodes.len() == self.nodes.capacity() {
            self.nodes.reserve_exact((self.nodes.len() / 4).max(8));
        }
        let index = self.nodes.len() as u32;
        let spread = key.spread();
        self.nodes.push(Node { key, value, older: NONE, newer: NONE });
        self.link_newest(index);
        let nodes = &self.nodes;
        self.places.insert(spread, Place(index), |place| nodes[place.0 as usize].key.spread());
    }

    /// The oldest entry.
    pub fn oldest(&self) -> Option<(&K, &V)> {
        self.nodes.get(self.oldest as usize).map(|node| (&node.key, &node.value))
    }

    /// Removes the oldest entry.
    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        self.remove(self.oldest)
    }

    /// Removes the entry at an index that [`Recency::position`] returned.
    pub fn remove(&mut self, index: u32) -> Option<(K, V)> {
        let spread = self.nodes.get(index as usize)?.key.spread();
        self.unlink(index);
        self.forget(spread, index);
        let last = self.nodes.len() as u32 - 1;
        if index != last {
            self.rename(last, index);
        }
        let node = self.nodes.swap_remove(index as usize);
        Some((node.key, node.value))
    }

    /// Replaces the oldest entry by one whose key is not in the map yet, which becomes the newest. The same as removing
    /// and inserting, but nothing has to move. An empty map only inserts.
    pub fn replace_oldest(&mut self, key: K, value: V) -> Option<(K, V)> {
        let index = self.oldest;
        let Some(before) = self.nodes.get(index as usize).map(|node| node.key.spread()) else {
            self.insert(key, value);
            return None;
        };
        self.forget(before, index);
        let after = key.spread();
        let old = self
            .nodes
            .get_mut(index as usize)
            .map(|node| (std::mem::replace(&mut node.key, key), std::mem::replace(&mut node.value, value)));
        self.touch(index);
        let nodes = &self.nodes;
        self.places.insert(after, Place(index), |place| nodes[place.0 as usize].key.spread());
        old
    }

    /// Indexes, keys and values from the oldest to the newest.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &K, &V)> {
        let node = |index: u32| self.nodes.get(index as usize).map(|node| (index, node));
        std::iter::successors(node(self.oldest), move |(_, current)| node(current.newer))
            .map(|(index, node)| (index, &node.key, &node.value))
    }

    /// Gives memory back if much of it is unused.
    pub fn shrink(&mut self) {
        let wanted = self.nodes.len() + self.nodes.len() / 16;
        if self.nodes.capacity() > wanted {
            self.nodes.shrink_to(wanted);
        }
        let nodes = &self.nodes;
        self.places.shrink(|place| nodes[place.0 as usize].key.spread());
    }

    fn unlink(&mut self, index: u32) {
        let (older, newer) = {
            let node = &self.nodes[index as usize];
            (node.older, node.newer)
        };
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, index: u32) {
        let newest = std::mem::replace(&mut self.newest, index);
        match self.nodes.get_mut(newest as usize) {
            Some(node) => node.newer = index,
            None => self.oldest = index,
        }
        let node = &mut self.nodes[index as usize];
        (node.older, node.newer) = (newest, NONE);
    }

    /// Takes the entry out of the table.
    fn forget(&mut self, spread: u64, index: u32) {
        let nodes = &self.nodes;
        if let Some(place) = self.places.find(spread, |place| place.0 == index) {
            self.places.remove(place, |place| nodes[place.0 as usize].key.spread());
        }
    }

    /// Makes everything that refers to the entry at `from` refer to `to`, where it is about to move.
    fn rename(&mut self, from: u32, to: u32) {
        let node = &self.nodes[from as usize];
        let (older, newer, spread) = (node.older, node.newer, node.key.spread());
        if let Some(place) = self.places.find(spread, |place| place.0 == from) {
            *self.places.at_mut(place) = Place(to);
        }
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = to,
            None => self.oldest = to,
        }
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = to,
            None => self.newest = to,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Add(u64),
        ReplaceOldest(u64),
        PopOldest,
        Shrink,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0u64..40).prop_map(|key| Step::Add(key.wrapping_mul(0x9E37_79B9_7F4A_7C15))),
            3 => (40u64..60).prop_map(|key| Step::ReplaceOldest(key.wrapping_mul(0x9E37_79B9_7F4A_7C15))),
            2 => Just(Step::PopOldest),
            1 => Just(Step::Shrink),
        ]
    }

    proptest! {
        #[test]
        fn order_is_that_of_a_list_that_moves_touched_keys_to_its_end(steps in prop::collection::vec(step(), 0..300)) {
            let mut map = Recency::<u64, u64>::default();
            let mut model: Vec<u64> = Vec::new();
            for step in steps {
                match step {
                    Step::Add(key) => {
                        if let Some(index) = map.position(&key) {
                            map.touch(index);
                            model.retain(|known| *known != key);
                        } else {
                            map.insert(key, key + 1);
                        }
                        model.push(key);
                    }
                    Step::ReplaceOldest(key) if map.position(&key).is_none() => {
                        let expected = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(map.replace_oldest(key, key + 1), expected.map(|key| (key, key + 1)));
                        model.push(key);
                    }
                    Step::ReplaceOldest(_) => {}
                    Step::PopOldest => {
                        let expected = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(map.pop_oldest(), expected.map(|key| (key, key + 1)));
                    }
                    Step::Shrink => map.shrink(),
                }
                let keys: Vec<u64> = map.iter().map(|(_, key, _)| *key).collect();
                prop_assert_eq!(&keys, &model);
                prop_assert_eq!(map.oldest().map(|(key, _)| *key), model.first().copied());
                for key in &model {
                    let index = map.position(key);
                    prop_assert_eq!(index.and_then(|index| map.value(index).copied()), Some(key + 1));
                }
            }
        }
    }

    #[test]
    fn a_prefix_entry_costs_at_most_28_bytes_once_it_stopped_growing() {
        let mut map = Recency::<u64, ()>::default();
        for key in 0..31_250u64 {
            map.insert(key.wrapping_mul(0x9E37_79B9_7F4A_7C15), ());
        }
        map.shrink();
        assert!(map.bytes() / map.len() <= 28, "{} bytes", map.bytes() / map.len());
    }
}
