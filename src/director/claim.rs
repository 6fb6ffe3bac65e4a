//! What a request holds of the pool while it runs.

use std::task::{Context, Poll};

use super::AdmissionPlace;
use crate::pool::Lease;
use crate::request::Usage;

/// A request's share of an endpoint's load, and its place in admission. Dropping the claim gives the share back before
/// the place: the request that the place is given to must find the room free.
pub(super) struct Claim {
    /// `None` once it is given back.
    lease: Option<Lease>,
    permit: AdmissionPlace,
    /// Tokens count until the response ends.
    until_end: bool,
}

impl Claim {
    /// The claim of a request that now counts in the load of an endpoint, which the place is told.
    /// Its tokens count until the response ends if `until_end`, and else until the prompt has been processed.
    pub(super) fn new(lease: Lease, mut permit: AdmissionPlace, until_end: bool) -> Self {
        if let Some(place) = &mut permit {
            place.placed();
        }
        Self { lease: Some(lease), permit, until_end }
    }

    /// The prompt has been processed: the request takes up less from now on.
    pub(super) fn ease(&mut self) {
        if self.until_end {
            return;
        }
        if let Some(lease) = &mut self.lease {
            lease.release_tokens();
        }
        if let Some(place) = &mut self.permit {
            place.eased();
        }
    }

    /// The response has ended, at this cost.
    pub(super) fn served(&mut self, usage: &Usage) {
        if let Some(place) = &mut self.permit {
            place.served(usage);
        }
    }

    /// Ready if the request should be stopped to make room for a more important one.
    pub(super) fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.permit.as_mut().map_or(Poll::Pending, |place| place.poll_revoked(cx))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        drop(self.lease.take());
        drop(self.permit.take());
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::Instant;

    use super::*;
    use crate::director::Place;
    use crate::pool::{Endpoint, EndpointId, EndpointSpec, Pool};

    /// Notes how many requests the endpoint has when the place is given back.
    struct Witness {
        endpoint: Arc<Endpoint>,
        found: Arc<AtomicU64>,
    }

    impl Place for Witness {}

    impl Drop for Witness {
        fn drop(&mut self) {
            self.found.store(self.endpoint.load().in_flight(), Relaxed);
        }
    }

    #[test]
    fn the_share_of_load_is_given_back_before_the_place_in_admission() {
        let pool = Pool::new("default", "pool", Instant::now());
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        pool.replace_endpoints(vec![EndpointSpec::new(EndpointId::new("default", "pod"), address)]);
        let endpoint = Arc::clone(&pool.snapshot().endpoints()[0]);
        let found = Arc::new(AtomicU64::new(u64::MAX));
        let witness = Witness { endpoint: Arc::clone(&endpoint), found: Arc::clone(&found) };
        let claim = Claim::new(Lease::take(&endpoint, 10), Some(Box::new(witness)), false);
        assert_eq!(endpoint.load().in_flight(), 1);
        drop(claim);
        assert_eq!(found.load(Relaxed), 0, "whoever gets the place finds the room");
    }

    #[test]
    fn tokens_count_until_the_prompt_is_processed_or_until_the_end() {
        let pool = Pool::new("default", "pool", Instant::now());
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        pool.replace_endpoints(vec![EndpointSpec::new(EndpointId::new("default", "pod"), address)]);
        let endpoint = Arc::clone(&pool.snapshot().endpoints()[0]);
        for (until_end, left) in [(false, 0), (true, 10)] {
            let mut claim = Claim::new(Lease::take(&endpoint, 10), None, until_end);
            claim.ease();
            assert_eq!((endpoint.load().in_flight(), endpoint.load().in_flight_tokens()), (1, left));
            drop(claim);
            assert_eq!(endpoint.load().in_flight_tokens(), 0);
        }
    }
}
