//! How this replica stands to the server, for people and metrics.

use super::connect::Ended;
use crate::peers::shared::Shared;

/// Number of the connection on which this replica writes.
pub(super) const WRITES: usize = 0;
/// Number of the connection on which it reads.
pub(super) const READS: usize = 1;
/// Names of the connections.
pub(super) const CONNECTIONS: [&str; 2] = ["write", "read"];

/// Notes that a connection is good, or how it ended.
pub(super) fn connection_is(shared: &Shared, number: usize, ended: Option<&Ended>) {
    let name = CONNECTIONS[number];
    shared.metrics.server(name, ended.is_none());
    let was = {
        let mut server = shared.server.lock();
        let Some(status) = server.as_mut().map(|server| &mut server.connections[number]) else { return };
        if let Some(ended) = ended {
            status.error = Some(ended.error.clone());
        }
        std::mem::replace(&mut status.connected, ended.is_none())
    };
    match ended {
        None if !was => tracing::info!(connection = name, "server that connects replicas is reached"),
        None => {}
        Some(ended) => {
            shared.metrics.server_ended(ended.reason);
            let (reason, error) = (ended.reason, ended.error.as_str());
            if was {
                tracing::warn!(connection = name, reason, error, "server that connects replicas is lost");
            } else {
                tracing::debug!(
                    connection = name,
                    reason,
                    error,
                    "server that connects replicas is not reached"
                );
            }
        }
    }
}
