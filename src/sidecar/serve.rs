//! The sidecar as a whole: its ports, and how it stops.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::allow::Allowed;
use super::api::Api;
use super::buffer::Buffer;
use super::drive::ProxyContext;
use super::machine::Shared;
use super::outcome::Outcome;
use super::proxy::Proxy;
use super::readiness::Readiness;
use super::settings::Settings;
use super::spare::Spare;
use super::upstream::Upstream;
use crate::metrics::SidecarMetrics;
use crate::telemetry::Tracing;
use crate::transport::{ConnectionBounds, Keepalive, Port, TlsError, serve_http};

/// The bounds on the open connections of each port.
pub(super) const CONNECTIONS: ConnectionBounds = ConnectionBounds { open: 16_384, strangers: 1024 };

/// The keep-alive probes of client connections. A client that reads nothing for five minutes is disconnected.
pub(super) const KEEPALIVE: Keepalive =
    Keepalive { interval: Duration::from_mins(1), timeout: Duration::from_mins(4) };

/// Makes the counters of a sidecar, with a series for each API and each outcome.
pub fn new_metrics() -> SidecarMetrics {
    let outcomes = Outcome::all().map(|outcome| (outcome.name(), outcome.reason()));
    SidecarMetrics::new(&Api::ALL.map(Api::name), outcomes)
}

/// A sidecar that is set up and not yet serving.
#[derive(Debug)]
pub struct Sidecar {
    proxy: Proxy,
    readiness: Arc<Readiness>,
    drain: Duration,
}

impl Sidecar {
    /// Makes a sidecar. The routing headers may name only the servers that `allowed` allows.
    ///
    /// # Errors
    ///
    /// Fails if a TLS client for one of the stages cannot be set up, for example because the system has no root
    /// certificates.
    pub fn new(
        settings: Settings,
        allowed: Allowed,
        metrics: SidecarMetrics,
        tracing: Tracing,
    ) -> Result<Self, TlsError> {
        let upstream = Arc::new(Upstream::new(&settings, &metrics)?);
        let readiness = Arc::new(Readiness::new(Arc::clone(&upstream), metrics.clone()));
        let drain = settings.limits.drain;
        let shared = Arc::new(Shared {
            spare: Spare::new(settings.local_per_second),
            engines: super::engines::EngineIds::default(),
            encoder: std::sync::atomic::AtomicUsize::new(0),
            settings,
        });
        let notices = Arc::default();
        let buffer = Buffer::new(shared.settings.buffer_bytes, &metrics);
        let context = ProxyContext { shared, upstream, buffer, metrics, notices, tracing };
        let proxy = Proxy::new(context, allowed, Arc::clone(&readiness));
        Ok(Self { proxy, readiness, drain })
    }

    /// Makes a port of the sidecar from a listening socket.
    pub fn port(listener: tokio::net::TcpListener, metrics: &SidecarMetrics) -> Port {
        Port::counted(listener, CONNECTIONS, KEEPALIVE, metrics.port("proxy"))
    }

    /// Serves `ports`, one for each rank in order, until `stop` resolves. Then open requests get the drain time to end.
    pub async fn serve(self, ports: Vec<Port>, stop: impl Future<Output = ()>) {
        let Self { proxy, readiness, drain } = self;
        let closing = CancellationToken::new();
        let serving = ports.into_iter().zip(0..).map(|(port, rank)| {
            let proxy = proxy.of_rank(rank);
            let answer = move |request| proxy.clone().answer(request);
            tokio::spawn(serve_http(port, answer, drain, closing.clone().cancelled_owned()))
        });
        let serving: Vec<_> = serving.collect();
        let watching = Arc::clone(&readiness);
        tokio::select! {
            () = watching.watch() => {}
            () = stop => {}
        }
        readiness.drain();
        closing.cancel();
        for port in serving {
            if let Err(error) = port.await {
                tracing::error!(%error, "a port ended");
            }
        }
    }
}
