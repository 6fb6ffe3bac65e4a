//! TCP: taking connections, and how they are set up.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use super::{Connections, Keepalive};
use crate::telemetry::Repeat;

/// Pause after a failure to accept for which nothing can be done.
const PAUSE: Duration = Duration::from_millis(100);
/// The same where a connection was given up, whose descriptor is free in a moment.
const BRIEF_PAUSE: Duration = Duration::from_millis(5);
/// Probes of TCP without an answer after which a connection is dead.
const PROBES: u32 = 3;

/// The next connection. When descriptors have run out, connections that can be spared are given up; otherwise that is
/// waited out.
pub(super) async fn next_connection(
    listener: &TcpListener,
    connections: &Connections,
    failures: &Repeat,
) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The client left before it was looked at.
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

/// Sets up a connection that this program has made: small requests leave at once, and a peer that is gone is noticed.
pub fn prepare_socket(stream: &TcpStream, keepalive: Keepalive) {
    set_up(stream, keepalive, None);
}

/// Small answers leave at once; a peer that is gone is noticed.
pub(super) fn set_up(stream: &TcpStream, keepalive: Keepalive, send_buffer: Option<usize>) {
    let socket = SockRef::from(stream);
    let result = stream
        .set_nodelay(true)
        .and_then(|()| send_buffer.map_or(Ok(()), |bytes| socket.set_send_buffer_size(bytes)))
        .and_then(|()| keep_alive(&socket, keepalive));
    if let Err(error) = result {
        // The connection is gone already, or the system cannot: HTTP/2 asks too.
        tracing::debug!(%error, "cannot set up a connection");
    }
}

fn keep_alive(socket: &SockRef<'_>, keepalive: Keepalive) -> io::Result<()> {
    let Some(interval) = keepalive.interval() else { return Ok(()) };
    // The system counts whole seconds.
    let second = Duration::from_secs(1);
    let between = (keepalive.timeout / PROBES).max(second);
    let probing = TcpKeepalive::new().with_time(interval.max(second)).with_interval(between);
    socket.set_tcp_keepalive(&probing.with_retries(PROBES))?;
    // The same for bytes that were sent and that nobody acknowledges.
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
