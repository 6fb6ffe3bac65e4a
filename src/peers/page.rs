//! Makes the page `/debug/peers`.

use std::time::Instant;

use serde_json::{Value, json};

use super::fleet::Fleet;
use super::own::Own;
use super::settings::PeersSettings;
use super::status::{ConnectionStatus, PeerStatus, ServerStatus, Standing, Statuses};

/// The state of this replica, and of each peer that it is told of.
pub(super) fn page(
    settings: &PeersSettings,
    own: &Own,
    followers: usize,
    server: Option<&ServerStatus>,
    statuses: &Statuses,
    fleet: &Fleet,
    now: Instant,
) -> Value {
    let peers: Vec<Value> =
        statuses.by_peer.iter().map(|(name, status)| peer(name, status, fleet, now)).collect();
    let mut page = json!({
        "name": settings.name,
        "pool": settings.pool,
        "epoch": format!("{:016x}", own.epoch()),
        "tls": settings.tls.is_some(),
        "followers": followers,
        "version": own.version(),
        "in_flight_requests": own.requests(),
        "peers": peers,
    });
    if let Some(server) = server {
        page["server"] = json!({
            "address": server.address,
            "tls": server.tls,
            "round_trip_seconds": server.round_trip.as_secs_f64(),
            "writes": connection(&server.connections[0]),
            "reads": connection(&server.connections[1]),
        });
    }
    page
}

fn connection(status: &ConnectionStatus) -> Value {
    json!({"connected": status.connected, "error": status.error})
}

fn peer(address: &str, status: &PeerStatus, fleet: &Fleet, now: Instant) -> Value {
    let (state, reason) = match status.standing {
        Standing::Begins => ("begins", None),
        Standing::Following(_) => ("following", None),
        Standing::Missing(reason) => ("missing", Some(reason)),
        Standing::Alias(reason) => ("alias", Some(reason)),
    };
    let mut row = json!({
        "address": address,
        "state": state,
        "reason": reason,
        "error": status.error,
        "seconds_in_state": now.saturating_duration_since(status.since).as_secs_f64(),
        "messages": status.messages,
        "bytes": status.bytes,
    });
    if let Standing::Following(link) = status.standing
        && let Some(known) = fleet.links().get(&link)
    {
        row["name"] = known.name.clone().into();
        row["epoch"] = known.epoch().map(|epoch| format!("{epoch:016x}")).into();
        row["sequence"] = known.sequence().into();
        row["complete"] = known.complete.into();
        row["lag_seconds"] = status.lag(now).map(|lag| lag.as_secs_f64()).into();
        row["in_flight_requests"] = known.requests().into();
        row["endpoints"] = known.endpoints().into();
    }
    row
}
