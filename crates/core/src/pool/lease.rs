//! A request's share of an endpoint's load. The stream gives it back when it ends, in whatever way it ends.

use std::sync::Arc;

use super::{Endpoint, Load};

/// One request in flight on one endpoint. Dropping the lease gives the share back, once.
///
/// ```
/// use std::net::SocketAddr;
/// use std::time::Instant;
///
/// use pointsman_core::pool::{EndpointId, EndpointSpec, Lease, Pool};
///
/// let pool = Pool::new("default", "example", Instant::now());
/// let address = SocketAddr::from(([10, 0, 0, 1], 8000));
/// pool.replace_endpoints(vec![EndpointSpec::new(EndpointId::new("default", "a"), address)]);
/// let snapshot = pool.snapshot();
/// let endpoint = &snapshot.endpoints()[0];
///
/// let lease = Lease::take(endpoint, 120);
/// assert_eq!((endpoint.load().in_flight(), endpoint.load().in_flight_tokens()), (1, 120));
/// drop(lease);
/// assert_eq!(endpoint.load().in_flight(), 0);
/// ```
#[derive(Debug)]
#[must_use = "dropping a lease ends the request's share of load"]
pub struct Lease {
    load: Arc<Load>,
    tokens: u64,
}

impl Lease {
    /// Counts a request of about `tokens` tokens on `endpoint`.
    pub fn take(endpoint: &Endpoint, tokens: u64) -> Self {
        endpoint.load().begin(tokens);
        Self { load: Arc::clone(endpoint.load()), tokens }
    }

    /// Gives the tokens back when the server has processed the prompt. The request itself still counts.
    pub fn release_tokens(&mut self) {
        self.load.end_tokens(std::mem::take(&mut self.tokens));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release_tokens();
        self.load.end();
    }
}
