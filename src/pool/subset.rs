//! The proxy's subset hint: only these endpoints may serve the request.

use std::net::{IpAddr, SocketAddr};

use super::Endpoint;

/// One entry of a subset hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubsetEntry {
    /// Address of the pod.
    pub ip: IpAddr,
    /// Port, if the entry names one; without it every port of the address belongs to the subset.
    pub port: Option<u16>,
}

/// An entry that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("subset hint entry {entry:?} is no IP address with an optional port")]
pub struct SubsetError {
    /// The entry as it came.
    pub entry: String,
}

/// A parsed subset hint. An empty one admits no endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subset {
    entries: Vec<SubsetEntry>,
}

impl Subset {
    /// Reads entries of the form `ip`, `ip:port`, `[ipv6]`, `[ipv6]:port` or bare IPv6; blanks around them are ignored.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, SubsetError> {
        let entries = entries.into_iter().map(parse_entry).collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    /// True if the endpoint may serve.
    pub fn admits(&self, endpoint: &Endpoint) -> bool {
        let address = endpoint.spec().address;
        self.entries
            .iter()
            .any(|entry| entry.ip == address.ip() && entry.port.is_none_or(|port| port == address.port()))
    }
}

fn parse_entry(text: &str) -> Result<SubsetEntry, SubsetError> {
    let entry = text.trim();
    if let Ok(address) = entry.parse::<SocketAddr>() {
        return Ok(SubsetEntry { ip: address.ip(), port: Some(address.port()) });
    }
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(SubsetEntry { ip, port: None }),
        Err(_) => Err(SubsetError { entry: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
