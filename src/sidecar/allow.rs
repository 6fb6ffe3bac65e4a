//! Which servers the routing headers may name: those of a pool, by address and port.

use std::sync::Arc;

use super::target::Target;
use crate::pool::Pool;

/// The servers that the sidecar may ask. Clones share one pool.
#[derive(Clone, Default)]
pub struct Allowed {
    pool: Option<Arc<Pool>>,
}

impl Allowed {
    /// Allows every server.
    pub fn everyone() -> Self {
        Self::default()
    }

    /// Allows the endpoints that `pool` has at the time of a request.
    pub fn endpoints_of(pool: Arc<Pool>) -> Self {
        Self { pool: Some(pool) }
    }

    /// Returns true if the sidecar may ask `target`. A target without a port means port 80.
    pub fn allows(&self, target: &Target) -> bool {
        let Some(pool) = &self.pool else { return true };
        let snapshot = pool.snapshot();
        snapshot.endpoints().iter().any(|endpoint| {
            let address = endpoint.spec().address;
            let host = match target.address() {
                Some(ip) => ip.to_canonical() == address.ip().to_canonical(),
                None => endpoint.id().name() == target.host(),
            };
            host && target.port().unwrap_or(80) == address.port()
        })
    }

    /// Returns true once the pool has been filled, so that `allows` answers from real data.
    pub fn is_known(&self) -> bool {
        self.pool.as_ref().is_none_or(|pool| pool.is_synced())
    }
}

impl std::fmt::Debug for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allowed").field("everyone", &self.pool.is_none()).finish_non_exhaustive()
    }
}
