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

    /// The endpoints that the subset admits, where a port that is no endpoint's stands for its address.
    pub fn within(snapshot: Arc<Snapshot>, subset: &Subset) -> Self {
        let subset = subset.among(snapshot.endpoints());
        let chosen = snapshot
            .endpoints()
            .iter()
            .zip(0u32..)
            .filter(|(endpoint, _)| subset.admits(endpoint))
            .map(|(_, index)| index)
            .collect();
        Self { snapshot, chosen: Some(chosen) }
    }

    /// Those of them whose servers can be reached. If none can, all stay: a request may still find one of them back.
    #[must_use]
    pub fn reachable(self) -> Self {
        let count = self.iter().filter(|endpoint| endpoint.load().is_reachable()).count();
        if count == self.len() || count == 0 {
            return self;
        }
        let slots = 0..self.len() as u32;
        let chosen =
            slots.filter(|slot| self.at(*slot).load().is_reachable()).map(|slot| self.place(slot)).collect();
        Self { snapshot: self.snapshot, chosen: Some(chosen) }
    }

    /// Those of them whose bits are set in `keep`, which has one bit per slot.
    #[must_use]
    pub fn kept(self, keep: &super::Mask) -> Self {
        if keep.count() == self.len() {
            return self;
        }
        let slots = (0..self.len() as u32).filter(|slot| keep.contains(*slot as usize));
        let chosen = slots.map(|slot| self.place(slot)).collect();
        Self { snapshot: self.snapshot, chosen: Some(chosen) }
    }

    /// The candidates at these places of the snapshot, ascending; all of it for `None`. Places beyond its end are left
    /// out.
    pub fn at_places(snapshot: Arc<Snapshot>, places: Option<Vec<u32>>) -> Self {
        let chosen = places.map(|mut places| {
            places.retain(|place| (*place as usize) < snapshot.len());
            places.into()
        });
        Self { snapshot, chosen }
    }

    /// The candidates at the same places of another snapshot, which is as long.
    #[must_use]
    pub fn in_snapshot(&self, snapshot: Arc<Snapshot>) -> Self {
        let places = self.chosen.as_ref().map(|chosen| chosen.to_vec());
        Self::at_places(snapshot, places)
    }

    /// Their places in the snapshot; `None` for all of it.
    pub fn places(&self) -> Option<&[u32]> {
        self.chosen.as_deref()
    }

    /// Number of candidates.
    pub fn len(&self) -> usize {
        self.chosen.as_ref().map_or(self.snapshot.len(), |chosen| chosen.len())
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slots of all candidates, in order.
    pub fn slots(&self) -> Vec<u32> {
        (0..self.len() as u32).collect()
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use super::*;
    use crate::pool::{EndpointId, EndpointSpec, Pool};

    fn three() -> Arc<Snapshot> {
        let pool = Pool::new("default", "pool", Instant::now());
        let spec = |index: u8| {
            let address = SocketAddr::from(([127, 0, 0, index], 8000));
            EndpointSpec::new(EndpointId::new("default", &format!("pod-{index}")), address)
        };
        pool.replace_endpoints((1..4).map(spec).collect());
        pool.snapshot()
    }

    fn targets(candidates: &Candidates) -> Vec<&str> {
        candidates.iter().map(|endpoint| endpoint.target()).collect()
    }

    #[test]
    fn an_unreachable_server_is_left_out_while_another_one_answers() {
        let candidates = Candidates::all(three());
        candidates.at(1).load().note_silence(true);
        let candidates = candidates.reachable();
        assert_eq!(targets(&candidates), ["127.0.0.1:8000", "127.0.0.3:8000"]);
        assert_eq!(candidates.place(1), 2, "slots still lead to their place in the snapshot");
    }

    #[test]
    fn candidates_that_are_cut_down_twice_still_lead_to_their_places() {
        let mask = |len: usize, gone: usize| {
            let mut mask = super::super::Mask::full(len);
            mask.clear(gone);
            mask
        };
        let candidates = Candidates::all(three()).kept(&mask(3, 0)).kept(&mask(2, 0));
        assert_eq!((targets(&candidates), candidates.place(0)), (vec!["127.0.0.3:8000"], 2));
        assert!(candidates.kept(&mask(1, 0)).is_empty());
    }

    #[test]
    fn if_no_server_answers_all_of_them_stay() {
        let candidates = Candidates::all(three());
        candidates.iter().for_each(|endpoint| endpoint.load().note_silence(true));
        assert_eq!(candidates.reachable().len(), 3);
    }
}
