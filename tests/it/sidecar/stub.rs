//! A model server whose answers a test writes step by step, down to the bytes, and which keeps all that it was asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Its first line.
    pub(super) line: String,
    /// Its headers, names in lower case, in order.
    pub(super) headers: Vec<(String, String)>,
    /// Its body, without the framing of chunks.
    pub(super) body: Vec<u8>,
    /// Trailers behind its body.
    pub(super) trailers: Vec<(String, String)>,
    /// When it was complete.
    pub(super) at: Instant,
}

impl Seen {
    /// All values of a header.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// A header's first value, or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.all(name).first().copied().unwrap_or_default()
    }

    /// The body as text.
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The path with its query.
    pub(super) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }
}

/// A step of an answer.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// These bytes go out.
    Send(Vec<u8>),
    /// Nothing happens for this long.
    Pause(Duration),
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more happens until the other side goes away.
    Hang,
    /// Nothing happens until somebody else has set this.
    Until(Arc<AtomicBool>),
    /// What comes is sent back until the other side goes away.
    Echo,
}

/// An answer with a length.
pub(super) fn answer(status: u16, headers: &str, body: &str) -> Vec<Step> {
    let head = format!("HTTP/1.1 {status} Status\r\n{headers}content-length: {}\r\n\r\n", body.len());
    vec![Step::Send((head + body).into_bytes())]
}

/// A JSON answer.
pub(super) fn json(status: u16, body: &Value) -> Vec<Step> {
    answer(status, "content-type: application/json\r\n", &body.to_string())
}

/// The head of an answer in chunks.
pub(super) fn chunked(headers: &str) -> Step {
    Step::Send(format!("HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n").into_bytes())
}

/// A chunk.
pub(super) fn chunk(text: &str) -> Step {
    Step::Send(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes())
}

/// The end of an answer in chunks.
pub(super) fn last_chunk() -> Step {
    Step::Send(b"0\r\n\r\n".to_vec())
}

/// An event stream of these events.
pub(super) fn events(events: &[&str]) -> Vec<Step> {
    let mut steps = vec![chunked("content-type: text/event-stream\r\n")];
    steps.extend(events.iter().map(|event| chunk(&format!("data: {event}\n\n"))));
    steps.push(last_chunk());
    steps
}

type Script = Box<dyn Fn(&Seen) -> Vec<Step> + Send + Sync>;

/// What a server and its connections share.
struct Shared {
    script: Script,
    seen: Mutex<Vec<Seen>>,
    health: AtomicUsize,
    open: AtomicUsize,
    left: AtomicUsize,
}

/// The server. It listens as long as this lives.
pub(super) struct Stub {
    /// Where it listens.
    pub(super) addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Stub {
    /// A server that answers each request by the steps that `script` makes of it.
    pub(super) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start_at(0, None, script).await
    }

