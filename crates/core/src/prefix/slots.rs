//! The numbers of endpoints within an index.

use super::holders::HolderSlot;

/// Numbers that are given to endpoints, and given again once they are free.
#[derive(Debug, Default)]
pub(super) struct Slots {
    next: usize,
    free: Vec<HolderSlot>,
}

impl Slots {
    /// A number that nobody has; `None` if all are taken.
    pub(super) fn take(&mut self) -> Option<HolderSlot> {
        self.free.pop().or_else(|| {
            let slot = HolderSlot::try_from(self.next).ok().filter(|slot| *slot < HolderSlot::MAX)?;
            self.next += 1;
            Some(slot)
        })
    }

    /// The number is free again.
    pub(super) fn give_back(&mut self, slot: HolderSlot) {
        self.free.push(slot);
    }

    /// Words of 64 bits that have one for every number so far.
    pub(super) fn words(&self) -> usize {
        self.next.div_ceil(64)
    }
}
