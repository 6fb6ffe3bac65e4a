//! Whether requests would be answered: the engine is well, and it is known who may be asked.

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

/// Longest time that the engine's health may take.
const PROBE: Duration = Duration::from_secs(1);

/// Time between two looks at an engine that is not ready, and at one that is.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_WHEN_READY: Duration = Duration::from_secs(10);

/// Bytes of the health's body that are read; with more of them, or with none within the time, the connection is closed.
const BODY: usize = 64 << 10;

/// Time between two lines that say that the engine is waited for.
const WAITING: u32 = 30;

/// Asks the engine.
#[derive(Debug)]
pub(super) struct Readiness {
    upstream: Arc<Upstream>,
    metrics: SidecarMetrics,
    draining: AtomicBool,
}

impl Readiness {
    /// The readiness of the engines behind `upstream`.
    pub(super) fn new(upstream: Arc<Upstream>, metrics: SidecarMetrics) -> Self {
        Self { upstream, metrics, draining: AtomicBool::new(false) }
    }

    /// The process ends: it is not ready any more.
    pub(super) fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Why requests would not be answered; `None` if they would.
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
            // The connection serves again if the body was read.
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

    /// Looks at the engine now and then, and says in the log when it comes and goes.
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
