//! Admission without flow control: while the pool is full, requests of negative priority are turned away.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use super::{Admission, AdmissionCall, Permit, Reason, Refusal};
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

    fn decide(&self, call: &AdmissionCall<'_>) -> Result<Permit, Refusal> {
        if call.priority >= 0 {
            return Ok(None);
        }
        let snapshot = call.pool.snapshot();
        let may_serve = snapshot
            .endpoints()
            .iter()
            .filter(|endpoint| call.subset.is_none_or(|subset| subset.admits(endpoint)));
        let (fill, stale) = saturation::together(&self.detector, may_serve, Instant::now());
        self.metrics.stale_endpoints(&self.detector.name, stale);
        if fill.gating >= 1.0 {
            let text = "system saturated, sheddable request dropped";
            return Err(Refusal::new(Reason::Saturated, text));
        }
        Ok(None)
    }
}

impl Admission for Shedding {
    fn admit<'a>(
        &'a self,
        call: AdmissionCall<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Permit, Refusal>> + Send + 'a>> {
        Box::pin(ready(self.decide(&call)))
    }
}
