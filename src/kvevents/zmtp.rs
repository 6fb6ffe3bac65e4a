//! The part of ZMTP 3.0 that events need: the handshake without security, subscriptions, and messages in frames.
//!
//! The specification is rfc.zeromq.org/spec/23. Either side may have opened the connection. The messages of a peer are
//! bounded in frames and in bytes. Memory grows with the bytes that were received, and not with the lengths that a peer
//! announces.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The length of a greeting in bytes.
const GREETING: usize = 64;
/// The longest time for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The most bytes of a command.
const COMMAND: u64 = 4096;
/// The most frames of a message.
const MAX_FRAMES: usize = 8;
/// The most bytes of a message. A batch of 100,000 blocks needs them.
const MAX_MESSAGE: u64 = 16 << 20;
/// A frame with more bytes takes memory that all connections share.
const SMALL: u64 = 64 << 10;
/// The unit, in bytes, in which that memory is handed out.
const UNIT: u64 = 1 << 10;
/// The most bytes that the large frames of all connections with one `Room` may take together.
const ALL_MESSAGES: u64 = 32 << 20;
/// The longest time from the first to the last byte of a message, without the wait for memory.
const UNFINISHED: Duration = Duration::from_secs(30);

/// The flags of a frame.
const MORE: u8 = 1;
const LONG: u8 = 2;
const IS_COMMAND: u8 = 4;

/// The socket type of this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A subscriber, which receives the messages of a publisher.
    Subscriber,
    /// A dealer, which sends a request and gets several answers.
    Dealer,
}

impl Kind {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Subscriber => b"SUB",
            Self::Dealer => b"DEALER",
        }
    }
}

/// The frames of a message.
pub type Frames = Vec<Vec<u8>>;

