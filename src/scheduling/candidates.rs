//! The endpoints one request may be sent to.

use std::sync::Arc;

use crate::pool::{Endpoint, Snapshot, Subset};

/// A dense set of endpoints out of one snapshot. A candidate's *slot* is its place in this set.
#[derive(Clone, Debug)]
pub struct Candidates {
    snapshot: Arc<Snapshot>,
    /// Places in the snapshot; `None` means all of it.
    chosen: Option<Box<[u32]>>,
}

impl Candidates {
    /// Every endpoint of the snapshot.
    pub fn all(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, chosen: None }
    }

    /// The endpoints that the subset admits.
    pub fn within(snapshot: Arc<Snapshot>, subset: &Subset) -> Self {
        let chosen = snapshot
            .endpoints()
            .iter()
            .zip(0u32..)
            .filter(|(endpoint, _)| subset.admits(endpoint))
            .map(|(_, index)| index)
            .collect();
        Self { snapshot, chosen: Some(chosen) }
    }

    /// Number of candidates.
    pub fn len(&self) -> usize {
        self.chosen.as_ref().map_or(self.snapshot.len(), |chosen| chosen.len())
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All candidates in slot order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        (0..self.len() as u32).map(|slot| self.at(slot))
    }

    /// The candidate in `slot`.
    ///
    /// # Panics
    /// If `slot` is not below [`Candidates::len`]. Slots come from this set only.
    pub fn at(&self, slot: u32) -> &Arc<Endpoint> {
        &self.snapshot.endpoints()[self.place(slot) as usize]
    }

    /// Place in the snapshot of the candidate in `slot`.
    ///
    /// # Panics
    /// If `slot` is not below [`Candidates::len`]. Slots come from this set only.
    pub fn place(&self, slot: u32) -> u32 {
        self.chosen.as_ref().map_or(slot, |chosen| chosen[slot as usize])
    }

    /// The snapshot they come from.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }
}