    /// The same on this port, with TLS if there is any.
    pub(super) async fn start_at(
        port: u16,
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("0.0.0.0", port)).await.unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            health: AtomicUsize::new(200),
            open: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        });
        let of_all = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&of_all), tls.clone());
                tokio::spawn(async move {
                    stream.set_nodelay(true).ok();
                    match tls {
                        None => serve(stream, &shared).await,
                        Some(tls) => serve(tls.accept(stream).await.ok()?, &shared).await,
                    }
                });
            }
        });
        Self { addr, shared, accepting }
    }

    /// Answers of 200 with `{}`.
    pub(super) async fn plain() -> Self {
        Self::start(|_| answer(200, "content-type: application/json\r\n", "{}")).await
    }

    /// The requests so far, those for health left out, oldest first.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// The only request so far.
    pub(super) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    /// Requests whose answers are not complete and whose clients are there.
    pub(super) fn open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// Requests whose clients went away before the answer was complete.
    pub(super) fn left(&self) -> usize {
        self.shared.left.load(SeqCst)
    }

    /// Health is answered with this status from now on.
    pub(super) fn feel(&self, status: usize) {
        self.shared.health.store(status, SeqCst);
    }

    /// Its port as text.
    pub(super) fn port(&self) -> String {
        self.addr.port().to_string()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A connection that can be reset.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {
    fn reset(&self);
}

impl Connection for TcpStream {
    fn reset(&self) {
        self.set_zero_linger().ok();
    }
}

impl Connection for TlsStream<TcpStream> {
    fn reset(&self) {
        self.get_ref().0.set_zero_linger().ok();
    }
}

/// Counts a request as open.
struct Open<'s>(&'s Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

async fn serve(mut stream: impl Connection, shared: &Shared) -> Option<()> {
    let mut received = Vec::new();
    loop {
        let seen = request(&mut stream, &mut received).await?;
        if seen.line.starts_with("GET /health ") {
            let health = shared.health.load(SeqCst);
            let text = format!("HTTP/1.1 {health} Health\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(text.as_bytes()).await.ok()?;
            continue;
        }
        shared.open.fetch_add(1, SeqCst);
        let open = Open(shared);
        let steps = (shared.script)(&seen);
        shared.seen.lock().push(seen);
        for step in steps {
            if !carry_out(step, &mut stream, &mut received, shared).await {
                return None;
            }
        }
        drop(open);
    }
}

/// False if the connection is over.
async fn carry_out(
    step: Step,
    stream: &mut impl Connection,
    received: &mut Vec<u8>,
    shared: &Shared,
) -> bool {
    let waited = match step {
        Step::Send(bytes) => {
            let sent = stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok();
            if !sent {
                shared.left.fetch_add(1, SeqCst);
            }
            return sent;
        }
        Step::Close => {
            stream.shutdown().await.ok();
            return false;
        }
        Step::Reset => {
            stream.reset();
            return false;
        }
        Step::Echo => {
            let mut bytes = vec![0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                stream.write_all(&bytes[..count]).await.ok();
            }
            return false;
        }
        Step::Until(set) => {
            while !set.load(SeqCst) {
                if gone(stream, received, Duration::from_millis(5)).await {
                    shared.left.fetch_add(1, SeqCst);
                    return false;
                }
            }
            return true;
        }
        Step::Pause(time) => time,
        Step::Hang => Duration::from_hours(1),
    };
    let is_gone = gone(stream, received, waited).await;
    if is_gone {
        shared.left.fetch_add(1, SeqCst);
    }
    !is_gone
}

/// True if the other side goes away within this time.
async fn gone(stream: &mut impl Connection, received: &mut Vec<u8>, time: Duration) -> bool {
    let gone = async { while let Ok(1..) = stream.read_buf(received).await {} };
    tokio::time::timeout(time, gone).await.is_ok()
}

async fn request(stream: &mut impl Connection, received: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        more(stream, received).await?;
    };
    let head: Vec<u8> = received.drain(..end + 4).collect();
    let text = String::from_utf8_lossy(&head[..end]).into_owned();
    let mut lines = text.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: Vec<_> = lines.filter_map(header).collect();
    let mut seen = Seen { line, headers, body: Vec::new(), trailers: Vec::new(), at: Instant::now() };
    if seen.header("expect") == "100-continue" && !seen.path().contains("silent") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    if seen.header("transfer-encoding").contains("chunked") {
        loop {
            let size = usize::from_str_radix(&next_line(stream, received).await?, 16).ok()?;
            if size == 0 {
                break;
            }
            while received.len() < size + 2 {
                more(stream, received).await?;
            }
            seen.body.extend(received.drain(..size));
            received.drain(..2);
        }
        while let Some(line) = next_line(stream, received).await.filter(|line| !line.is_empty()) {
            seen.trailers.extend(header(&line));
        }
    } else {
        let length = seen.header("content-length").parse().unwrap_or(0);
        while received.len() < length {
            more(stream, received).await?;
        }
        seen.body = received.drain(..length).collect();
    }
    seen.at = Instant::now();
    Some(seen)
}

fn header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}

async fn more(stream: &mut impl Connection, received: &mut Vec<u8>) -> Option<()> {
    (stream.read_buf(received).await.ok()? > 0).then_some(())
}

async fn next_line(stream: &mut impl Connection, received: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = received.windows(2).position(|two| two == b"\r\n") {
            let line: Vec<u8> = received.drain(..end + 2).collect();
            return Some(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        more(stream, received).await?;
    }
}
