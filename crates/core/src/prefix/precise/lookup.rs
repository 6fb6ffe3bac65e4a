//! Looking up: how far each endpoint holds a prompt.

use smallvec::SmallVec;

use super::PromptKeys;
use super::index::PreciseIndex;
use super::tiers::PLACES;
use crate::pool::Endpoint;
use crate::prefix::holders::{HolderSlot, Holders, bits};
use crate::prefix::shard::{BlockKey, Shard};

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
    fn walk(&self, keys: &[u64], mut left: Vec<u64>, held: &mut [HeldPrefix]) {
        let everywhere = self.blocks_by_place().iter().skip(1).any(|blocks| *blocks > 0);
        let places = if everywhere { PLACES } else { 1 };
        let weights = self.weights.by_place();
        // Where every block lies in the accelerator's memory, all count alike.
        let plain = if everywhere { 0.0 } else { weights[0] };
        let mut order: SmallVec<[usize; PLACES]> = (0..places).collect();
        order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
        let mut rows = vec![[0_u64; PLACES]; left.len()];
        let mut depth = 0_u32;
        for key in keys {
            let key = BlockKey(self.mix(*key));
            let shard = self.shards[key.shard()].read();
            rows.fill([0; PLACES]);
            for place in 0..places {
                mark(&shard[place], key, place, &mut rows);
            }
            drop(shard);
            let mut any = 0;
            for (word, (left, row)) in left.iter_mut().zip(&rows).enumerate() {
                let now = *left & row.iter().fold(0, |all, bits| all | bits);
                // Those that end here have what came before.
                for slot in bits(&[*left & !now]) {
                    held[word * 64 + slot as usize].end(depth, plain);
                }
                *left = now;
                any |= now;
                let mut unweighted = if everywhere { now } else { 0 };
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
            depth += 1;
        }
        for (word, left) in left.iter().enumerate() {
            for slot in bits(&[*left]) {
                held[word * 64 + slot as usize].end(depth, plain);
            }
        }
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
