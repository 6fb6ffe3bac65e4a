//! Asks an engine to repeat messages that were missed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::engine::Engine;
use super::zmtp::{Connection, Kind, Room, timed_out};

/// The longest time for setting up the connection.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest wait for the next repeated message.
const SILENCE: Duration = Duration::from_secs(2);
/// The longest time for the whole replay.
const ALL: Duration = Duration::from_mins(1);

/// Asks the engine at `address` to repeat the messages from the number `from` on, up to `to` or to its last one.
/// Returns an error if one of them is missing.
pub(super) async fn replay(
    engine: &mut Engine,
    address: SocketAddr,
    from: u64,
    to: Option<u64>,
    room: Room,
) -> io::Result<()> {
    tokio::time::timeout(ALL, repeat(engine, address, from, to, room))
        .await
        .map_err(|_| timed_out("replay"))?
}

async fn repeat(
    engine: &mut Engine,
    address: SocketAddr,
    from: u64,
    to: Option<u64>,
    room: Room,
) -> io::Result<()> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| timed_out("connection"))??;
    let mut connection = Connection::open(stream, Kind::Dealer, room).await?;
    connection.say(&[b"", &from.to_be_bytes()]).await?;
    let mut expected = from;
    loop {
        let frames = tokio::time::timeout(SILENCE, connection.hear()).await;
        let mut frames = frames.map_err(|_| timed_out("repeated message"))??;
        // The frames may begin with an empty frame and a topic.
        let (Some(payload), Some(number)) = (frames.pop(), frames.pop()) else {
            return Err(invalid("a repeated message has too few frames"));
        };
        if payload.is_empty() {
            // The engine has repeated what it has. That is an error if a missed message is not among it.
            let complete = to.is_none_or(|to| expected > to);
            return if complete { Ok(()) } else { Err(invalid("the engine does not have what was missed")) };
        }
        let number = number.try_into().map(u64::from_be_bytes);
        let number = number.map_err(|_| invalid("a repeated message has no number"))?;
        if number >= expected && !engine.repeated(expected, number, &payload) {
            return Err(invalid("the engine does not have all that was missed"));
        }
        expected = expected.max(number.saturating_add(1));
        if to.is_some_and(|to| expected > to) {
            return Ok(());
        }
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
