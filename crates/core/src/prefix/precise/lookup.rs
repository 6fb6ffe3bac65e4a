//! Looking up: how far each endpoint holds a prompt.

use parking_lot::RwLockReadGuard;
use smallvec::SmallVec;

use super::PromptKeys;
use super::index::PreciseIndex;
use super::tiers::PLACES;
use crate::pool::Endpoint;
use crate::prefix::holders::{HolderSlot, Holders, bits};
use crate::prefix::shard::{BlockKey, SHARDS, Shard};

/// Blocks that are fetched at a time, at the beginning of a prompt and further on.
const FEWEST_AHEAD: usize = 4;
const MOST_AHEAD: usize = 32;

/// What an endpoint holds from the beginning of the prompts on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HeldPrefix {
    /// Blocks without a gap.
    pub blocks: u32,
    /// The same, each with the weight of its best tier.
    pub weight: f64,
}

impl HeldPrefix {
    /// A prompt is held up to `depth` blocks, which count `weight` each beside what they count already.
    fn end(&mut self, depth: u32, weight: f64) {
        self.blocks += depth;
        self.weight += f64::from(depth) * weight;
    }
}

impl PreciseIndex {
    /// What each of these endpoints holds of the prompts, whose keys are those of its block size.
    pub fn lookup(&self, endpoints: &[&Endpoint], prompts: &[PromptKeys]) -> Vec<HeldPrefix> {
        let (slots, words) = {
            let engines = self.engines.read();
            let slot = |endpoint: &&Endpoint| {
                engines.by_incarnation.get(&endpoint.incarnation()).map(|engine| engine.slot)
            };
            let slots: Vec<Option<HolderSlot>> = endpoints.iter().map(slot).collect();
            (slots, engines.slots.words())
        };
        let mut live = vec![0_u64; words];
        for slot in slots.iter().flatten() {
            live[usize::from(slot / 64)] |= 1 << (slot % 64);
        }
        let mut held = vec![HeldPrefix::default(); words * 64];
        for prompt in prompts {
            self.walk(&prompt.0, live.clone(), &mut held);
        }
        let of =
            |slot: Option<HolderSlot>| slot.map_or_else(HeldPrefix::default, |slot| held[usize::from(slot)]);
        slots.into_iter().map(of).collect()
    }

    /// Goes along a prompt until none of the endpoints `left` holds a block.
    fn walk(&self, keys: &[u64], left: Vec<u64>, held: &mut [HeldPrefix]) {
        if self.blocks_by_place().iter().skip(1).any(|blocks| *blocks > 0) {
            self.walk_places(keys, left, held);
        } else {
            self.walk_one_place(keys, left, held);
        }
    }

    /// The same where every block lies in the accelerator's memory, so that all count alike.
    fn walk_one_place(&self, keys: &[u64], mut left: Vec<u64>, held: &mut [HeldPrefix]) {
        let weight = self.weights.gpu;
        let mut locked = Locked::new(self);
        let mut few = vec![0_u64; left.len()];
        let (mut depth, mut rest, mut ahead) = (0_u32, keys, FEWEST_AHEAD);
        while !rest.is_empty() {
            let (some, later) = rest.split_at(ahead.min(rest.len()));
            // The blocks lie all over the memory: several are fetched at a time.
            let mut found = [(0, Holders::Nobody); MOST_AHEAD];
            for (found, key) in found.iter_mut().zip(some) {
                let key = BlockKey(self.mix(*key));
                *found = (key.shard(), locked.shard(key)[0].holders(key));
            }
            for &(shard, holders) in found.iter().take(some.len()) {
                let row = if let Holders::Many(row) = holders {
                    locked.words(shard, row)
                } else {
                    few.fill(0);
                    mark_few(holders, &mut few);
                    &few
                };
                let mut any = 0;
                for (word, left) in left.iter_mut().enumerate() {
                    let now = *left & row.get(word).copied().unwrap_or_default();
                    if now != *left {
                        // Those that end here have what came before.
                        for slot in bits(&[*left & !now]) {
                            held[word * 64 + slot as usize].end(depth, weight);
                        }
                        *left = now;
                    }
                    any |= now;
                }
                if any == 0 {
                    return;
                }
                depth += 1;
            }
            (rest, ahead) = (later, (ahead * 2).min(MOST_AHEAD));
        }
        end_all(&left, keys.len() as u32, weight, held);
    }

