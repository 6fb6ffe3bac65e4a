//! The first stage of serving: every port is bound, with its TLS, before anything else begins. A port that is taken
//! ends the start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;

use super::settings::Settings;
use crate::metrics::Metrics;
use crate::transport::{AMONG_PEERS, FEW_CLIENTS, Port, Tls};

/// The ports, bound and not yet served.
pub(super) struct Sockets {
    /// ext_proc, and gRPC health.
    pub(super) grpc: Port,
    /// gRPC health.
    pub(super) health: Port,
    /// Metrics and debug pages.
    pub(super) metrics: Port,
    /// The page for people, if it has a port of its own.
    pub(super) page: Option<Port>,
    /// KEDA's external scaler, if it has a port.
    pub(super) scaler: Option<Port>,
    /// Peers, if there are any.
    pub(super) peers: Option<Port>,
}

impl Sockets {
    /// Binds all ports.
    pub(super) async fn bind(settings: &Settings, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let tls = settings.tls.as_ref().map(|tls| Tls::grpc(tls, settings.cert_reload));
        let tls = tls.transpose().context("ext_proc port")?;
        let authorities = settings.metrics_client_ca.as_deref();
        let pages = settings.metrics_cert.as_deref().map(|folder| Tls::pages(folder, authorities));
        let pages = pages.transpose().context("metrics port")?;
        let port = |name, socket, bounds| Port::new(name, socket, bounds, settings.keepalive, metrics);
        let (bind, ports) = (&settings.bind, settings.ports);
        let grpc = listen(bind, ports.grpc, "--grpc-port").await?;
        let health = listen(bind, ports.health, "--grpc-health-port").await?;
        let pages_socket = listen(bind, ports.metrics, "--metrics-port").await?;
        let page = match ports.page {
            Some(number) => Some(listen(&[Ipv4Addr::LOCALHOST.into()], number, "--page-port").await?),
            None => None,
        };
        let scaler = match ports.keda_scaler {
            Some(number) => Some(listen(bind, number, "--keda-scaler-port").await?),
            None => None,
        };
        let (peers, peer_tls) = match &settings.peers {
            Some(others) => (Some(listen(bind, others.port, "--peer-port").await?), others.tls()?),
            None => (None, None),
        };
        let peer_tls = peer_tls.map(|tls| tls.server()).transpose().context("peers' port")?;
        let peers = peers.map(|socket| Port::new("peers", socket, FEW_CLIENTS, AMONG_PEERS, metrics));
        Ok(Self {
            peers: peers.map(|port| port.with_tls(peer_tls)),
            grpc: port("grpc", grpc, settings.proxies).with_tls(tls),
            health: port("health", health, FEW_CLIENTS),
            metrics: port("metrics", pages_socket, FEW_CLIENTS).with_tls(pages),
            page: page.map(|socket| port("page", socket, FEW_CLIENTS)),
            scaler: scaler.map(|socket| port("scaler", socket, FEW_CLIENTS)),
        })
    }

    /// Names and addresses, as `--print-addresses` prints them.
    pub(super) fn addresses(&self) -> anyhow::Result<Vec<(&'static str, SocketAddr)>> {
        let mut addresses = vec![
            ("grpc", self.grpc.address()?),
            ("health", self.health.address()?),
            ("metrics", self.metrics.address()?),
        ];
        if let Some(page) = &self.page {
            addresses.push(("page", page.address()?));
        }
        if let Some(scaler) = &self.scaler {
            addresses.push(("keda-scaler", scaler.address()?));
        }
        if let Some(peers) = &self.peers {
            addresses.push(("peers", peers.address()?));
        }
        Ok(addresses)
    }
}

/// Listens on the first address that works.
async fn listen(addresses: &[IpAddr], port: u16, flag: &str) -> anyhow::Result<TcpListener> {
    let mut failure = None;
    for &address in addresses {
        match TcpListener::bind(SocketAddr::new(address, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                failure = Some(anyhow::Error::from(error).context(format!("cannot listen on {address}")));
            }
        }
    }
    Err(failure.unwrap_or_else(|| anyhow::anyhow!("no address to listen on")))
        .with_context(|| format!("{flag} {port}"))
}
