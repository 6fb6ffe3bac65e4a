//! A model server that answers byte for byte as the test says, and breaks off where the test says.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const PAGE: &str = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"m\"} 0.0\n\
    # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=\"m\"} 0.0\n";

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As HTTP wants it.
    Proper,
    /// By a reset of the connection.
    Reset,
    /// Not before the other side goes away.
    Never,
}

/// An answer of status 200.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Lines of further headers, each with its line end.
    pub(crate) headers: String,
    /// Pieces of the body.
    pub(crate) chunks: Vec<Vec<u8>>,
    /// What follows them.
    pub(crate) end: End,
}

impl Script {
    /// A JSON body.
    pub(crate) fn json(body: &str) -> Self {
        let headers = "content-type: application/json\r\n".to_owned();
        Self { headers, chunks: vec![body.as_bytes().to_vec()], end: End::Proper }
    }

    /// An event stream of these pieces.
    pub(crate) fn events(chunks: &[&str], end: End) -> Self {
        let chunks = chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect();
        Self { headers: "content-type: text/event-stream\r\n".to_owned(), chunks, end }
    }
}

type Answer = Box<dyn Fn(&str, &str) -> Script + Send + Sync>;

/// The server. It listens as long as this lives.
pub(crate) struct Scripted {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Scripted {
    /// A server that gives the answer that `answer` makes of a request's first line and body.
    pub(crate) async fn start(answer: impl Fn(&str, &str) -> Script + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let answer: Arc<Answer> = Arc::new(Box::new(answer));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answer), Arc::clone(&log)));
            }
        });
        Self { addr, asked, accepting }
    }

    /// First lines of the requests so far, scrapes left out, oldest first.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, answer: Arc<Answer>, log: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let mut received = Vec::new();
    loop {
        let (line, body) = loop {
            if let Some(request) = request(&mut received) {
                break request;
            }
            if stream.read_buf(&mut received).await.ok()? == 0 {
                return None;
            }
        };
        if line.contains(" /metrics") {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
                PAGE.len()
            );
            stream.write_all((head + PAGE).as_bytes()).await.ok()?;
            continue;
        }
        log.lock().push(line.clone());
        let script = answer(&line, &body);
        let head = format!("HTTP/1.1 200 OK\r\n{}transfer-encoding: chunked\r\n\r\n", script.headers);
        stream.write_all(head.as_bytes()).await.ok()?;
        for chunk in script.chunks {
            let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat();
            stream.write_all(&framed).await.ok()?;
            // The proxy passes each piece on before the next comes or the connection breaks.
            stream.flush().await.ok()?;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        match script.end {
            End::Proper => stream.write_all(b"0\r\n\r\n").await.ok()?,
            End::Reset => {
                stream.set_zero_linger().ok()?;
                return None;
            }
            End::Never => while stream.read_buf(&mut received).await.ok()? > 0 {},
        }
    }
}

/// Takes a whole request off the front: its first line and its body.
fn request(received: &mut Vec<u8>) -> Option<(String, String)> {
    let end = received.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
    let body = if head.contains("transfer-encoding: chunked") {
        let length = received[end..].windows(5).position(|five| five == b"0\r\n\r\n")? + 5;
        String::from_utf8_lossy(&received[end..end + length]).into_owned()
    } else {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let body = received.get(end..end + length.unwrap_or(0))?;
        String::from_utf8_lossy(body).into_owned()
    };
    let line = String::from_utf8_lossy(&received[..end]).lines().next()?.to_owned();
    let taken = end + body.len();
    received.drain(..taken.min(received.len()));
    Some((line, body))
}
