//! Whether the sidecar is ready: the engine is healthy, and the list of servers that may be asked is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::allow::Allowed;
use super::machine::Leg;
use super::outbound::Outbound;
use super::upstream::Upstream;
use crate::metrics::SidecarMetrics;

/// The longest time that the engine may take to answer its health check.
const PROBE: Duration = Duration::from_secs(1);

/// The pause between two health checks while the engine is not ready, and the pause while it is.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_WHEN_READY: Duration = Duration::from_secs(10);

/// The most bytes of a health answer's body that are read. The connection is closed if there are more, or if the time
/// ends.
const BODY: usize = 64 << 10;

/// The number of failed health checks between two log lines that say that the engine is not ready.
const WAITING: u32 = 30;

/// Checks the health of the engine.
#[derive(Debug)]
pub(super) struct Readiness {
    upstream: Arc<Upstream>,
    metrics: SidecarMetrics,
    draining: AtomicBool,
}

impl Readiness {
    /// Makes the readiness check of the engines that `upstream` calls.
    pub(super) fn new(upstream: Arc<Upstream>, metrics: SidecarMetrics) -> Self {
        Self { upstream, metrics, draining: AtomicBool::new(false) }
    }

    /// Marks the sidecar as not ready, because the process is stopping.
    pub(super) fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Returns why requests would not be answered, and `None` if they would be.
    pub(super) async fn unready(&self, allowed: &Allowed) -> Option<&'static str> {
        if self.draining.load(Relaxed) {
            return Some("the sidecar is stopping\n");
        }
        if !allowed.is_known() {
            return Some("the endpoints that may be asked are not known yet\n");
        }
        if self.engine_is_well().await { None } else { Some("the model server is not ready\n") }
    }

    async fn engine_is_well(&self) -> bool {
        let asking = async {
            let mut request = Request::new(Outbound::Empty);
            *request.uri_mut() = http::Uri::from_static("/health");
            let response = self.upstream.call(Leg::Decode, self.upstream.engine(0), request).await.ok()?;
            let well = response.status().is_success();
            // The connection can be used again only if the body was read to its end.
            let (mut body, mut length) = (response.into_body(), 0);
            while let Some(frame) = body.frame().await {
                length += frame.ok()?.data_ref().map_or(0, bytes::Bytes::len);
                if length > BODY {
                    break;
                }
            }
            Some(well)
        };
        let well = timeout(PROBE, asking).await.ok().flatten().unwrap_or(false);
        self.metrics.engine_ready(well);
        well
    }

    /// Checks the engine's health again and again, and logs when the engine becomes ready and when it stops being
    /// ready.
    pub(super) async fn watch(&self) {
        let (mut ready, mut waited) = (None, 0);
        loop {
            let well = self.engine_is_well().await;
            if well && ready != Some(true) {
                tracing::info!("engine answers");
            } else if !well && (ready == Some(true) || waited % WAITING == 0) {
                tracing::info!("waiting for engine");
            }
            waited = if well { 0 } else { waited + 1 };
            ready = Some(well);
            tokio::time::sleep(if well { LOOK_WHEN_READY } else { LOOK }).await;
        }
    }
}
