//! A client of HTTP/2 that writes its frames itself: bursts in one packet, silence, whatever a library would not do.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::poll::within;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Bytes,
}

impl Frame {
    /// True if the server closes the connection.
    pub(crate) fn is_go_away(&self) -> bool {
        self.kind == 7
    }

    /// True for bytes of an answer.
    pub(crate) fn is_data(&self) -> bool {
        self.kind == DATA
    }

    /// True if it ends its stream.
    pub(crate) fn ends_stream(&self) -> bool {
        self.kind == RST_STREAM || (matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0)
    }
}

/// One connection.
pub(crate) struct RawHttp2 {
    stream: TcpStream,
    read: BytesMut,
}

impl RawHttp2 {
    /// Connects in plaintext and says what HTTP/2 wants said first, with windows as large as they get.
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut greeting = PREFACE.to_vec();
        // SETTINGS_INITIAL_WINDOW_SIZE.
        frame(&mut greeting, SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        frame(&mut greeting, WINDOW_UPDATE, 0, 0, &(0x7000_0000_u32).to_be_bytes());
        let mut client = Self { stream, read: BytesMut::new() };
        client.send(&greeting).await;
        client
    }

    /// Writes these bytes, as one packet if they fit into one.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within("writing frames", self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next frame but for settings and pings, which are answered; `None` when the server has closed.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.next_unanswered().await?;
            let mut answer = Vec::new();
            match frame.kind {
                SETTINGS | PING if frame.flags & ACK != 0 => continue,
                SETTINGS => self::frame(&mut answer, SETTINGS, ACK, 0, &[]),
                PING => self::frame(&mut answer, PING, ACK, 0, &frame.payload),
                WINDOW_UPDATE => continue,
                _ => return Some(frame),
            }
            self.stream.write_all(&answer).await.ok()?;
        }
    }

    /// The next frame, whatever it is, without any answer to it.
    pub(crate) async fn next_unanswered(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = take_frame(&mut self.read) {
                return Some(frame);
            }
            if within("a frame", self.stream.read_buf(&mut self.read)).await.ok()? == 0 {
                return None;
            }
        }
    }
}

fn take_frame(read: &mut BytesMut) -> Option<Frame> {
    let head = read.get(..9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let (kind, flags) = (head[3], head[4]);
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    if read.len() < 9 + length {
        return None;
    }
    let payload = read.split_to(9 + length).freeze().slice(9..);
    Some(Frame { kind, flags, stream, payload })
}

/// Appends a frame.
pub(crate) fn frame(to: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    to.put_uint(payload.len() as u64, 3);
    to.put_u8(kind);
    to.put_u8(flags);
    to.put_u32(stream);
    to.extend_from_slice(payload);
}

/// Appends HEADERS that open `stream` with a POST to `path`; the body is to come.
pub(crate) fn open(to: &mut Vec<u8>, stream: u32, path: &str, fields: &[(&str, &str)]) {
    // Method POST and scheme http from the static table; the rest in full, not to be remembered.
    let mut block = vec![0x83, 0x86];
    for (name, text) in [(0x04, path), (0x01, "picker")] {
        block.push(name);
        string(&mut block, text);
    }
    for (name, text) in fields {
        block.push(0);
        string(&mut block, name);
        string(&mut block, text);
    }
    frame(to, HEADERS, END_HEADERS, stream, &block);
}

fn string(block: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 127, "{text:?} is too long for this client");
    block.push(text.len() as u8);
    block.extend_from_slice(text.as_bytes());
}

/// Appends a RST_STREAM that says that nobody wants the answer any more.
pub(crate) fn reset(to: &mut Vec<u8>, stream: u32) {
    frame(to, RST_STREAM, 0, stream, &8_u32.to_be_bytes());
}

/// Appends DATA.
pub(crate) fn data(to: &mut Vec<u8>, stream: u32, bytes: &[u8], ends: bool) {
    frame(to, DATA, if ends { END_STREAM } else { 0 }, stream, bytes);
}

/// Appends a gRPC message in one DATA frame.
pub(crate) fn message(to: &mut Vec<u8>, stream: u32, message: &impl prost::Message) {
    let mut bytes = vec![0];
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).unwrap();
    data(to, stream, &bytes, false);
}
