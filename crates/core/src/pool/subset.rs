//! The proxy's subset hint: only these endpoints may serve the request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Endpoint;

/// One entry of a subset hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubsetEntry {
    /// Address of the pod. An IPv4 address in the form of IPv6 is stored as IPv4.
    pub ip: IpAddr,
    /// Port of the endpoint. With `None`, every port of the address belongs to the subset.
    pub port: Option<u16>,
}

/// Characters of a bad entry that an error shows. The longest address with a port has 47.
const SHOWN: usize = 64;

/// Error: an entry is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("subset hint entry {entry:?} is no IP address with an optional port")]
pub struct SubsetError {
    /// The beginning of the entry, at most 64 characters.
    pub entry: String,
}

/// A parsed subset hint. An empty one admits no endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subset {
    /// Sorted and without repeats. An entry for all ports of an address comes before the entries for single ports.
    entries: Vec<SubsetEntry>,
}

impl Subset {
    /// Reads entries of the form `ip`, `ip:port`, `[ipv6]`, `[ipv6]:port` or bare IPv6; blanks around them are ignored.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, SubsetError> {
        let entries = entries.into_iter().map(parse_entry).collect::<Result<_, _>>()?;
        Ok(Self::new(entries))
    }

    fn new(mut entries: Vec<SubsetEntry>) -> Self {
        entries.sort_unstable();
        entries.dedup();
        Self { entries }
    }

    /// The same hint, adapted to a pool of these endpoints. If no endpoint at an entry's address has the entry's port,
    /// the entry stands for all ports of the address, because gateways may send the port of a service. If an endpoint
    /// has the port, the port counts.
    #[must_use]
    pub fn among(&self, endpoints: &[Arc<Endpoint>]) -> Self {
        let mut served = vec![false; self.entries.len()];
        for endpoint in endpoints {
            if let Ok(at) = self.entries.binary_search(&entry_of(endpoint.spec().address)) {
                served[at] = true;
            }
        }
        let widened = |(entry, served): (&SubsetEntry, bool)| SubsetEntry {
            port: entry.port.filter(|_| served),
            ..*entry
        };
        Self::new(self.entries.iter().zip(served).map(widened).collect())
    }

    /// True if the endpoint may serve the request. Ports have to match exactly; see [`Subset::among`].
    pub fn admits(&self, endpoint: &Endpoint) -> bool {
        let entry = entry_of(endpoint.spec().address);
        let known = |entry| self.entries.binary_search(&entry).is_ok();
        known(SubsetEntry { port: None, ..entry }) || known(entry)
    }
}

fn entry_of(address: SocketAddr) -> SubsetEntry {
    SubsetEntry { ip: address.ip().to_canonical(), port: Some(address.port()) }
}

fn parse_entry(text: &str) -> Result<SubsetEntry, SubsetError> {
    let entry = text.trim();
    if let Ok(address) = entry.parse::<SocketAddr>() {
        return Ok(entry_of(address));
    }
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(SubsetEntry { ip: ip.to_canonical(), port: None }),
        Err(_) => Err(SubsetError { entry: text.chars().take(SHOWN).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{EndpointId, EndpointSpec, Pool};

    /// Addresses of a pool that the hint leaves, in the order of the pool.
    fn left(pool: &[&str], hint: &[&str]) -> Vec<String> {
        let spec = |(index, address): (usize, &&str)| {
            EndpointSpec::new(EndpointId::new("default", &index.to_string()), address.parse().unwrap())
        };
        let of = Pool::new("default", "pool", std::time::Instant::now());
        of.replace_endpoints(pool.iter().enumerate().map(spec).collect());
        let snapshot = of.snapshot();
        let subset = Subset::parse(hint.iter().copied()).unwrap().among(snapshot.endpoints());
        let admitted = snapshot.endpoints().iter().filter(|endpoint| subset.admits(endpoint));
        admitted.map(|endpoint| endpoint.target().to_owned()).collect()
    }

    #[test]
    fn an_entry_with_a_port_that_is_no_endpoints_stands_for_its_address() {
        let pool = ["10.0.0.1:8000", "10.0.0.1:8001", "10.0.0.2:8000", "[fd00::1]:8000"];
        assert_eq!(left(&pool, &["10.0.0.1:80"]), &pool[..2]);
        assert_eq!(left(&pool, &["[fd00::1]:443"]), &pool[3..]);
        assert_eq!(left(&pool, &["10.0.0.2:8001"]), &pool[2..3], "the port is another address's");
        assert_eq!(left(&pool, &["10.0.0.9:8000"]), [""; 0], "the address is not in the pool");
    }

    #[test]
    fn a_port_that_is_an_endpoints_goes_on_counting() {
        let pool = ["10.0.0.1:8000", "10.0.0.1:8001", "10.0.0.2:8000"];
        assert_eq!(left(&pool, &["10.0.0.1:8001"]), &pool[1..2]);
        assert_eq!(left(&pool, &["10.0.0.1:8001", "10.0.0.2:80"]), &pool[1..]);
        assert_eq!(left(&pool, &["10.0.0.1:8001", "10.0.0.1"]), &pool[..2]);
        assert_eq!(left(&pool, &[]), [""; 0]);
    }

    #[test]
    fn an_ipv4_address_in_the_form_of_ipv6_is_the_ipv4_address() {
        let pool = ["10.0.0.1:8000", "[::ffff:10.0.0.2]:8000", "10.0.0.3:8000"];
        for hint in ["::ffff:10.0.0.1", "[::ffff:10.0.0.1]", "[::ffff:10.0.0.1]:8000", "[::ffff:a00:1]:80"] {
            assert_eq!(left(&pool, &[hint]), &pool[..1], "{hint}");
        }
        assert_eq!(left(&pool, &["10.0.0.2:8000", "10.0.0.3"]), &pool[1..]);
    }

    #[test]
    fn addresses_parse_with_and_without_port_and_brackets() {
        let parse = |text| parse_entry(text).map(|entry| (entry.ip.to_string(), entry.port));
        assert_eq!(parse("10.0.0.1:8000"), Ok(("10.0.0.1".into(), Some(8000))));
        assert_eq!(parse(" 10.0.0.1 "), Ok(("10.0.0.1".into(), None)));
        assert_eq!(parse("[fd00::1]:8000"), Ok(("fd00::1".into(), Some(8000))));
        assert_eq!(parse("[fd00::1]"), Ok(("fd00::1".into(), None)));
        assert_eq!(parse("fd00::1"), Ok(("fd00::1".into(), None)));
    }

    #[test]
    fn an_entry_that_is_no_address_is_named() {
        for text in ["", "pod-1", "10.0.0.1:http", "10.0.0.1:99999", "[::1"] {
            assert_eq!(parse_entry(text), Err(SubsetError { entry: text.into() }));
        }
    }
}