    /// The same where blocks lie in several places, of which the best counts.
    fn walk_places(&self, keys: &[u64], mut left: Vec<u64>, held: &mut [HeldPrefix]) {
        let weights = self.weights.by_place();
        let mut order: SmallVec<[usize; PLACES]> = (0..PLACES).collect();
        order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
        let mut locked = Locked::new(self);
        let mut rows = vec![[0_u64; PLACES]; left.len()];
        for (depth, key) in (0_u32..).zip(keys) {
            let key = BlockKey(self.mix(*key));
            let shard = locked.shard(key);
            rows.fill([0; PLACES]);
            for (place, shard) in shard.iter().enumerate() {
                mark(shard, key, place, &mut rows);
            }
            let mut any = 0;
            for (word, (left, row)) in left.iter_mut().zip(&rows).enumerate() {
                let now = *left & row.iter().fold(0, |all, bits| all | bits);
                for slot in bits(&[*left & !now]) {
                    held[word * 64 + slot as usize].end(depth, 0.0);
                }
                *left = now;
                any |= now;
                let mut unweighted = now;
                for &place in &order {
                    for slot in bits(&[unweighted & row[place]]) {
                        held[word * 64 + slot as usize].weight += weights[place];
                    }
                    unweighted &= !row[place];
                }
            }
            if any == 0 {
                return;
            }
        }
        end_all(&left, keys.len() as u32, 0.0, held);
    }
}

/// The shards that a look-up has come by. Each is locked once, whatever the length of the prompt.
struct Locked<'i> {
    index: &'i PreciseIndex,
    shards: [Option<RwLockReadGuard<'i, [Shard; PLACES]>>; SHARDS],
}

impl<'i> Locked<'i> {
    fn new(index: &'i PreciseIndex) -> Self {
        Self { index, shards: [const { None }; SHARDS] }
    }

    /// The shard of a key, by place. A writer that waits is passed by: two look-ups that each hold a shard which the
    /// other one wants would otherwise wait for two writers for ever. A writer holds one shard at a time.
    fn shard(&mut self, key: BlockKey) -> &[Shard; PLACES] {
        let at = key.shard();
        self.shards[at].get_or_insert_with(|| self.index.shards[at].read_recursive())
    }

    /// Bits of a row of a shard that was locked before, in the accelerator's memory.
    fn words(&self, shard: usize, row: u32) -> &[u64] {
        self.shards[shard].as_ref().map(|places| places[0].words(row)).unwrap_or_default()
    }
}

/// The endpoints that are `left` hold the whole prompt.
fn end_all(left: &[u64], depth: u32, weight: f64, held: &mut [HeldPrefix]) {
    for (word, left) in left.iter().enumerate() {
        for slot in bits(&[*left]) {
            held[word * 64 + slot as usize].end(depth, weight);
        }
    }
}

/// Sets the bits of these holders, unless they have a row of their own.
fn mark_few(holders: Holders, row: &mut [u64]) {
    let mut set = |slot: HolderSlot| {
        if let Some(word) = row.get_mut(usize::from(slot / 64)) {
            *word |= 1 << (slot % 64);
        }
    };
    match holders {
        Holders::Nobody | Holders::Many(_) => {}
        Holders::One(slot) => set(slot),
        Holders::Two(slots) => slots.into_iter().for_each(set),
        Holders::Three(slots) => slots.into_iter().for_each(set),
    }
}

/// Sets the bits of the holders of `key` in this place.
fn mark(shard: &Shard, key: BlockKey, place: usize, rows: &mut [[u64; PLACES]]) {
    let mut set = |slot: HolderSlot| {
        if let Some(row) = rows.get_mut(usize::from(slot / 64)) {
            row[place] |= 1 << (slot % 64);
        }
    };
    match shard.holders(key) {
        Holders::Nobody => {}
        Holders::One(slot) => set(slot),
        Holders::Two(slots) => slots.into_iter().for_each(set),
        Holders::Three(slots) => slots.into_iter().for_each(set),
        Holders::Many(row) => {
            for (row, word) in rows.iter_mut().zip(shard.words(row)) {
                row[place] |= word;
            }
        }
    }
}
