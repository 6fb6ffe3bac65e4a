//! A sample of the assignments that peers reported. It shows how many of them this replica still knows.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::fleet::Heard;
use super::own::EndpointKey;
use crate::pool::{Endpoint, Snapshot};
use crate::prefix::{BlockHashes, SharedIndex};

/// The number of assignments in the sample.
const SIZE: usize = 64;
/// Once the sample is full, one of this many assignments replaces the oldest one.
const ONE_IN: u32 = 8;
/// The number of an assignment's first blocks that are looked up.
const BLOCKS: usize = 8;

/// The sample.
#[derive(Debug, Default)]
pub(super) struct Sample {
    kept: VecDeque<Heard>,
}

impl Sample {
    /// Adds this assignment to the sample, or skips it.
    pub(super) fn offer(&mut self, heard: &Heard) {
        // An assignment without a block size has no blocks that could be looked up.
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

    /// The share of the sampled blocks that can be looked up and that the indexes do not have. `None` if no block can
    /// be looked up.
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
