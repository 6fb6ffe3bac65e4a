//! Series of the ports: how many connections are open, and which of them this program ended.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::family::{Definition, Family, Twin};

const OPEN: Definition<1> =
    Definition::new("pointsman_connections", "Connections that are open, by port.", ["port"]);

const ENDED: Definition<2> = Definition::new(
    "pointsman_connections_ended_total",
    "Connections that this program ended before their client did, by port and reason.",
    ["port", "reason"],
);

/// Why this program ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// TLS could not be set up, or not in time.
    Handshake,
    /// The client said nothing, or half of a first request.
    Silent,
    /// The client did not answer a ping, or brought no further request in time.
    Unanswered,
    /// The client took no bytes for too long.
    Stalled,
    /// The client took too long to read a page.
    Slow,
    /// The port was full, and this connection could be spared most.
    GivenUp,
    /// The port was full, and no other connection could be spared.
    Refused,
}

impl ConnectionEnd {
    const ALL: [Self; 7] = [
        Self::Handshake,
        Self::Silent,
        Self::Unanswered,
        Self::Stalled,
        Self::Slow,
        Self::GivenUp,
        Self::Refused,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Silent => "silent",
            Self::Unanswered => "unanswered",
            Self::Stalled => "stalled",
            Self::Slow => "slow",
            Self::GivenUp => "given_up",
            Self::Refused => "refused",
        }
    }
}

/// The families, of which each port has its series.
#[derive(Clone)]
pub(super) struct PortFamilies {
    open: Family<IntGaugeVec, 1>,
    ended: Family<IntCounterVec, 2>,
}

impl PortFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        Self { open: Family::register(OPEN, registry), ended: Family::register(ENDED, registry) }
    }

    pub(super) fn port(&self, name: &str) -> PortMetrics {
        let ended = ConnectionEnd::ALL.map(|end| self.ended.child([name, end.name()]));
        PortMetrics { open: self.open.child([name]), ended }
    }
}

/// Handles of one port.
#[derive(Clone)]
pub struct PortMetrics {
    open: Twin<IntGauge>,
    ended: [Twin<IntCounter>; 7],
}

impl PortMetrics {
    /// Counts a connection as open.
    pub fn opened(&self) {
        self.open.add(1);
    }

    /// Counts it no more.
    pub fn closed(&self) {
        self.open.add(-1);
    }

    /// Counts a connection that this program ended.
    pub fn ended(&self, end: ConnectionEnd) {
        self.ended[end as usize].inc();
    }
}

impl std::fmt::Debug for PortMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortMetrics").finish_non_exhaustive()
    }
}
