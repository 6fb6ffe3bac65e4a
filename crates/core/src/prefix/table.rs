//! An open-addressing table of small cells whose size in memory is known exactly.
//!
//! A hash names a home place: the fraction `hash / 2^64` of the way through the table. A hash of 0.6 · 2^64 in a table
//! of 10 places has its home at place 6. A cell goes to its home, or to the first vacant place behind it; behind the
//! last place comes the first. A search therefore starts at the home of the hash and ends at the first vacant place.
//!
//! Three properties follow.
//!
//! * Cells lie in the order of their hashes, as far as collisions allow. Growing is one sequential pass over the old
//!   table that writes the new one from front to back.
//! * Removal closes its gap by moving later cells forward (Knuth, The Art of Computer Programming, volume 3, section
//!   6.4, algorithm R). No tombstones remain, so an index that replaces entries all day long keeps its speed and its
//!   size.
//! * The table grows by half when three quarters of it are used, so the load lies between 1/2 and 3/4 while it grows.

/// What a table can store.
pub(super) trait Cell: Copy {
    /// The cell of an unused place.
    const VACANT: Self;
    /// True for [`Cell::VACANT`].
    fn is_vacant(&self) -> bool;
}

/// Fewest places of a table that holds anything.
const SMALLEST: usize = 8;

/// Cells at the places that their hashes name. The caller knows how to get from a cell to its hash, all bits of which
/// must be well spread.
#[derive(Debug)]
pub(super) struct LinearTable<C> {
    cells: Vec<C>,
    len: usize,
}

impl<C> Default for LinearTable<C> {
    fn default() -> Self {
        Self { cells: Vec::new(), len: 0 }
    }
}

impl<C: Cell> LinearTable<C> {
    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<C>()
    }

    /// Number of cells in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Place of the cell with this hash that `is_it` recognises.
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(&C) -> bool) -> Option<usize> {
        if self.cells.is_empty() {
            return None;
        }
        let mut place = home(hash, self.cells.len());
        loop {
            let cell = &self.cells[place];
            if cell.is_vacant() {
                return None;
            }
            if is_it(cell) {
                return Some(place);
            }
            place = next(place, self.cells.len());
        }
    }

    /// The cell at a place that [`LinearTable::find`] returned.
    pub(super) fn at(&self, place: usize) -> &C {
        &self.cells[place]
    }

    /// The cell at a place that [`LinearTable::find`] returned. Its hash must not change.
    pub(super) fn at_mut(&mut self, place: usize) -> &mut C {
        &mut self.cells[place]
    }

    /// Adds a cell that is not in the table yet.
    pub(super) fn insert(&mut self, hash: u64, cell: C, hash_of: impl Fn(&C) -> u64) {
        if (self.len + 1) * 4 > self.cells.len() * 3 {
            self.resize((self.cells.len() * 3 / 2).max(SMALLEST), &hash_of);
        }
        place(&mut self.cells, hash, cell);
        self.len += 1;
    }

    /// Removes the cell at a place that [`LinearTable::find`] returned.
    pub(super) fn remove(&mut self, place: usize, hash_of: impl Fn(&C) -> u64) {
        let size = self.cells.len();
        let (mut hole, mut place) = (place, place);
        loop {
            place = next(place, size);
            let cell = self.cells[place];
            if cell.is_vacant() {
                break;
            }
            // A search for this cell starts at its home and walks to `place`. It would pass the hole unless the home
            // lies behind the hole. If it would pass, the cell fills the hole, and its old place becomes the next hole.
            let home = home(hash_of(&cell), size);
            let stays =
                if hole <= place { hole < home && home <= place } else { hole < home || home <= place };
            if !stays {
                self.cells[hole] = cell;
                hole = place;
            }
        }
        self.cells[hole] = C::VACANT;
        self.len -= 1;
    }

    /// Gives memory back if most of it is unused.
    pub(super) fn shrink(&mut self, hash_of: impl Fn(&C) -> u64) {
        if self.len == 0 {
            self.cells = Vec::new();
        } else if self.cells.len() > SMALLEST && self.len * 8 < self.cells.len() * 3 {
            self.resize((self.len * 3 / 2 + 1).max(SMALLEST), &hash_of);
        }
    }

    fn resize(&mut self, size: usize, hash_of: &impl Fn(&C) -> u64) {
        let old = std::mem::replace(&mut self.cells, vec![C::VACANT; size]);
        for cell in old {
            if !cell.is_vacant() {
                place(&mut self.cells, hash_of(&cell), cell);
            }
        }
    }
}

/// Puts a cell into the first vacant place from its home on. There is one: load is below 1.
fn place<C: Cell>(cells: &mut [C], hash: u64, cell: C) {
    let mut place = home(hash, cells.len());
    while !cells[place].is_vacant() {
        place = next(place, cells.len());
    }
    cells[place] = cell;
}

/// The place a hash names in a table of `size` places: its fraction of the way through.
fn home(hash: u64, size: usize) -> usize {
    ((u128::from(hash) * size as u128) >> 64) as usize
}

fn next(place: usize, size: usize) -> usize {
    if place + 1 == size { 0 } else { place + 1 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    impl Cell for u64 {
        const VACANT: Self = 0;
        fn is_vacant(&self) -> bool {
            *self == 0
        }
    }

    proptest! {
        #[test]
        fn a_table_holds_what_a_set_holds(steps in prop::collection::vec((any::<bool>(), 1u64..60, any::<bool>()), 0..400)) {
            let mut table = LinearTable::<u64>::default();
            let mut model = HashSet::new();
            // Few home places, the last ones among them: long clusters that wrap around the end.
            let hash_of = |cell: &u64| u64::MAX - (cell % 5) * (u64::MAX / 6);
            for (insert, value, shrink) in steps {
                let found = table.find(hash_of(&value), |cell| *cell == value);
                prop_assert_eq!(found.is_some(), model.contains(&value));
                match (insert, found) {
                    (true, None) => {
                        table.insert(hash_of(&value), value, hash_of);
                        model.insert(value);
                    }
                    (false, Some(place)) => {
                        table.remove(place, hash_of);
                        model.remove(&value);
                    }
                    _ => {}
                }
                if shrink {
                    table.shrink(hash_of);
                }
                prop_assert_eq!(table.len(), model.len());
                for value in &model {
                    prop_assert!(table.find(hash_of(value), |cell| cell == value).is_some());
                }
            }
        }
    }

    #[test]
    fn a_growing_table_never_spends_more_than_two_places_a_cell() {
        let mut table = LinearTable::<u64>::default();
        let spread = |cell: &u64| cell.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for value in 1..=10_000 {
            table.insert(spread(&value), value, spread);
            assert!(table.bytes() <= (value as usize * 2 + SMALLEST) * 8, "{value}: {}", table.bytes());
        }
    }
}
