//! The flows of a band that have requests waiting. A flow is forgotten as soon as none of its requests waits.

use std::sync::Arc;

use hashbrown::HashMap;

use super::queue::Queue;

/// One flow: the waiting requests of one fairness id in one band.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) id: Arc<str>,
    pub(super) queue: Queue,
}

/// The flows of one band. The slot of a flow does not change while the flow exists.
#[derive(Debug, Default)]
pub(super) struct Flows {
    slots: Vec<Option<Flow>>,
    free: Vec<u32>,
    by_id: HashMap<Arc<str>, Slot>,
}

/// The index of a flow's slot. The type is separate so that the compiler inlines this look-up, which each request does
/// once.
#[derive(Clone, Copy, Debug)]
struct Slot(u32);

impl Flows {
    pub(super) fn find(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).map(|slot| slot.0)
    }

    /// Adds a flow that [`Flows::find`] did not find.
    pub(super) fn insert(&mut self, flow: Flow) -> u32 {
        let id = Arc::clone(&flow.id);
        let index = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(index as usize) {
            Some(slot) => *slot = Some(flow),
            None => self.slots.push(Some(flow)),
        }
        self.by_id.insert(id, Slot(index));
        index
    }

    pub(super) fn get(&self, index: u32) -> Option<&Flow> {
        self.slots.get(index as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Flow> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, index: u32) {
        let flow = self.slots.get_mut(index as usize).and_then(Option::take);
        if let Some(flow) = flow {
            self.by_id.remove(&flow.id);
            self.free.push(index);
        }
    }

    /// The flows that have requests waiting, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.slots.iter().flatten()
    }

    /// The number of flows that have requests waiting.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}
