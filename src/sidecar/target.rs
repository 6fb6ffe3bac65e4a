//! A server that a routing header names.

use std::fmt;
use std::net::IpAddr;

/// The longest text, in bytes, that is read as `host:port`.
const LONGEST: usize = 300;

/// The host and the port of another server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    host: String,
    port: Option<u16>,
}

impl Target {
    /// Reads `host:port`, `host`, `[v6]:port` or `v6`, each with or without `http://` in front. Returns `None` for any
    /// other text.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if text.is_empty() || text.len() > LONGEST {
            return None;
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']')?;
            let address: std::net::Ipv6Addr = host.parse().ok()?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port_of(port)?),
                None if rest.is_empty() => None,
                None => return None,
            };
            return Some(Self { host: address.to_string(), port });
        }
        if let Ok(address) = text.parse::<std::net::Ipv6Addr>() {
            return Some(Self { host: address.to_string(), port: None });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port_of(port)?)),
            None => (text, None),
        };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        (!host.is_empty() && host.bytes().all(named)).then(|| Self { host: host.to_owned(), port })
    }

    /// The host name or the address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address, if the host is an address.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The port, if the text named one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The host as it stands in a URL: an IPv6 address has brackets around it.
    pub fn url_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// Returns the same host with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port: Some(port) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url_host())?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn port_of(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_and_ports_are_read_with_and_without_a_scheme() {
        for (text, host, port, shown) in [
            ("10.0.0.2:8000", "10.0.0.2", Some(8000), "10.0.0.2:8000"),
            (" http://10.0.0.2:8000/ ", "10.0.0.2", Some(8000), "10.0.0.2:8000"),
            ("pod-1", "pod-1", None, "pod-1"),
            ("[fd00::0:1]:80", "fd00::1", Some(80), "[fd00::1]:80"),
            ("fd00::1", "fd00::1", None, "[fd00::1]"),
            ("[::1]", "::1", None, "[::1]"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.host(), target.port()), (host, port), "{text}");
            assert_eq!(target.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        for text in [
            "",
            " ",
            ":8000",
            "a:b",
            "a:0",
            "a:65536",
            "a:1:2",
            "https://a:1",
            "a/b",
            "a b",
            "[::1",
            "[::1]x",
            "a:1,b:1",
            "a@b:1",
            "a:+1",
        ] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_was_read_reads_back(text in ".{0,30}") {
            if let Some(target) = Target::parse(&text) {
                prop_assert_eq!(Target::parse(&target.to_string()), Some(target.clone()));
            }
        }
    }
}
