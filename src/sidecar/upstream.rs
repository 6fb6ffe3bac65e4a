//! Sends calls to the servers of all stages, and counts them.

use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;

use super::client::{CallError, Clients};
use super::connector::Stage;
use super::machine::{Event, Leg};
use super::outbound::Outbound;
use super::settings::Settings;
use crate::metrics::SidecarMetrics;
use crate::transport::TlsError;

/// The clients for all servers, and the addresses of the local engines.
#[derive(Debug)]
pub(super) struct Upstream {
    clients: Clients,
    engines: Vec<Authority>,
    metrics: SidecarMetrics,
}

impl Upstream {
    /// Makes the clients that `settings` asks for.
    pub(super) fn new(settings: &Settings, metrics: &SidecarMetrics) -> Result<Self, TlsError> {
        let ports = (0..settings.ranks).map(|rank| settings.engine_port.saturating_add(rank));
        let engines = ports.filter_map(|port| Authority::try_from(format!("localhost:{port}")).ok());
        let (clients, metrics) = (Clients::new(settings)?, metrics.clone());
        Ok(Self { clients, engines: engines.collect(), metrics })
    }

    /// The address of the engine of `rank`.
    pub(super) fn engine(&self, rank: u16) -> Authority {
        let known = self.engines.get(usize::from(rank)).or_else(|| self.engines.first());
        known.cloned().unwrap_or(Authority::from_static("localhost"))
    }

    /// Sends a call. A query to Mooncake's bootstrap server never uses TLS.
    pub(super) async fn call(
        &self,
        leg: Leg,
        authority: Authority,
        request: Request<Outbound>,
    ) -> Result<Response<Incoming>, CallError> {
        if leg == Leg::Query {
            return self.clients.call_plain(authority, request).await;
        }
        self.clients.call(leg.stage(), authority, request).await
    }

    /// Counts the result of a call that `event` reports: a failure, or the time that the call took.
    pub(super) fn note(&self, stage: Stage, event: &Event, time: Duration) {
        match event {
            Event::Failed(..) => self.metrics.call_failed(stage.name()),
            Event::Head(_, status) => {
                if status.as_u16() >= 400 {
                    self.metrics.call_failed(stage.name());
                } else if stage == Stage::Decode {
                    self.metrics.call_took(stage.name(), time);
                }
            }
            Event::Body(..) if stage != Stage::Decode => self.metrics.call_took(stage.name(), time),
            _ => {}
        }
    }

    /// Counts a prefill server that failed after the client got its first byte.
    pub(super) fn late_failure(&self) {
        self.metrics.late_failure();
    }
}
