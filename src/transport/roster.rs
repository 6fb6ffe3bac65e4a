//! The connections of a port, and which of them is closed first when the port is full. The code is pure.

use std::collections::BTreeMap;

/// The bounds on the connections of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionBounds {
    /// The most open connections.
    pub open: usize,
    /// The most connections among them whose client has not sent a whole request yet. Examples are silent clients, half
    /// handshakes and half requests.
    pub strangers: usize,
}

/// What the roster needs to know of a connection.
pub(super) trait Guest {
    /// The time since which no request is being answered, on a clock that only goes forward. `None` while a request is
    /// being answered.
    fn idle_since(&self) -> Option<u64>;
}

/// Whether a new connection may stay.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission<G> {
    /// The new connection may stay. It has this number, and the other connection, if there is one, must be closed.
    Admitted(u64, Option<G>),
    /// The port is full, and every connection is being answered.
    Full,
}

/// The connections of a port, in the order in which they came.
#[derive(Debug)]
pub(super) struct Roster<G> {
    bounds: ConnectionBounds,
    next: u64,
    strangers: BTreeMap<u64, G>,
    known: BTreeMap<u64, G>,
}

impl<G: Guest> Roster<G> {
    pub(super) fn new(bounds: ConnectionBounds) -> Self {
        Self { bounds, next: 0, strangers: BTreeMap::new(), known: BTreeMap::new() }
    }

    /// Adds a connection. At a bound another connection is removed: the oldest of those without a whole request. If
    /// there are none, it is the connection that has been idle longest.
    pub(super) fn admit(&mut self, guest: G) -> Admission<G> {
        let full = self.strangers.len() + self.known.len() >= self.bounds.open;
        let instead_of = if self.strangers.len() >= self.bounds.strangers {
            self.strangers.pop_first().map(|(_, guest)| guest)
        } else if full {
            let Some(guest) = self.give_up() else { return Admission::Full };
            Some(guest)
        } else {
            None
        };
        let number = self.next;
        self.next += 1;
        self.strangers.insert(number, guest);
        Admission::Admitted(number, instead_of)
    }

    /// Removes the connection that can be spared most, if there is one.
    pub(super) fn give_up(&mut self) -> Option<G> {
        if let Some((_, guest)) = self.strangers.pop_first() {
            return Some(guest);
        }
        let idle = self.known.iter().filter_map(|(number, guest)| Some((guest.idle_since()?, *number)));
        let (_, number) = idle.min()?;
        self.known.remove(&number)
    }

    /// Notes that a connection has sent a whole request.
    pub(super) fn promote(&mut self, number: u64) {
        if let Some(guest) = self.strangers.remove(&number) {
            self.known.insert(number, guest);
        }
    }

    /// Removes a connection that is closed.
    pub(super) fn leave(&mut self, number: u64) {
        if self.strangers.remove(&number).is_none() {
            self.known.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Peer(u64, Option<u64>);

    impl Guest for Peer {
        fn idle_since(&self) -> Option<u64> {
            self.1
        }
    }

    fn roster(open: usize, strangers: usize) -> Roster<Peer> {
        Roster::new(ConnectionBounds { open, strangers })
    }

    fn admit(roster: &mut Roster<Peer>, peer: Peer) -> Option<Peer> {
        match roster.admit(peer) {
            Admission::Admitted(_, instead_of) => instead_of,
            Admission::Full => panic!("full"),
        }
    }

    #[test]
    fn the_stranger_that_waited_longest_makes_room_and_whoever_is_known_stays() {
        let mut roster = roster(10, 2);
        assert_eq!(admit(&mut roster, Peer(0, Some(0))), None);
        roster.promote(0);
        assert_eq!(admit(&mut roster, Peer(1, Some(1))), None);
        assert_eq!(admit(&mut roster, Peer(2, Some(2))), None);
        assert_eq!(admit(&mut roster, Peer(3, Some(3))), Some(Peer(1, Some(1))));
        roster.leave(2);
        assert_eq!(admit(&mut roster, Peer(4, Some(4))), None);
    }

    #[test]
    fn without_strangers_the_longest_idle_leaves_and_nobody_who_is_answered() {
        let mut roster = roster(3, 3);
        for (number, idle) in [(0, None), (1, Some(9)), (2, Some(5))] {
            admit(&mut roster, Peer(number, idle));
            roster.promote(number);
        }
        assert_eq!(admit(&mut roster, Peer(3, None)), Some(Peer(2, Some(5))));
        roster.promote(3);
        assert_eq!(admit(&mut roster, Peer(4, None)), Some(Peer(1, Some(9))));
        roster.promote(4);
        assert_eq!(roster.admit(Peer(5, None)), Admission::Full);
    }

    proptest! {
        #[test]
        fn the_bounds_hold_whatever_comes_and_goes(steps in prop::collection::vec((0_u8..4, 0_u64..64), 0..200)) {
            let mut roster = roster(8, 3);
            for (step, number) in steps {
                match step {
                    0 | 1 => drop(roster.admit(Peer(number, (number % 2 == 0).then_some(number)))),
                    2 => roster.promote(number),
                    _ => roster.leave(number),
                }
                prop_assert!(roster.strangers.len() <= 3);
                prop_assert!(roster.strangers.len() + roster.known.len() <= 8);
            }
        }
    }
}
