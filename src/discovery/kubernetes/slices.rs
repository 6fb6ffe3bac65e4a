//! The addresses behind a Service, by its EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use kube::Api;
use kube::runtime::watcher;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::cluster::Delta;
use super::resources::{EndpointSlice, GroupVersion, SliceFacts};
use super::watch::{Sink, Watched};
use crate::kubernetes::Connection;
use crate::metrics::KubernetesMetrics;

/// Steps that wait to be looked at.
const STEPS: usize = 64;
/// Slices of one Service that are looked at.
const SLICES: usize = 64;

/// A Service whose pods are looked for.
#[derive(Clone, Debug)]
pub struct ServiceSlices {
    /// Namespace.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Name of the port.
    pub port: &'static str,
    /// The features that do not work without it, for people.
    pub without: &'static str,
}

/// A step of the watch; `None` when nobody can look any more.
type Step = Option<Delta<SliceFacts>>;

impl ServiceSlices {
    /// Tells the addresses and their changes until told to stop. What was known stays known while the API is away.
    pub async fn run(
        self,
        connection: Connection,
        metrics: KubernetesMetrics,
        to: watch::Sender<Option<BTreeSet<SocketAddr>>>,
        stop: CancellationToken,
    ) {
        let client = match connection.client() {
            Ok(client) => client,
            Err(error) => return tracing::error!(%error, "the pods of a service are not looked for"),
        };
        let group = GroupVersion::new("discovery.k8s.io", "v1");
        let watched = Watched {
            resource: "endpointslices".to_owned(),
            group: group.group.to_string(),
            without: self.without,
            metrics: metrics.watch("endpointslices", &group.group),
        };
        let api: Api<EndpointSlice> = Api::namespaced_with(client, &self.namespace, &group);
        let config =
            watcher::Config::default().labels(&format!("kubernetes.io/service-name={}", self.service));
        let (steps, mut received) = mpsc::channel::<Step>(STEPS);
        let port = self.port;
        let sink = Sink { to: steps, step: Some, heard: None };
        let following =
            watched.follow(api, config, move |slice: EndpointSlice| Some(slice.facts(port)), sink);
        let telling = async {
            let mut slices = Slices::default();
            while let Some(step) = received.recv().await {
                if let Some(delta) = step {
                    slices.take(delta);
                    let addresses = slices.addresses();
                    to.send_if_modified(|before| {
                        let changed = before.as_ref() != Some(&addresses);
                        *before = Some(addresses);
                        changed
                    });
                }
            }
        };
        tokio::select! {
            () = following => {}
            () = telling => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The slices of one Service.
#[derive(Debug, Default)]
struct Slices(BTreeMap<String, Vec<SocketAddr>>);

impl Slices {
    fn take(&mut self, delta: Delta<SliceFacts>) {
        match delta {
            Delta::Listed(all) => {
                self.0 = all.into_iter().take(SLICES).map(|slice| (slice.name, slice.addresses)).collect();
            }
            Delta::Applied(slice) => {
                if self.0.len() < SLICES || self.0.contains_key(&slice.name) {
                    self.0.insert(slice.name, slice.addresses);
                }
            }
            Delta::Removed(name) => {
                self.0.remove(&name);
            }
        }
    }

    fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.0.values().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_come_change_and_go() {
        let slice = |name: &str, ends: &[u8]| SliceFacts {
            name: name.to_owned(),
            addresses: ends.iter().map(|end| SocketAddr::from(([10, 0, 0, *end], 9006))).collect(),
        };
        let mut slices = Slices::default();
        let ends = |slices: &Slices| -> Vec<u16> {
            slices.addresses().iter().filter_map(|address| address.to_string()[7..8].parse().ok()).collect()
        };
        slices.take(Delta::Listed(vec![slice("a", &[1, 2]), slice("b", &[2, 3])]));
        assert_eq!(ends(&slices), [1, 2, 3]);
        slices.take(Delta::Applied(slice("a", &[4])));
        assert_eq!(ends(&slices), [2, 3, 4]);
        slices.take(Delta::Removed("b".to_owned()));
        assert_eq!(ends(&slices), [4]);
        slices.take(Delta::Listed(Vec::new()));
        assert!(ends(&slices).is_empty());
    }
}
