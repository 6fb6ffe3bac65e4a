//! A sample of what peers said they sent where, to see whether this replica still knows it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::fleet::Heard;
use super::own::EndpointKey;
use crate::pool::{Endpoint, Snapshot};
use crate::prefix::{BlockHashes, SharedIndex};

/// Assignments in the sample.
const SIZE: usize = 64;
/// Once it is full, one assignment in so many takes the place of the oldest.
const ONE_IN: u32 = 8;
/// Blocks of an assignment that are looked for: the first ones.
const BLOCKS: usize = 8;

/// The sample.
#[derive(Debug, Default)]
pub(super) struct Sample {
    kept: VecDeque<Heard>,
}

impl Sample {
    /// Takes this assignment in, or not.
    pub(super) fn offer(&mut self, heard: &Heard) {
        // What has no block size has no blocks that could be looked for.
        if heard.blocks.block_size() == 0 {
            return;
        }
        if self.kept.len() >= SIZE {
            if fastrand::u32(..ONE_IN) > 0 {
                return;
            }
            self.kept.pop_front();
        }
        let first = heard.blocks.chains().next().unwrap_or_default();
        let first: Vec<u64> = first.iter().take(BLOCKS).copied().collect();
        let ends = vec![first.len() as u32];
        let blocks = BlockHashes::from_parts(heard.blocks.block_size(), first, ends);
        self.kept.push_back(Heard { blocks, ..heard.clone() });
    }

    /// Share of the sample, of what can be looked for, that the indexes do not hold; `None` if nothing can be.
    pub(super) fn missing(
        &self,
        indexes: &HashMap<String, Arc<dyn SharedIndex>>,
        endpoints: &HashMap<EndpointKey, Arc<Endpoint>>,
        snapshot: &Snapshot,
    ) -> Option<f64> {
        let held = |heard: &Heard| {
            indexes.get(&heard.index)?.holds(endpoints.get(&heard.endpoint)?, snapshot, &heard.blocks)
        };
        let found: Vec<bool> = self.kept.iter().filter_map(held).collect();
        let missing = found.iter().filter(|held| !**held).count();
        (!found.is_empty()).then(|| missing as f64 / found.len() as f64)
    }
}
