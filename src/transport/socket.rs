//! A TCP connection whose client can cost only so much. The bounds are: the bytes that are read in one turn, the time
//! for which a write may make no progress, and the bytes that are read from a client that does not read.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// The bytes that are read from a connection before they are processed. HTTP/2 reads all frames that there are before
/// it looks at the streams that they opened. Without this bound, a burst of frames would decide how many streams are
/// held before they are looked at.
pub(super) const READ_TURN: usize = 64 << 10;

/// The bytes that are read from a client while it reads none of ours. Each byte that is read may cause an answer that
/// waits in memory.
const READ_WHILE_BLOCKED: usize = 256 << 10;

/// The length of the preface with which an HTTP/2 client begins.
pub(super) const GREETING_BYTES: usize = 24;

/// The state of a socket that other code can read. Clones share the state.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    state: Arc<TurnState>,
}

#[derive(Debug, Default)]
struct TurnState {
    left: AtomicUsize,
    stalled: AtomicBool,
    /// The bytes that the client has sent, without those of TLS. The count ends at the length of a greeting.
    heard: AtomicUsize,
}

impl Turn {
    /// Runs `future`, which reads the socket. Each poll of the future is one turn.
    pub(super) async fn around<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.state.left.store(READ_TURN, Relaxed);
            future.as_mut().poll(cx)
        })
        .await
    }

    /// True if the connection ended because the client read nothing for too long.
    pub(super) fn stalled(&self) -> bool {
        self.state.stalled.load(Relaxed)
    }

    /// The number of bytes that the client has sent, without those of TLS, but at most [`GREETING_BYTES`].
    pub(super) fn heard(&self) -> usize {
        self.state.heard.load(Relaxed)
    }

    fn left(&self) -> usize {
        self.state.left.load(Relaxed)
    }

    fn take(&self, bytes: usize) {
        self.state.left.store(self.left().saturating_sub(bytes), Relaxed);
    }
}

/// The bytes of one connection. `S` is the TCP stream. TLS, if there is any, wraps this type.
#[derive(Debug)]
pub(super) struct Socket<S> {
    stream: S,
    turn: Turn,
    /// The longest time for which a write may make no progress.
    patience: Duration,
    /// The bytes that were read since a write made no progress. `None` while writes make progress.
    blocked: Option<usize>,
    /// The timer of a write that makes no progress. It is made once and then moved.
    timer: Option<Pin<Box<Sleep>>>,
    /// The task that wants to read as soon as writes make progress again.
    reader: Option<Waker>,
}

impl<S> Socket<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, turn: Turn::default(), patience, blocked: None, timer: None, reader: None }
    }

    /// The shared state of the socket.
    pub(super) fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// Counts bytes that the client sent.
    pub(super) fn note_heard(&self, bytes: usize) {
        let heard = &self.turn.state.heard;
        let before = heard.load(Relaxed);
        if before < GREETING_BYTES {
            heard.store((before + bytes).min(GREETING_BYTES), Relaxed);
        }
    }

    fn flows(&mut self) {
        self.blocked = None;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Handles a write that makes no progress. Returns an error once that has lasted for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.blocked.is_none() {
            self.blocked = Some(0);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(Instant::now() + self.patience),
                none => *none = Some(Box::pin(sleep(self.patience))),
            }
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        timer.as_mut().poll(cx).map(|()| {
            self.turn.state.stalled.store(true, Relaxed);
            io::Error::new(io::ErrorKind::TimedOut, "the peer takes no bytes")
        })
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.flows();
            return result;
        }
        self.poll_stalled(cx).map(Err)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.blocked.is_some_and(|read| read >= READ_WHILE_BLOCKED) {
            this.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if this.turn.left() == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        this.turn.take(read);
        if let Some(while_blocked) = &mut this.blocked {
            *while_blocked += read;
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.written(cx, result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP stream has nothing to flush. The result says nothing about the client, so it does not count as
        // progress.
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.written(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// A socket, and the other side of a connection that holds this many bytes in between.
    fn pair(room: usize, patience: Duration) -> (Socket<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, theirs) = duplex(room);
        (Socket::new(ours, patience), theirs)
    }

    #[tokio::test]
    async fn a_turn_reads_no_more_than_its_share_and_the_next_one_goes_on() {
        let (mut socket, mut peer) = pair(4 * READ_TURN, Duration::from_secs(1));
        peer.write_all(&vec![7; 3 * READ_TURN]).await.unwrap();
        let turn = socket.turn();
        let mut turns = Vec::new();
        let mut read = 0;
        let mut buffer = vec![0; 8 << 10];
        turn.around(poll_fn(|cx| {
            turns.push(read);
            loop {
                let mut buf = ReadBuf::new(&mut buffer);
                match Pin::new(&mut socket).poll_read(cx, &mut buf) {
                    Poll::Ready(result) => result.unwrap(),
                    Poll::Pending => return Poll::Pending,
                }
                read += buf.filled().len();
                if read == 3 * READ_TURN {
                    return Poll::Ready(());
                }
            }
        }))
        .await;
        assert_eq!(turns, [0, READ_TURN, 2 * READ_TURN]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_makes_no_progress_fails_and_one_that_makes_some_does_not() {
        let (mut socket, mut peer) = pair(1024, Duration::from_secs(10));
        let turn = socket.turn();
        let slow = tokio::spawn(async move {
            let mut buffer = [0; 512];
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                peer.read_exact(&mut buffer).await.unwrap();
            }
            peer
        });
        socket.write_all(&[1; 4096]).await.unwrap();
        let start = Instant::now();
        let _peer = slow.await.unwrap();
        let error = socket.write_all(&[1; 4096]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(turn.stalled() && start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_read_from_no_further_until_it_does() {
        let (mut socket, mut peer) = pair(2 * READ_WHILE_BLOCKED, Duration::from_mins(1));
        let turn = socket.turn();
        let ours = vec![1; 3 * READ_WHILE_BLOCKED];
        peer.write_all(&vec![2; 2 * READ_WHILE_BLOCKED]).await.unwrap();
        let mut read = 0;
        let mut written = 0;
        let mut buffer = vec![0; 8 << 10];
        let mut step = async |socket: &mut Socket<_>, read: &mut usize| {
            let both = turn.around(poll_fn(|cx| {
                while let Poll::Ready(Ok(bytes)) = Pin::new(&mut *socket).poll_write(cx, &ours[written..]) {
                    written += bytes;
                    if written == ours.len() {
                        break;
                    }
                }
                let mut buf = ReadBuf::new(&mut buffer);
                while let Poll::Ready(Ok(())) = Pin::new(&mut *socket).poll_read(cx, &mut buf) {
                    *read += buf.filled().len();
                    buf.clear();
                }
                Poll::<()>::Pending
            }));
            let _ = tokio::time::timeout(Duration::from_secs(1), both).await;
        };
        step(&mut socket, &mut read).await;
        assert_eq!(read, READ_WHILE_BLOCKED);
        let mut taken = vec![0; 2 * READ_WHILE_BLOCKED];
        peer.read_exact(&mut taken).await.unwrap();
        step(&mut socket, &mut read).await;
        assert_eq!(read, 2 * READ_WHILE_BLOCKED, "reading goes on with writing");
    }
}
