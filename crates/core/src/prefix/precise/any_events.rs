//! Engines that tell anything: events that do not fit together, hashes that come again for other blocks, tiers, adapters
//! and salts in any order, against a plain model of what was told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::pool::{Endpoint, EndpointId, EndpointSpec, Pool};
use crate::prefix::PrefixMemory;
use crate::request::TokenizedPrompt;

const SIZE: u32 = 4;
const TIERS: [Tier; 3] = [Tier::Gpu, Tier::Cpu, Tier::Other];

/// Adapter, and tokens and extras of each block from the beginning of the prompt on.
type Chain = (String, Vec<(Vec<u32>, Vec<Extra>)>);

/// What one engine told of, by its hashes, and how often in each tier.
#[derive(Default)]
struct Told(HashMap<u64, (Chain, [u32; 3])>);

impl Told {
    fn apply(&mut self, event: &KvEvent) -> Taken {
        match event {
            KvEvent::Stored(stored) => return self.store(stored),
            KvEvent::Removed { hashes, tier } => {
                for hash in hashes {
                    let Some((_, held)) = self.0.get_mut(hash) else { continue };
                    held[*tier as usize] = held[*tier as usize].saturating_sub(1);
                    if *held == [0; 3] {
                        self.0.remove(hash);
                    }
                }
            }
            KvEvent::Cleared => self.0.clear(),
        }
        Taken::Whole
    }

    fn store(&mut self, stored: &StoredBlocks) -> Taken {
        let tier = stored.tier as usize;
        if stored.tokens.is_empty() {
            for hash in &stored.hashes {
                if let Some((_, held)) = self.0.get_mut(hash) {
                    held[tier] += 1;
                }
            }
            return Taken::Whole;
        }
        let size = stored.block_size as usize;
        if size == 0
            || stored.tokens.len() != stored.hashes.len() * size
            || !(stored.extras.is_empty() || stored.extras.len() == stored.hashes.len())
        {
            return Taken::Malformed;
        }
        let adapter = stored.adapter.as_deref().unwrap_or_default();
        let mut chain = match stored.parent {
            None => (adapter.to_owned(), Vec::new()),
            Some(hash) => match self.0.get(&hash) {
                Some((chain, _)) => chain.clone(),
                None => return Taken::UnknownParent,
            },
        };
        for (index, (hash, tokens)) in stored.hashes.iter().zip(stored.tokens.chunks(size)).enumerate() {
            let mut extras = stored.extras.get(index).cloned().unwrap_or_default();
            extras.retain(|extra| **extra != *adapter.as_bytes());
            chain.1.push((tokens.to_vec(), extras));
            if let Some((_, held)) = self.0.get_mut(hash).filter(|(known, _)| *known == chain) {
                held[tier] += 1;
            } else {
                let mut held = [0; 3];
                held[tier] = 1;
                self.0.insert(*hash, (chain.clone(), held));
            }
        }
        Taken::Whole
    }

    /// Blocks of a prompt, from its beginning on, that the engine has told of.
    fn depth(&self, adapter: &str, tokens: &[u32], salt: &str) -> u32 {
        let mut chain = (adapter.to_owned(), Vec::new());
        let mut depth = 0;
        for tokens in tokens.chunks_exact(SIZE as usize) {
            let salted = depth == 0 && !salt.is_empty();
            let extras = if salted { vec![salt.as_bytes().into()] } else { Vec::new() };
            chain.1.push((tokens.to_vec(), extras));
            if !self.0.values().any(|(known, _)| *known == chain) {
                break;
            }
            depth += 1;
        }
        depth
    }
}

fn events() -> impl Strategy<Value = Vec<(usize, KvEvent)>> {
    let hash = || 0..6_u64;
    let tier = || prop::sample::select(TIERS.to_vec());
    let extras = prop::collection::vec(
        prop::collection::vec(
            prop::sample::select(vec!["s", "a"]).prop_map(|text| Extra::from(text.as_bytes())),
            0..2,
        ),
        0..4,
    );
    let lengths = prop_oneof![8 => Just(None), 1 => (0..20_usize).prop_map(Some)];
    let stored = (
        prop::collection::vec(hash(), 1..4),
        prop::option::of(hash()),
        prop::collection::vec(0..2_u32, 20),
        (prop::sample::select(vec![SIZE, SIZE, SIZE, SIZE, 2, 0]), lengths),
        tier(),
        prop::option::of(Just(Box::<str>::from("a"))),
        prop_oneof![4 => Just(Vec::new()), 2 => extras],
    );
    let stored =
        stored.prop_map(|(hashes, parent, mut tokens, (block_size, length), tier, adapter, mut extras)| {
            tokens.truncate(length.unwrap_or(hashes.len() * block_size as usize));
            if length.is_none() && !extras.is_empty() {
                extras.resize(hashes.len(), Vec::new());
            }
            KvEvent::Stored(StoredBlocks { hashes, parent, tokens, block_size, tier, adapter, extras })
        });
    let removed = (prop::collection::vec(hash(), 0..3), tier())
        .prop_map(|(hashes, tier)| KvEvent::Removed { hashes, tier });
    let event = prop_oneof![12 => stored, 6 => removed, 1 => Just(KvEvent::Cleared)];
    prop::collection::vec((0..2_usize, event), 0..40)
}

proptest! {
    /// The index has as many blocks as were told, takes an event in or refuses it as it should, and never says that an
    /// engine holds a block which the engine did not tell of, or took back.
    #[test]
    fn whatever_engines_tell_the_index_claims_no_block_that_was_not_told(events in events()) {
        let pool = Pool::new("ns", "pool", Instant::now());
        let spec = |name: u16| {
            let address: SocketAddr = ([10, 0, 0, 1], 1000 + name).into();
            EndpointSpec::new(EndpointId::new("ns", &format!("pod-{name}")), address)
        };
        pool.replace_endpoints((0..2).map(spec).collect());
        let snapshot = pool.snapshot();
        let memory = PrefixMemory::new(u64::MAX);
        let index = PreciseIndex::new(Arc::clone(&memory), "", TierWeights::default(), 7);
        index.follow(&snapshot);
        let mut told = [Told::default(), Told::default()];
        let endpoints: Vec<&Endpoint> = snapshot.endpoints().iter().map(AsRef::as_ref).collect();
        for (engine, event) in &events {
            let taken = index.apply(endpoints[*engine].incarnation(), event);
            prop_assert_eq!(taken, told[*engine].apply(event), "{:?}", event);
        }
        prop_assert_eq!(index.entries() as usize, told.iter().map(|told| told.0.len()).sum::<usize>());
        let prompts: Vec<Chain> =
            told.iter().flat_map(|told| told.0.values().map(|(chain, _)| chain.clone())).collect();
        for (adapter, blocks) in prompts {
            let tokens: Vec<u32> = blocks.iter().flat_map(|(tokens, _)| tokens).copied().collect();
            let prompt = TokenizedPrompt { ids: tokens.clone(), media: Vec::new() };
            for salt in ["", "s"] {
                let keys = index.keys().of_prompt(&adapter, &prompt, salt, SIZE);
                let held = index.lookup(&endpoints, &[keys]);
                for (held, told) in held.iter().zip(&told) {
                    let most = told.depth(&adapter, &tokens, salt);
                    prop_assert!(held.blocks <= most, "{} of {most} blocks", held.blocks);
                }
            }
        }
        pool.replace_endpoints(Vec::new());
        index.follow(&pool.snapshot());
        prop_assert_eq!((index.entries(), memory.used()), (0, 0));
        prop_assert_eq!(index.blocks_by_place(), [0; 4]);
    }
}
