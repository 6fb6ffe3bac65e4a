//! Which endpoints hold one block: 8 bytes for up to three of them, a row of bits for more.

/// Number of an endpoint within an index.
pub(super) type HolderSlot = u16;

/// The holders of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holders {
    /// No block at all.
    Nobody,
    /// One endpoint: nearly every block of a pool without shared prompts.
    One(HolderSlot),
    /// Two endpoints.
    Two([HolderSlot; 2]),
    /// Three endpoints.
    Three([HolderSlot; 3]),
    /// More: number of a row in [`Rows`].
    Many(u32),
}

/// One bit per slot.
#[derive(Debug, Default)]
struct Row {
    words: Vec<u64>,
    count: u32,
}

/// The rows of one shard.
#[derive(Debug, Default)]
pub(super) struct Rows {
    all: Vec<Row>,
    free: Vec<u32>,
    word_bytes: usize,
}

impl Rows {
    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.all.capacity() * size_of::<Row>() + self.free.capacity() * size_of::<u32>() + self.word_bytes
    }

    /// Bits of a row; slots beyond the end are not set.
    pub(super) fn words(&self, row: u32) -> &[u64] {
        self.all.get(row as usize).map(|row| row.words.as_slice()).unwrap_or_default()
    }

    /// The holders with `slot` among them.
    pub(super) fn with(&mut self, holders: Holders, slot: HolderSlot) -> Holders {
        match holders {
            Holders::Nobody => Holders::One(slot),
            Holders::One(a) if a != slot => Holders::Two([a, slot]),
            Holders::Two([a, b]) if a != slot && b != slot => Holders::Three([a, b, slot]),
            Holders::Three([a, b, c]) if a != slot && b != slot && c != slot => {
                let row = self.acquire();
                for slot in [a, b, c, slot] {
                    self.set(row, slot);
                }
                Holders::Many(row)
            }
            Holders::Many(row) => {
                self.set(row, slot);
                holders
            }
            Holders::One(_) | Holders::Two(_) | Holders::Three(_) => holders,
        }
    }

    /// The holders without `slot`.
    pub(super) fn without(&mut self, holders: Holders, slot: HolderSlot) -> Holders {
        match holders {
            Holders::One(a) if a == slot => Holders::Nobody,
            Holders::Two([a, b]) if a == slot => Holders::One(b),
            Holders::Two([a, b]) if b == slot => Holders::One(a),
            Holders::Three([a, b, c]) if a == slot => Holders::Two([b, c]),
            Holders::Three([a, b, c]) if b == slot => Holders::Two([a, c]),
            Holders::Three([a, b, c]) if c == slot => Holders::Two([a, b]),
            Holders::Many(row) => self.clear(row, slot),
            other => other,
        }
    }

    fn acquire(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.all.push(Row::default());
            self.all.len() as u32 - 1
        })
    }

    fn set(&mut self, row: u32, slot: HolderSlot) {
        let Some(row) = self.all.get_mut(row as usize) else { return };
        let (word, bit) = (usize::from(slot / 64), 1u64 << (slot % 64));
        if row.words.len() <= word {
            let before = row.words.capacity();
            row.words.reserve_exact(word + 1 - row.words.len());
            row.words.resize(word + 1, 0);
            self.word_bytes += (row.words.capacity() - before) * size_of::<u64>();
        }
        row.count += u32::from(row.words[word] & bit == 0);
        row.words[word] |= bit;
    }

    /// Clears a bit. A row of two becomes [`Holders::Two`] again: not of three, lest one that comes and goes moves it
    /// back and forth.
    fn clear(&mut self, index: u32, slot: HolderSlot) -> Holders {
        let Some(row) = self.all.get_mut(index as usize) else { return Holders::Nobody };
        let (word, bit) = (usize::from(slot / 64), 1u64 << (slot % 64));
        if let Some(word) = row.words.get_mut(word)
            && *word & bit != 0
        {
            *word &= !bit;
            row.count -= 1;
        }
        if row.count > 2 {
            return Holders::Many(index);
        }
        let mut left = Holders::Nobody;
        for slot in bits(&row.words) {
            left = match left {
                Holders::One(first) => Holders::Two([first, slot as HolderSlot]),
                _ => Holders::One(slot as HolderSlot),
            };
        }
        self.word_bytes -= row.words.capacity() * size_of::<u64>();
        *row = Row::default();
        self.free.push(index);
        left
    }
}

/// Numbers of the set bits, ascending.
pub(super) fn bits(words: &[u64]) -> impl Iterator<Item = u32> {
    words.iter().zip(0u32..).flat_map(|(&word, index)| {
        std::iter::successors((word != 0).then_some(word), |rest| {
            let rest = rest & (rest - 1);
            (rest != 0).then_some(rest)
        })
        .map(move |rest| index * 64 + rest.trailing_zeros())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn members(rows: &Rows, holders: Holders) -> BTreeSet<u32> {
        match holders {
            Holders::Nobody => BTreeSet::new(),
            Holders::One(a) => BTreeSet::from([u32::from(a)]),
            Holders::Two(all) => all.map(u32::from).into(),
            Holders::Three(all) => all.map(u32::from).into(),
            Holders::Many(row) => bits(rows.words(row)).collect(),
        }
    }

    #[test]
    fn holders_take_eight_bytes() {
        assert_eq!(size_of::<Holders>(), 8);
    }

    proptest! {
        #[test]
        fn holders_are_a_set(steps in prop::collection::vec((any::<bool>(), 0usize..2, 0u16..6), 0..200)) {
            let mut rows = Rows::default();
            let mut blocks = [Holders::Nobody; 2];
            let mut models = [BTreeSet::new(), BTreeSet::new()];
            for (add, block, slot) in steps {
                let slot = slot * 50;
                if add {
                    blocks[block] = rows.with(blocks[block], slot);
                    models[block].insert(u32::from(slot));
                } else {
                    blocks[block] = rows.without(blocks[block], slot);
                    models[block].remove(&u32::from(slot));
                }
                for (holders, model) in blocks.iter().zip(&models) {
                    prop_assert_eq!(&members(&rows, *holders), model);
                }
            }
            let words: usize = rows.all.iter().map(|row| row.words.capacity() * 8).sum();
            prop_assert_eq!(rows.word_bytes, words);
            prop_assert!(rows.all.len() <= 2);
        }
    }
}
