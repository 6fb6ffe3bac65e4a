//! Accepts TCP connections and sets their options.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use super::{Connections, Keepalive};
use crate::telemetry::Repeat;

/// The pause after a failure to accept that cannot be mended.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause after a failure to accept if a connection was closed, whose descriptor is free in a moment.
const BRIEF_PAUSE: Duration = Duration::from_millis(5);
/// The number of TCP probes without an answer after which a connection counts as dead.
const PROBES: u32 = 3;

/// Accepts the next connection. If accepting fails because the process has no descriptors left, a connection that can
/// be spared is closed. Other failures are waited out.
pub(super) async fn next_connection(
    listener: &TcpListener,
    connections: &Connections,
    failures: &Repeat,
) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The client left before its connection was accepted.
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                let made_room = connections.make_room();
                if let Some(suppressed) = failures.due(Instant::now()) {
                    tracing::warn!(%error, made_room, suppressed, "cannot accept a connection");
                }
                tokio::time::sleep(if made_room { BRIEF_PAUSE } else { PAUSE }).await;
            }
        }
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Sets the options of a connection that this process has made. Small requests are sent at once, and a peer that is
/// gone is noticed.
pub fn prepare_socket(stream: &TcpStream, keepalive: Keepalive) {
    set_up(stream, keepalive, None);
}

/// Sets the options of a connection. Small messages are sent at once, and a peer that is gone is noticed.
pub(super) fn set_up(stream: &TcpStream, keepalive: Keepalive, send_buffer: Option<usize>) {
    let socket = SockRef::from(stream);
    let result = stream
        .set_nodelay(true)
        .and_then(|()| send_buffer.map_or(Ok(()), |bytes| socket.set_send_buffer_size(bytes)))
        .and_then(|()| keep_alive(&socket, keepalive));
    if let Err(error) = result {
        // Either the connection is closed already, or the system cannot set the option. HTTP/2 pings notice a dead peer
        // too.
        tracing::debug!(%error, "cannot set up a connection");
    }
}

fn keep_alive(socket: &SockRef<'_>, keepalive: Keepalive) -> io::Result<()> {
    let Some(interval) = keepalive.interval() else { return Ok(()) };
    // The system counts these times in whole seconds.
    let second = Duration::from_secs(1);
    let between = (keepalive.timeout / PROBES).max(second);
    let probing = TcpKeepalive::new().with_time(interval.max(second)).with_interval(between);
    socket.set_tcp_keepalive(&probing.with_retries(PROBES))?;
    // This option sets the same limit for sent bytes that are not acknowledged.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(interval.saturating_add(keepalive.timeout)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_probed_as_often_as_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        set_up(&server, Keepalive::default(), None);
        let socket = SockRef::from(&server);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(20));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(3));
        set_up(&client, Keepalive { interval: Duration::ZERO, ..Keepalive::default() }, None);
        assert!(!SockRef::from(&client).keepalive().unwrap());
    }
}
