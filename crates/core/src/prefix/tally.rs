//! Counting how many blocks of a prompt each endpoint holds.
//!
//! Along a prompt the set of holders hardly ever changes from one block to the next, so an endpoint is only touched
//! where it enters or leaves the set. The set itself is compared word by word: 16 words for 1000 endpoints.

use super::holders::{HolderSlot, Holders, bits};
use super::shard::Shard;

/// Counts by slot, and the run of blocks it is in the middle of.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    /// Slots whose endpoints are still there.
    live: &'a [u64],
    /// Holders of the last block.
    current: Vec<u64>,
    /// What `current` was made from, if it was no row.
    last: Holders,
    /// A row for holders that have none; empty in between.
    scratch: Vec<u64>,
    /// For each slot in `current`: the block at which it entered.
    since: Vec<u32>,
    counts: Vec<u32>,
    block: u32,
}

impl<'a> Tally<'a> {
    /// No counts yet, for the slots that `live` has bits for.
    pub(super) fn new(live: &'a [u64]) -> Self {
        let slots = live.len() * 64;
        Self {
            live,
            current: vec![0; live.len()],
            last: Holders::Nobody,
            scratch: vec![0; live.len()],
            since: vec![0; slots],
            counts: vec![0; slots],
            block: 0,
        }
    }

    /// Counts the next block of a prompt for its holders. False, and no count, if nobody who is still there holds it.
    pub(super) fn block(&mut self, holders: Holders, shard: &Shard) -> bool {
        let row = match holders {
            Holders::Nobody => return false,
            Holders::Many(row) => shard.words(row),
            _ if holders == self.last => {
                self.block += 1;
                return true;
            }
            Holders::One(slot) => self.mark(&[slot]),
            Holders::Two(slots) => self.mark(&slots),
            Holders::Three(slots) => self.mark(&slots),
        };
        self.last = if matches!(holders, Holders::Many(_)) { Holders::Nobody } else { holders };
        let somebody = if row.len() < self.live.len() {
            // Made by `mark`, or by a row from before the last endpoints came.
            if let Some(head) = self.scratch.get_mut(..row.len()) {
                head.copy_from_slice(row);
            }
            let somebody = advance(
                &mut self.current,
                self.live,
                &self.scratch,
                &mut self.since,
                &mut self.counts,
                self.block,
            );
            self.scratch.fill(0);
            somebody
        } else {
            advance(&mut self.current, self.live, row, &mut self.since, &mut self.counts, self.block)
        };
        self.block += u32::from(somebody);
        somebody
    }

    /// Ends a prompt.
    pub(super) fn end_prompt(&mut self) {
        for slot in bits(&self.current) {
            self.counts[slot as usize] += self.block - self.since[slot as usize];
        }
        self.current.fill(0);
        self.last = Holders::Nobody;
        self.block = 0;
    }

    /// Counts by slot.
    pub(super) fn into_counts(self) -> Vec<u32> {
        self.counts
    }

    /// Sets the bits of a few holders in the scratch row, which is empty before and after. Returns the rest of the row:
    /// nothing.
    fn mark(&mut self, slots: &[HolderSlot]) -> &'static [u64] {
        for &slot in slots {
            if let Some(word) = self.scratch.get_mut(usize::from(slot / 64)) {
                *word |= 1 << (slot % 64);
            }
        }
        &[]
    }
}

/// Makes `current` the live ones of `row`, and keeps the account of who entered and left at `block`. If none is left it
/// returns false; `current` is then closed at `block`.
fn advance(
    current: &mut [u64],
    live: &[u64],
    row: &[u64],
    since: &mut [u32],
    counts: &mut [u32],
    block: u32,
) -> bool {
    let mut any = 0;
    for (index, ((current, live), word)) in current.iter_mut().zip(live).zip(row).enumerate() {
        let now = word & live;
        any |= now;
        let mut changed = now ^ *current;
        while changed != 0 {
            let bit = changed & changed.wrapping_neg();
            let slot = index * 64 + bit.trailing_zeros() as usize;
            if now & bit == 0 {
                counts[slot] += block - since[slot];
            } else {
                since[slot] = block;
            }
            changed ^= bit;
        }
        *current = now;
    }
    any != 0
}