/// The memory for the large messages of many connections. Clones share the memory.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new((ALL_MESSAGES / UNIT) as usize)))
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Connection<S> {
    stream: BufReader<S>,
    room: Room,
    /// The shares of the memory that the last message takes.
    held: Vec<OwnedSemaphorePermit>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Makes the handshake as a socket of type `kind`.
    ///
    /// # Errors
    ///
    /// Fails if the peer does not speak ZMTP 3, asks for another security mechanism than NULL, or takes longer than 5
    /// s.
    pub async fn open(stream: S, kind: Kind, room: Room) -> io::Result<Self> {
        let stream = BufReader::with_capacity(32 << 10, stream);
        let mut connection = Self { stream, room, held: Vec::new() };
        let shaking = connection.shake_hands(kind);
        tokio::time::timeout(HANDSHAKE, shaking).await.map_err(|_| timed_out("handshake"))??;
        Ok(connection)
    }

    async fn shake_hands(&mut self, kind: Kind) -> io::Result<()> {
        let mut greeting = [0; GREETING];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        self.stream.write_all(&greeting).await?;
        self.stream.flush().await?;
        let mut theirs = [0; GREETING];
        self.stream.read_exact(&mut theirs).await?;
        if theirs[0] != 0xff || theirs[9] != 0x7f || theirs[10] < 3 {
            return Err(invalid("the peer does not speak ZMTP 3"));
        }
        if &theirs[12..17] != b"NULL\0" {
            return Err(invalid("the peer demands a security mechanism; only NULL is spoken"));
        }
        let mut ready = b"\x05READY\x0bSocket-Type".to_vec();
        ready.extend_from_slice(&(kind.name().len() as u32).to_be_bytes());
        ready.extend_from_slice(kind.name());
        self.send(IS_COMMAND, &ready).await?;
        self.stream.flush().await?;
        let (flags, length) = self.head(COMMAND).await?;
        let body = self.body(length).await?;
        if flags & IS_COMMAND == 0 || !body.starts_with(b"\x05READY") {
            return Err(invalid("the peer did not become ready"));
        }
        Ok(())
    }

    /// Subscribes to the messages whose first frame begins with `topic`.
    pub async fn subscribe(&mut self, topic: &str) -> io::Result<()> {
        self.send(0, &[b"\x01", topic.as_bytes()].concat()).await?;
        self.stream.flush().await
    }

    /// Sends a message with these frames.
    pub async fn say(&mut self, frames: &[&[u8]]) -> io::Result<()> {
        for (at, frame) in frames.iter().enumerate() {
            self.send(if at + 1 < frames.len() { MORE } else { 0 }, frame).await?;
        }
        self.stream.flush().await
    }

    /// Receives the next message. Its share of the memory is given back at the next call.
    ///
    /// # Errors
    ///
    /// Fails if the connection ends, if a message has more than 8 frames or 16 MiB, or if a message that has begun
    /// takes longer than 30 s.
    pub async fn hear(&mut self) -> io::Result<Frames> {
        loop {
            self.held.clear();
            // A peer may be silent for as long as it likes, but must not stop in the middle of a message.
            self.stream.fill_buf().await?;
            if let Some(frames) = self.message().await? {
                return Ok(frames);
            }
        }
    }

    /// Reads a message whose first byte is here. Returns `None` if it was a command.
    async fn message(&mut self) -> io::Result<Option<Frames>> {
        let mut frames = Frames::new();
        let mut left = MAX_MESSAGE;
        let mut ends = Instant::now() + UNFINISHED;
        loop {
            let (flags, length) = until(ends, self.head(left)).await?;
            if length > SMALL {
                // The time that others take for their messages is not the time of this one.
                let began = Instant::now();
                self.take_room(length).await?;
                ends += began.elapsed();
            }
            let body = until(ends, self.body(length)).await?;
            if flags & IS_COMMAND != 0 {
                until(ends, self.obey(&body)).await?;
                if frames.is_empty() {
                    return Ok(None);
                }
                continue;
            }
            left = left.saturating_sub(body.len() as u64);
            frames.push(body);
            if flags & MORE == 0 {
                return Ok(Some(frames));
            }
            if frames.len() == MAX_FRAMES {
                return Err(invalid("a message has too many frames"));
            }
        }
    }

    /// Answers a command that asks for an answer.
    async fn obey(&mut self, command: &[u8]) -> io::Result<()> {
        if let Some(rest) = command.strip_prefix(b"\x04PING") {
            // The first two bytes are a time to live. The bytes after them are sent back.
            let context = rest.get(2..).unwrap_or_default();
            self.send(IS_COMMAND, &[b"\x04PONG", context].concat()).await?;
            self.stream.flush().await?;
        }
        Ok(())
    }

    async fn send(&mut self, flags: u8, body: &[u8]) -> io::Result<()> {
        if let Ok(length) = u8::try_from(body.len()) {
            self.stream.write_all(&[flags, length]).await?;
        } else {
            self.stream.write_all(&[flags | LONG]).await?;
            self.stream.write_all(&(body.len() as u64).to_be_bytes()).await?;
        }
        self.stream.write_all(body).await
    }

    /// Reads the flags and the length of the next frame, which has at most `most` bytes.
    async fn head(&mut self, most: u64) -> io::Result<(u8, u64)> {
        let flags = self.stream.read_u8().await?;
        let length = if flags & LONG == 0 {
            u64::from(self.stream.read_u8().await?)
        } else {
            self.stream.read_u64().await?
        };
        let most = if flags & IS_COMMAND == 0 { most } else { COMMAND };
        if length > most {
            return Err(invalid("a message is too large"));
        }
        Ok((flags, length))
    }

    /// Waits for the memory of a large frame.
    async fn take_room(&mut self, length: u64) -> io::Result<()> {
        let units = u32::try_from(length / UNIT).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room.0).acquire_many_owned(units).await;
        self.held.push(room.map_err(|_| invalid("no more messages are taken"))?);
        Ok(())
    }

    /// Reads the body of a frame.
    async fn body(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        (&mut self.stream).take(length).read_to_end(&mut body).await?;
        if (body.len() as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(body)
    }
}

