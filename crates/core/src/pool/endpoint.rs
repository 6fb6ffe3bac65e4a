//! One place a request can be sent to: a pod and one of its ports.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Load;

/// Pod labels, sorted by key.
pub type Labels = BTreeMap<String, String>;

/// Stable name of an endpoint, printed as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl EndpointId {
    /// Names an endpoint. On Kubernetes `name` is `<pod>-rank-<i>`, in file discovery the entry's name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Namespace of the pod.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Name within the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How this endpoint's metrics page is requested, where that differs from the metrics source of the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsAccess {
    /// Port of the metrics page; `None` means the port of the source, or else that of the endpoint.
    pub port: Option<u16>,
    /// True for `https`, false for `http`; `None` means the scheme of the source.
    pub https: Option<bool>,
    /// Host name that discovery resolved to the address. Requests carry this name, and the server's certificate must
    /// carry it as well. `None` means the address itself.
    pub host: Option<Arc<str>>,
}

/// What discovery knows about an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Stable name.
    pub id: EndpointId,
    /// Pod name; several endpoints of one pod share it.
    pub pod: Arc<str>,
    /// Address to which inference requests go.
    pub address: SocketAddr,
    /// Address from which metrics are scraped; the serving address unless discovery names another one.
    pub metrics_address: SocketAddr,
    /// How the metrics page is requested there.
    pub metrics: MetricsAccess,
    /// Address of the node; `None` if it is not known.
    pub node_address: Option<IpAddr>,
    /// Pod labels.
    pub labels: Arc<Labels>,
    /// Index of the port within the pool's target ports (data-parallel rank), from 0.
    pub rank: u32,
}

impl EndpointSpec {
    /// An endpoint without labels, whose metrics are scraped at its serving address.
    pub fn new(id: EndpointId, address: SocketAddr) -> Self {
        Self {
            pod: id.name().into(),
            id,
            address,
            metrics_address: address,
            metrics: MetricsAccess::default(),
            node_address: None,
            labels: Arc::default(),
            rank: 0,
        }
    }

    /// The same endpoint with these labels.
    #[must_use]
    pub fn with_labels<const N: usize>(mut self, labels: [(&str, &str); N]) -> Self {
        self.labels = Arc::new(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        self
    }
}

/// One incarnation of an endpoint: what discovery knows about it, and the load that successive snapshots share.
#[derive(Debug)]
pub struct Endpoint {
    spec: EndpointSpec,
    target: Box<str>,
    incarnation: u64,
    load: Arc<Load>,
}

impl Endpoint {
    pub(super) fn new(spec: EndpointSpec, incarnation: u64, load: Arc<Load>) -> Self {
        let target = spec.address.to_string().into();
        Self { spec, target, incarnation, load }
    }

    /// Stable name.
    pub fn id(&self) -> &EndpointId {
        &self.spec.id
    }

    /// What discovery knows about the endpoint.
    pub fn spec(&self) -> &EndpointSpec {
        &self.spec
    }

    /// Value of label `key`, if the pod has it.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.spec.labels.get(key).map(String::as_str)
    }

    /// `ip:port` as the destination header carries it, with an IPv6 address in brackets.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Number of this incarnation, unique in the process and never reused. An endpoint that goes away and comes back,
    /// or that changes its address, is a new incarnation. Nothing that was learned about the caches of the old
    /// incarnation is true of the new one.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Load of the endpoint, which changes while the snapshot exists.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }
}
