//! Questions about tokens that are not known, each address a few at a time: invented tokens of one client keep no other
//! waiting. Pure but for the lock.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Questions of one address that wait or are under way.
const EACH: usize = 8;

/// The callers that wait, by address. The number of the port's connections bounds the number of addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers {
    waiting: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Strangers {
    /// A place for a question that came from `address`; `None` if its places are taken.
    pub(super) fn enter(&self, address: Option<IpAddr>) -> Option<Place> {
        let origin = origin(address);
        let mut waiting = self.waiting.lock();
        let taken = waiting.entry(origin).or_insert(0);
        if *taken >= EACH {
            return None;
        }
        *taken += 1;
        Some(Place { strangers: self.clone(), origin })
    }
}

/// The address that counts as one client: an IPv4 address, or the /64 network of an IPv6 address, because one machine
/// may have any number of addresses in that network.
fn origin(address: Option<IpAddr>) -> IpAddr {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(address)) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        Some(address) => address,
        None => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A place that is given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    strangers: Strangers,
    origin: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.strangers.waiting.lock();
        if let Some(taken) = waiting.get_mut(&self.origin) {
            *taken -= 1;
            if *taken == 0 {
                waiting.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_few_places_and_takes_none_of_others() {
        let strangers = Strangers::default();
        let address = |text: &str| Some(text.parse().unwrap());
        let mut taken: Vec<Place> = (0..EACH).map(|_| strangers.enter(address("fd00::1")).unwrap()).collect();
        assert!(strangers.enter(address("fd00::1")).is_none());
        assert!(strangers.enter(address("fd00::2")).is_none(), "the same network");
        assert!(strangers.enter(address("10.0.0.1")).is_some());
        taken.pop();
        assert!(strangers.enter(address("fd00::2")).is_some());
        taken.clear();
        assert!(strangers.waiting.lock().is_empty());
    }
}