/// The result of a part of a message, unless the message ends too late.
async fn until<T>(ends: Instant, part: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout_at(ends, part).await.map_err(|_| timed_out("message"))?
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

pub(super) fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("the {what} took too long"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// The other side, which sends these bytes after its greeting and then reads all that comes.
    async fn peer(mut stream: DuplexStream, mechanism: &[u8], then: Vec<u8>) -> Vec<u8> {
        let mut greeting = [0; GREETING];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[11] = 1;
        greeting[12..12 + mechanism.len()].copy_from_slice(mechanism);
        stream.write_all(&greeting).await.unwrap();
        stream.write_all(&then).await.unwrap();
        let mut heard = Vec::new();
        // The test drops its side at the end.
        let _ = stream.read_to_end(&mut heard).await;
        heard
    }

    fn ready() -> Vec<u8> {
        let mut frame = vec![IS_COMMAND, 26];
        frame.extend_from_slice(b"\x05READY\x0bSocket-Type\0\0\0\x03PUB");
        frame[1] = (frame.len() - 2) as u8;
        frame
    }

    async fn heard(then: &[u8]) -> io::Result<Frames> {
        let (ours, theirs) = duplex(1 << 16);
        let peer = tokio::spawn(peer(theirs, b"NULL", [ready(), then.to_vec()].concat()));
        let mut connection = Connection::open(ours, Kind::Subscriber, Room::default()).await?;
        connection.subscribe("kv@").await?;
        let message = connection.hear().await;
        drop(connection);
        let said = peer.await.unwrap();
        assert!(said.ends_with(b"\0\x04\x01kv@") || said.ends_with(b"\x04\x07\x04PONGxy"), "{said:?}");
        message
    }

    #[tokio::test]
    async fn a_message_is_its_frames_and_a_ping_is_answered() {
        let frames = heard(b"\x01\x02kv\x01\x00\x02\0\0\0\0\0\0\0\x03abc").await.unwrap();
        assert_eq!(frames, [&b"kv"[..], b"", b"abc"]);
        let frames = heard(b"\x04\x09\x04PING\0\x10xy\0\x01a").await.unwrap();
        assert_eq!(frames, [b"a"]);
    }

    #[tokio::test]
    async fn what_a_peer_sends_has_bounds() {
        let large = heard(b"\x02\xff\xff\xff\xff\xff\xff\xff\xff").await;
        assert_eq!(large.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let many = heard(&b"\x01\x00".repeat(100)).await;
        assert_eq!(many.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let command = heard(b"\x06\0\0\0\0\0\x01\0\0").await;
        assert_eq!(command.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_are_refused_and_silence_ends() {
        let (ours, theirs) = duplex(1 << 16);
        let curve = tokio::spawn(peer(theirs, b"CURVE", ready()));
        assert!(Connection::open(ours, Kind::Subscriber, Room::default()).await.is_err());
        curve.abort();
        let (ours, mut theirs) = duplex(1 << 16);
        theirs.write_all(&[b'H'; 64]).await.unwrap();
        assert!(Connection::open(ours, Kind::Subscriber, Room::default()).await.is_err());
        let (ours, _theirs) = duplex(1 << 16);
        let error = Connection::open(ours, Kind::Dealer, Room::default()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_end_is_given_up_and_silence_is_not() {
        let (ours, theirs) = duplex(1 << 16);
        let _peer = tokio::spawn(async move {
            let mut stream = theirs;
            let mut greeting = [0; GREETING];
            (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
            greeting[12..16].copy_from_slice(b"NULL");
            stream.write_all(&[&greeting[..], &ready()].concat()).await.unwrap();
            tokio::time::sleep(Duration::from_hours(5)).await;
            stream.write_all(b"\0\x01a\x01\x05ab").await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut connection = Connection::open(ours, Kind::Subscriber, Room::default()).await.unwrap();
        assert_eq!(connection.hear().await.unwrap(), [b"a"]);
        assert_eq!(connection.hear().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn large_messages_share_their_room_and_give_it_back() {
        let large = [&b"\x02\0\0\0\0\0\x10\0\0"[..], &vec![7; 1 << 20]].concat();
        let (ours, theirs) = duplex(1 << 16);
        let said = [ready(), large.clone(), large, b"\0\x01a".to_vec()].concat();
        let _peer = tokio::spawn(peer(theirs, b"NULL", said));
        // The memory is enough for one of the two messages.
        let room = Room(Arc::new(Semaphore::new(1 << 10)));
        let mut connection = Connection::open(ours, Kind::Subscriber, room.clone()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(connection.hear().await.unwrap()[0].len(), 1 << 20);
            assert_eq!(room.0.available_permits(), 0);
        }
        assert_eq!(connection.hear().await.unwrap(), [b"a"]);
        assert_eq!(room.0.available_permits(), 1 << 10);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_memory_that_others_hold_is_not_the_time_of_a_message() {
        let (ours, theirs) = duplex(1 << 16);
        let said = [ready(), [&b"\x02\0\0\0\0\0\x10\0\0"[..], &vec![7; 1 << 20]].concat()].concat();
        let _peer = tokio::spawn(peer(theirs, b"NULL", said));
        let room = Room(Arc::new(Semaphore::new(1 << 10)));
        let others = Arc::clone(&room.0).acquire_many_owned(1).await.unwrap();
        let _others = tokio::spawn(async move {
            tokio::time::sleep(UNFINISHED * 3).await;
            drop(others);
        });
        let mut connection = Connection::open(ours, Kind::Subscriber, room).await.unwrap();
        assert_eq!(connection.hear().await.unwrap()[0].len(), 1 << 20);
    }
}
