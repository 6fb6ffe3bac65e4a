//! The endpoints of the pool at one moment.

use std::sync::Arc;
use std::time::Instant;

use super::{Endpoint, EndpointId, EndpointSpec, Load};

/// An immutable, dense list of endpoints. An endpoint's place in it is its index for as long as the snapshot lives.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: u64,
    endpoints: Box<[Arc<Endpoint>]>,
}

impl Snapshot {
    pub(super) fn new(version: u64, endpoints: Vec<Arc<Endpoint>>) -> Self {
        Self { version, endpoints: endpoints.into() }
    }

    /// A list of endpoints, each with its incarnation, whose loads are their own: nobody but the caller changes them.
    /// Ages are counted from `epoch`.
    pub fn of(
        version: u64,
        endpoints: impl IntoIterator<Item = (EndpointSpec, u64)>,
        epoch: Instant,
    ) -> Self {
        let made = endpoints.into_iter().map(|(spec, incarnation)| {
            Arc::new(Endpoint::new(spec, incarnation, Arc::new(Load::new(epoch))))
        });
        Self::new(version, made.collect())
    }

    /// Grows by one with each change of the pool.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All endpoints, in discovery order.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// True for a pool scaled to zero.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The endpoint named `id`. Linear; not for the request path.
    pub fn find(&self, id: &EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|endpoint| endpoint.id() == id)
    }
}
