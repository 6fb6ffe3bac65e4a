//! Bounds on what the server says. The client library reads a reply whole, whatever its size; this reads along, and ends
//! the connection when a reply is larger than any that was asked for.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Largest string of a reply, in bytes. A message of a peer is at most that.
const STRING: u64 = crate::peers::wire::MAX_MESSAGE_BYTES as u64;
/// Largest reply, in bytes.
const REPLY: u64 = 64 << 20;
/// Most values in a reply.
const VALUES: u64 = 65_536;
/// Longest line: a number, a status or an error.
const LINE: usize = 4096;
/// Deepest nesting of lists.
const DEPTH: usize = 8;

/// Where in a reply the bytes stand.
#[derive(Debug)]
enum At {
    /// In a line; its kind and digits so far.
    Line { kind: u8, number: i64, negative: bool, length: usize, ends: bool },
    /// In a string of which this many bytes are left, those of its end included.
    String(u64),
}

const LINE_BEGINS: At = At::Line { kind: 0, number: 0, negative: false, length: 0, ends: false };

/// Follows the replies of version 2 of the protocol, without keeping them.
#[derive(Debug)]
struct Scan {
    at: At,
    /// Values that the open lists still hold, outermost first.
    open: Vec<u64>,
    bytes: u64,
    values: u64,
}

impl Scan {
    fn new() -> Self {
        Self { at: LINE_BEGINS, open: Vec::new(), bytes: 0, values: 0 }
    }

    /// Goes on by these bytes. `Err` says what is too large, or no reply.
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while let Some(&byte) = bytes.first() {
            match &mut self.at {
                At::String(left) => {
                    let step = (bytes.len() as u64).min(*left);
                    *left -= step;
                    let over = *left == 0;
                    self.count(step)?;
                    bytes = &bytes[step as usize..];
                    if over {
                        self.value_ends();
                    }
                }
                At::Line { kind, number, negative, length, ends } => {
                    bytes = &bytes[1..];
                    self.bytes += 1;
                    *length += 1;
                    if *length > LINE {
                        return Err("a line is too long");
                    }
                    match (byte, *kind) {
                        (b'+' | b'-' | b':' | b'$' | b'*', 0) => *kind = byte,
                        (_, 0) => return Err("it is no reply of version 2 of the protocol"),
                        (b'\r', _) => *ends = true,
                        (b'\n', _) if *ends => {
                            let (kind, number) = (*kind, if *negative { -*number } else { *number });
                            self.line_ends(kind, number)?;
                        }
                        (b'-', b'$' | b'*') if *length == 2 => *negative = true,
                        (b'0'..=b'9', b'$' | b'*') => {
                            *number = number.saturating_mul(10).saturating_add(i64::from(byte - b'0'));
                        }
                        (_, b'$' | b'*') => return Err("a length is no number"),
                        _ => *ends = false,
                    }
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), &'static str> {
        self.bytes += bytes;
        if self.bytes > REPLY { Err("a reply is too large") } else { Ok(()) }
    }

    fn line_ends(&mut self, kind: u8, number: i64) -> Result<(), &'static str> {
        self.at = LINE_BEGINS;
        self.values += 1;
        if self.values > VALUES {
            return Err("a reply has too many values");
        }
        // A negative length stands for nothing.
        match (kind, u64::try_from(number)) {
            (b'$', Ok(length)) if length > STRING => return Err("a string is too long"),
            (b'$', Ok(length)) => self.at = At::String(length + 2),
            (b'*', Ok(length)) if length > VALUES => return Err("a list is too long"),
            (b'*', Ok(length)) if length > 0 => {
                if self.open.len() >= DEPTH {
                    return Err("lists are nested too deep");
                }
                self.open.push(length);
            }
            _ => self.value_ends(),
        }
        Ok(())
    }

    fn value_ends(&mut self) {
        self.at = LINE_BEGINS;
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return;
            }
            self.open.pop();
        }
        (self.bytes, self.values) = (0, 0);
    }
}

/// A connection whose replies are bounded.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    inner: S,
    scan: Scan,
    fault: Arc<OnceLock<&'static str>>,
}

impl<S> Bounded<S> {
    /// A connection, and where it leaves word of what it refused to read.
    pub(super) fn new(inner: S) -> (Self, Arc<OnceLock<&'static str>>) {
        let fault = Arc::default();
        (Self { inner, scan: Scan::new(), fault: Arc::clone(&fault) }, fault)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        Poll::Ready(this.scan.read(read).map_err(|what| {
            let _ = this.fault.set(what);
            io::Error::new(io::ErrorKind::InvalidData, what)
        }))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scanned(bytes: &[u8], piece: usize) -> Result<Scan, &'static str> {
        let mut scan = Scan::new();
        for piece in bytes.chunks(piece) {
            scan.read(piece)?;
        }
        Ok(scan)
    }

    #[test]
    fn replies_pass_however_they_are_cut() {
        let replies = b"+OK\r\n:-7\r\n$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n$3\r\n\r\n*\r\n-ERR a\rb\r\n*2\r\n*1\r\n$1\r\nx\r\n:1\r\n";
        for piece in 1..replies.len() {
            let scan = scanned(replies, piece).unwrap();
            assert_eq!((scan.bytes, scan.values, scan.open.len()), (0, 0, 0), "pieces of {piece}");
        }
        let part = scanned(&replies[..replies.len() - 4], 3).unwrap();
        assert_eq!((part.values, part.open.as_slice()), (3, [1].as_slice()));
    }

    #[test]
    fn what_is_too_large_ends_before_it_is_read() {
        let fault = |bytes: &[u8]| scanned(bytes, 7).unwrap_err();
        assert_eq!(fault(b"$8388609\r\n"), "a string is too long");
        assert_eq!(fault(b"$99999999999999999999\r\n"), "a string is too long");
        assert_eq!(fault(b"*65537\r\n"), "a list is too long");
        assert_eq!(fault(&b"*1\r\n".repeat(9)), "lists are nested too deep");
        assert_eq!(
            fault(&[b"*65536\r\n".as_slice(), &b":1\r\n".repeat(65_536)].concat()),
            "a reply has too many values"
        );
        assert_eq!(fault(&[b"+".as_slice(), &[b'x'; 5000]].concat()), "a line is too long");
        assert_eq!(fault(b"HTTP/1.1 400\r\n"), "it is no reply of version 2 of the protocol");
        assert_eq!(fault(b"$1x\r\n"), "a length is no number");
        let string = [b"$8388608\r\n".as_slice(), &vec![b'x'; 8 << 20], b"\r\n"].concat();
        assert_eq!(fault(&[b"*9\r\n".to_vec(), string.repeat(8)].concat()), "a reply is too large");
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic_and_the_state_stays_small(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(scan) = scanned(&bytes, 5) {
                prop_assert!(scan.open.len() <= DEPTH && scan.bytes <= REPLY);
            }
        }
    }
}
