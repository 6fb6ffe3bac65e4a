//! Admission without flow control: while the pool is full, requests of negative priority are turned away.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use super::{Admission, AdmissionCall, AdmissionPlace, Outlook, Reason, Refusal};
use crate::clock;
use crate::flow::detector::Detector;
use crate::flow::saturation;
use crate::metrics::Metrics;

/// Sheds requests of priority below 0 while the endpoints that may serve them are saturated.
#[derive(Debug)]
pub struct Shedding {
    detector: Detector,
    metrics: Arc<Metrics>,
}

impl Shedding {
    /// Judges saturation by `detector`.
    pub fn new(detector: Detector, metrics: Arc<Metrics>) -> Self {
        Self { detector, metrics }
    }

    fn decide(&self, call: &AdmissionCall<'_>) -> Result<AdmissionPlace, Refusal> {
        if call.priority >= 0 {
            return Ok(None);
        }
        let snapshot = call.pool.snapshot();
        let subset = call.subset.map(|subset| subset.among(snapshot.endpoints()));
        let may_serve = snapshot
            .endpoints()
            .iter()
            .filter(|endpoint| subset.as_ref().is_none_or(|subset| subset.admits(endpoint)));
        let (fill, stale) = saturation::together(&self.detector, may_serve, clock::now());
        self.metrics.stale_endpoints(&self.detector.name, stale);
        if fill.gating >= 1.0 {
            let text = "system saturated, sheddable request dropped";
            return Err(Refusal::new(Reason::Saturated, text));
        }
        Ok(None)
    }
}

impl Admission for Shedding {
    fn outlook(&self, call: &AdmissionCall<'_>) -> Outlook {
        Outlook { refusal: self.decide(call).err(), ..Outlook::default() }
    }

    fn admit<'a>(
        &'a self,
        call: AdmissionCall<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<AdmissionPlace, Refusal>> + Send + 'a>> {
        Box::pin(ready(self.decide(&call)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use super::*;
    use crate::pool::{EndpointId, EndpointSpec, Pool, Reading, Subset};
    use crate::request::Headers;

    /// A pool of two servers with these queues, freshly read.
    fn pool(queues: [u64; 2]) -> Arc<Pool> {
        let epoch = Instant::now();
        let pool = Arc::new(Pool::new("default", "pool", epoch));
        let spec = |index: u8| {
            let address = SocketAddr::from(([10, 0, 0, index], 8000));
            EndpointSpec::new(EndpointId::new("default", &format!("pod-{index}")), address)
        };
        pool.replace_endpoints(vec![spec(0), spec(1)]);
        for (endpoint, waiting) in pool.snapshot().endpoints().iter().zip(queues) {
            endpoint.load().record(
                Reading { waiting: Some(waiting), ..Reading::default() },
                0,
                Instant::now(),
            );
        }
        pool
    }

    fn refusal(pool: &Arc<Pool>, priority: i32, subset: Option<&str>) -> Option<Refusal> {
        let shedding = Shedding::new(Detector::default(), Arc::new(Metrics::new()));
        let subset = subset.map(|address| Subset::parse([address]).unwrap());
        let call = AdmissionCall {
            headers: &Headers::new(),
            priority,
            fairness_id: crate::flow::DEFAULT_FLOW,
            model: "m",
            target_model: "m",
            tokens: None,
            size: 1,
            received: Instant::now(),
            subset: subset.as_ref(),
            pool,
        };
        shedding.decide(&call).err()
    }

    #[test]
    fn a_saturated_pool_turns_sheddable_requests_away_with_the_reason_and_no_others() {
        let full = pool([5, 5]);
        let refusal = |priority| refusal(&full, priority, None);
        assert_eq!(refusal(0), None);
        let shed = refusal(-1).unwrap();
        assert_eq!(
            shed.to_string(),
            "inference error: ResourceExhausted - system saturated, sheddable request dropped"
        );
        assert_eq!(shed.reason.dropped(), Some("rejected-saturated"));
    }

    #[test]
    fn a_pool_with_room_turns_nobody_away_however_full_one_server_is() {
        assert_eq!(refusal(&pool([500, 0]), -1, None), None);
    }

    #[test]
    fn only_the_endpoints_that_may_serve_the_request_are_judged() {
        let pool = pool([5, 0]);
        assert!(refusal(&pool, -1, Some("10.0.0.0")).is_some());
        assert!(refusal(&pool, -1, Some("10.0.0.1")).is_none());
        assert!(refusal(&pool, -1, Some("10.0.0.9")).is_some(), "an empty subset is full");
    }
}
