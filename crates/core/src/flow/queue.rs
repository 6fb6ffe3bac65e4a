//! The waiting requests: a slab that holds them, lists threaded through the slab, and the queue of one flow.

use std::collections::BTreeSet;

use super::ordering::{Nanos, Rank};

/// An index that no request has.
pub(super) const NONE: u32 = u32::MAX;

/// Names a request from its submission to its completion. A ticket is not reused in practice, because the generation of
/// a slot wraps only after four billion requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl Ticket {
    /// The index of the ticket's slot. The indices in use are small numbers, and an index is reused after its request
    /// has ended.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// One waiting request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) band: u32,
    pub(super) flow: u32,
    /// The index of the group of requests with the same longest wait.
    pub(super) wait: u32,
    pub(super) priority: i32,
    pub(super) size: u64,
    pub(super) tokens: u64,
    pub(super) enqueued: Nanos,
    /// Position in the order of arrival.
    pub(super) sequence: u64,
    pub(super) rank: Option<Rank>,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    previous: u32,
    next: u32,
}

const UNLINKED: Links = Links { previous: NONE, next: NONE };

#[derive(Debug)]
struct ItemSlot {
    generation: u32,
    item: Option<Item>,
    links: [Links; 2],
}

/// The two lists that each request belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Via {
    /// The list of the request's flow.
    Flow = 0,
    /// The list of the requests with the same longest wait.
    Wait = 1,
}

/// All waiting requests.
#[derive(Debug, Default)]
pub(super) struct Items {
    slots: Vec<ItemSlot>,
    free: Vec<u32>,
}

impl Items {
    pub(super) fn insert(&mut self, item: Item) -> Ticket {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.item = Some(item);
            slot.links = [UNLINKED; 2];
            return Ticket { index, generation: slot.generation };
        }
        let index = self.slots.len() as u32;
        self.slots.push(ItemSlot { generation: 0, item: Some(item), links: [UNLINKED; 2] });
        Ticket { index, generation: 0 }
    }

    /// Frees the slot of a request that is in no list any more.
    pub(super) fn remove(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize)
            && slot.item.take().is_some()
        {
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(index);
        }
    }

    pub(super) fn get(&self, index: u32) -> Option<&Item> {
        self.slots.get(index as usize)?.item.as_ref()
    }

    /// Puts another request into a slot that is in use.
    pub(super) fn put(&mut self, index: u32, item: Item) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.item = Some(item);
            slot.links = [UNLINKED; 2];
        }
    }

    /// All requests, with their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Item)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| Some((index, slot.item.as_ref()?)))
    }

    /// The request of `ticket`, if it still waits.
    pub(super) fn find(&self, ticket: Ticket) -> Option<&Item> {
        let slot = self.slots.get(ticket.index as usize)?;
        slot.item.as_ref().filter(|_| slot.generation == ticket.generation)
    }

    /// The ticket of the request in this slot.
    pub(super) fn ticket(&self, index: u32) -> Ticket {
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.generation);
        Ticket { index, generation }
    }

    fn links(&mut self, index: u32, via: Via) -> Option<&mut Links> {
        self.slots.get_mut(index as usize).map(|slot| &mut slot.links[via as usize])
    }
}

/// A doubly linked list through the slab. Appending, taking from the front and removing from the middle are O(1).
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    head: u32,
    tail: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { head: NONE, tail: NONE }
    }
}

impl List {
    pub(super) fn head(self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    pub(super) fn push(&mut self, items: &mut Items, via: Via, index: u32) {
        let previous = std::mem::replace(&mut self.tail, index);
        if let Some(links) = items.links(index, via) {
            *links = Links { previous, next: NONE };
        }
        match items.links(previous, via) {
            Some(links) => links.next = index,
            None => self.head = index,
        }
    }

    pub(super) fn remove(&mut self, items: &mut Items, via: Via, index: u32) {
        let Some(links) = items.links(index, via) else { return };
        let Links { previous, next } = std::mem::replace(links, UNLINKED);
        match items.links(previous, via) {
            Some(links) => links.next = next,
            None => self.head = next,
        }
        match items.links(next, via) {
            Some(links) => links.previous = previous,
            None => self.tail = previous,
        }
    }
}

/// The requests of one flow, in the order of service.
#[derive(Debug)]
pub(super) enum Queue {
    /// The order is that of arrival. Every operation is O(1).
    Arrival(List),
    /// The order is that of the ranks. Every operation is O(log n).
    Ranked(BTreeSet<(Rank, u32)>),
}

impl Queue {
    pub(super) fn head(&self) -> Option<u32> {
        match self {
            Self::Arrival(list) => list.head(),
            Self::Ranked(set) => set.first().map(|(_, index)| *index),
        }
    }

    pub(super) fn push(&mut self, items: &mut Items, index: u32) {
        match (self, items.get(index).and_then(|item| item.rank)) {
            (Self::Ranked(set), Some(rank)) => _ = set.insert((rank, index)),
            (Self::Arrival(list), _) => list.push(items, Via::Flow, index),
            (Self::Ranked(_), None) => {}
        }
    }

    pub(super) fn remove(&mut self, items: &mut Items, index: u32) {
        match (self, items.get(index).and_then(|item| item.rank)) {
            (Self::Ranked(set), Some(rank)) => _ = set.remove(&(rank, index)),
            (Self::Arrival(list), _) => list.remove(items, Via::Flow, index),
            (Self::Ranked(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Item {
        Item {
            band: 0,
            flow: 0,
            wait: 0,
            priority: 0,
            size: 1,
            tokens: 0,
            enqueued: 0,
            sequence: 0,
            rank: None,
        }
    }

    #[test]
    fn a_list_gives_back_in_order_whatever_leaves_from_the_middle() {
        let (mut items, mut list) = (Items::default(), List::default());
        let tickets: Vec<Ticket> = (0..5).map(|_| items.insert(item())).collect();
        for ticket in &tickets {
            list.push(&mut items, Via::Wait, ticket.index);
        }
        for gone in [2, 4, 0] {
            list.remove(&mut items, Via::Wait, gone);
        }
        assert_eq!(list.head(), Some(1));
        list.remove(&mut items, Via::Wait, 1);
        assert_eq!(list.head(), Some(3));
        list.remove(&mut items, Via::Wait, 3);
        assert_eq!((list.head(), list.tail), (None, NONE));
    }

    #[test]
    fn an_old_ticket_does_not_find_the_next_request_in_its_slot() {
        let mut items = Items::default();
        let old = items.insert(item());
        items.remove(old.index);
        let new = items.insert(item());
        assert_eq!(new.index(), old.index());
        assert!(items.find(old).is_none());
        assert!(items.find(new).is_some());
    }
}
