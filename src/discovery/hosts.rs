//! Host names in the endpoints file, and the addresses at which clusters are read.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::document::Problems;
use crate::pool::EndpointSpec;

/// Label of a cluster: where its metrics are, an IP address or a host name.
const METRICS_ADDRESS: &str = "metricsAddress";
/// Label of a cluster: the port of its metrics.
const METRICS_PORT: &str = "metricsPort";
/// Stands for the address of a host name that is not known yet: nothing is there (RFC 6666).
pub(super) const NOWHERE: IpAddr = IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0));

/// An address, or a name that has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// The address.
    Address(IpAddr),
    /// The name, in lower case.
    Host(Arc<str>),
}

impl At {
    /// What the text says; `None` if it is neither.
    pub(super) fn read(text: &str) -> Option<Self> {
        text.parse::<IpAddr>().map(At::Address).ok().or_else(|| host_name(text).map(At::Host))
    }
}

/// A name as the DNS and `/etc/hosts` know it, without a dot at its end. Digits alone behind the last dot are a
/// misspelt address.
fn host_name(text: &str) -> Option<Arc<str>> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let good =
        name.len() <= 253 && name.split('.').all(fits) && !last.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| name.to_ascii_lowercase().into())
}

/// What is special about the addresses of endpoints, by their position in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Host names in place of addresses.
    pub serving: BTreeMap<usize, Arc<str>>,
    /// Addresses of metrics, where those are not the serving address.
    pub scraped: BTreeMap<usize, At>,
}

impl Hosts {
    /// All names, some more than once.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let scraped = self.scraped.values().filter_map(|at| match at {
            At::Host(name) => Some(name),
            At::Address(_) => None,
        });
        self.serving.values().chain(scraped)
    }

    /// Reads where clusters are scraped from their labels, and puts it into `endpoints`. Every fault goes into
    /// `problems`.
    pub(super) fn of_clusters(&mut self, endpoints: &mut [EndpointSpec], problems: &mut Problems) {
        for (position, endpoint) in endpoints.iter_mut().enumerate() {
            let label = |key: &str| endpoint.labels.get(key).filter(|text| !text.is_empty());
            let fault = |key: &str, got: &str, expected: &str| {
                let path = format!("endpoints[{position}].labels.{key}");
                (path, format!("got \"{got}\", expected {expected} (endpoint \"{}\")", endpoint.id.name()))
            };
            let (mut port, mut at, mut faults) = (None, None, Vec::new());
            if let Some(text) = label(METRICS_PORT) {
                port = text.parse::<u16>().ok().filter(|port| *port > 0);
                if port.is_none() {
                    faults.push(fault(METRICS_PORT, text, "a port from 1 to 65535"));
                }
            }
            if let Some(text) = label(METRICS_ADDRESS) {
                at = At::read(text);
                if at.is_none() {
                    faults.push(fault(METRICS_ADDRESS, text, "an IPv4 or IPv6 address or a host name"));
                }
            }
            for (path, message) in faults {
                problems.error(0, path, message);
            }
            if let Some(port) = port {
                endpoint.metrics.port = Some(port);
                endpoint.metrics_address.set_port(port);
            }
            if let Some(at) = at {
                let (ip, name) = match &at {
                    At::Address(ip) => (*ip, None),
                    At::Host(name) => (NOWHERE, Some(Arc::clone(name))),
                };
                endpoint.metrics.host = name;
                endpoint.metrics_address = SocketAddr::new(ip, endpoint.metrics_address.port());
                self.scraped.insert(position, at);
            }
        }
    }
}
