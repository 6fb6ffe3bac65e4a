//! Admission by flow control: requests wait for their turn.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::understood::estimated_tokens;
use super::{Admission, AdmissionCall, AdmissionPlace, Outlook, Place, Reason, Refusal, names};
use crate::clock;
use crate::flow::{self, Arrival, Controller, DropReason, Outcome, Rejection};
use crate::metrics::{FlowMetrics, QueuedGuard, RequestLabels};
use crate::request::Usage;

/// Holds requests in the queues of a [`Controller`].
#[derive(Debug)]
pub struct QueuedAdmission {
    controller: Arc<Controller>,
    metrics: FlowMetrics,
}

impl QueuedAdmission {
    /// Admission through this controller, shown in these series.
    pub fn new(controller: Arc<Controller>, metrics: FlowMetrics) -> Self {
        Self { controller, metrics }
    }

    async fn wait(&self, arrival: Arrival, held: QueuedGuard) -> Result<AdmissionPlace, Refusal> {
        let (priority, began) = (arrival.priority, clock::now());
        let mut admitted = pin!(self.controller.admit(arrival));
        // The first poll puts the request into its queue, and often takes it out again.
        let first = poll_fn(|cx| Poll::Ready(admitted.as_mut().poll(cx))).await;
        let refused = match &first {
            Poll::Ready(Err(rejection)) => Some(rejection.outcome),
            _ => None,
        };
        held.queueing_took(priority, refused, clock::now().saturating_duration_since(began));
        let verdict = match first {
            Poll::Ready(verdict) => verdict,
            Poll::Pending => admitted.await,
        };
        match verdict {
            Ok(permit) => {
                held.finish(priority, Outcome::Dispatched, permit.waited());
                Ok(Some(Box::new(Turn(permit))))
            }
            Err(rejection) => {
                held.finish(priority, rejection.outcome, clock::now().saturating_duration_since(began));
                Err(refusal(rejection))
            }
        }
    }
}

impl Admission for QueuedAdmission {
    fn ahead(&self, priority: i32) -> Option<u64> {
        let bands = self.controller.bands();
        Some(bands.iter().filter(|band| band.priority >= priority).map(|band| band.queued.requests).sum())
    }

    fn outlook(&self, call: &AdmissionCall<'_>) -> Outlook {
        let ahead = self.ahead(call.priority).unwrap_or(0);
        Outlook { would_wait: ahead > 0 || self.controller.is_full(), ahead, refusal: None }
    }

    fn admit<'a>(
        &'a self,
        call: AdmissionCall<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<AdmissionPlace, Refusal>> + Send + 'a>> {
        let slo = names::SLO_TTFT.value(call.headers);
        let arrival = Arrival {
            priority: call.priority,
            fairness_id: call.fairness_id.into(),
            model: call.model.into(),
            target_model: call.target_model.into(),
            size: call.size,
            tokens: call.tokens.unwrap_or_else(|| estimated_tokens(call.size)),
            received: call.received,
            ttl: None,
            slo_ttft: flow::slo_ttft(slo.as_deref()),
        };
        let labels = RequestLabels {
            model: call.model,
            target_model: call.target_model,
            fairness_id: call.fairness_id,
            priority: call.priority,
        };
        let held = self.metrics.enqueued(labels, call.size, clock::now());
        Box::pin(self.wait(arrival, held))
    }
}

/// Why a request that was not released is refused.
fn refusal(rejection: Rejection) -> Refusal {
    let reason = match rejection.drop_reason() {
        DropReason::Saturated => Reason::Saturated,
        DropReason::TtlExpired => Reason::TtlExpired,
        DropReason::NoEndpoints => Reason::NoEndpoints,
        DropReason::ContextCancelled => Reason::ClientGone,
        DropReason::ShuttingDown => Reason::ShuttingDown,
    };
    Refusal::new(reason, rejection.message())
}

/// A request whose turn has come.
struct Turn(flow::Permit);

impl Place for Turn {
    fn placed(&mut self) {
        self.0.placed();
    }

    fn eased(&mut self) {
        self.0.eased();
    }

    fn served(&mut self, usage: &Usage) {
        self.0.served(usage.prompt_tokens, usage.completion_tokens);
    }

    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_revoked(cx)
    }
}
