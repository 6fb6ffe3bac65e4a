//! EndpointSlices.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::kind::resource;
use super::meta::slim;

/// Addresses of one slice that are looked at. The API allows no more.
const MOST_ENDPOINTS: usize = 1000;

/// An EndpointSlice as the API writes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointSlice {
    #[serde(deserialize_with = "slim")]
    metadata: ObjectMeta,
    endpoints: Option<Vec<Entry>>,
    ports: Option<Vec<SlicePort>>,
}

resource!(EndpointSlice, "EndpointSlice", "endpointslices");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    addresses: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlicePort {
    name: Option<String>,
    port: Option<u16>,
}

/// The facts that are remembered of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceFacts {
    /// Name.
    pub(crate) name: String,
    /// Where the Service's pods listen.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl EndpointSlice {
    /// Addresses of all pods, be they ready or not, at the port called `port`, or at the only one. A slice of names
    /// instead of addresses has none.
    pub(crate) fn facts(self, port: &str) -> SliceFacts {
        let ports = self.ports.unwrap_or_default();
        let named = ports.iter().find(|given| given.name.as_deref() == Some(port));
        let number = match (named, ports.as_slice()) {
            (Some(named), _) => named.port,
            (None, [only]) => only.port,
            (None, _) => None,
        };
        let entries = self.endpoints.unwrap_or_default().into_iter().take(MOST_ENDPOINTS);
        // All addresses of an entry lead to the same pod.
        let first = entries.filter_map(|entry| entry.addresses.first()?.parse::<IpAddr>().ok());
        let addresses = number.map(|number| first.map(|ip| SocketAddr::new(ip, number)).collect());
        SliceFacts { name: self.metadata.name.unwrap_or_default(), addresses: addresses.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn addresses(slice: Value) -> Vec<String> {
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        slice.facts("peers").addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_pod_counts_once_ready_or_not_at_the_named_port() {
        let slice = json!({
            "metadata": {"name": "s"},
            "endpoints": [
                {"addresses": ["10.0.0.1", "10.9.9.9"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["a.name"]},
                {"addresses": []},
            ],
            "ports": [{"name": "grpc", "port": 9002}, {"name": "peers", "port": 9006}],
        });
        assert_eq!(addresses(slice), ["10.0.0.1:9006", "10.0.0.2:9006"]);
    }

    #[test]
    fn the_only_port_needs_no_name_and_a_slice_may_be_empty() {
        let slice = json!({"metadata": {"name": "s"}, "endpoints": [{"addresses": ["fd00::1"]}], "ports": [{"port": 7}]});
        assert_eq!(addresses(slice), ["[fd00::1]:7"]);
        assert!(addresses(json!({"metadata": {"name": "s"}, "endpoints": null, "ports": null})).is_empty());
        let other = json!({"metadata": {"name": "s"}, "endpoints": [{"addresses": ["10.0.0.1"]}],
            "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]});
        assert!(addresses(other).is_empty());
    }
}
