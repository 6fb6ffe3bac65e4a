//! One request, measured.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Time that a request may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// Largest page that is read, in bytes.
const LARGEST_PAGE: usize = 16 * 1024 * 1024;

/// Measurements of a request that was answered with 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measured {
    /// The server's name by its own account.
    pub(super) server: String,
    /// Time to the first piece of the body, of a streamed answer. One that comes in one piece has no first token to
    /// see.
    pub(super) first: Option<Duration>,
    /// Times between two pieces of the body.
    pub(super) gaps: Vec<Duration>,
    /// Time to the end of the body.
    pub(super) whole: Duration,
}

/// Sends a chat request on a connection of its own and reads the answer to its end.
pub(super) async fn ask(addr: SocketAddr, body: String) -> anyhow::Result<Measured> {
    timeout(PATIENCE, measure(addr, body)).await?
}

/// The page at this path.
pub(super) async fn page(addr: SocketAddr, path: &str) -> anyhow::Result<String> {
    let fetch = async {
        let response = exchange(addr, Method::GET, path, Bytes::new()).await?;
        let status = response.status();
        if !status.is_success() {
            bail!("{path} is answered with {status}");
        }
        let body = Limited::new(response.into_body(), LARGEST_PAGE).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    };
    timeout(PATIENCE, fetch).await?
}

/// Sum of the samples of a metric on the page of this server.
pub(super) async fn metric(addr: SocketAddr, name: &str) -> anyhow::Result<f64> {
    Ok(sum(&page(addr, "/metrics").await?, name))
}

async fn measure(addr: SocketAddr, body: String) -> anyhow::Result<Measured> {
    let start = Instant::now();
    let mut response = exchange(addr, Method::POST, "/v1/chat/completions", body.into()).await?;
    let status = response.status();
    if !status.is_success() {
        bail!("answered with {status}");
    }
    let server =
        response.headers().get("x-sim-server").and_then(|name| name.to_str().ok()).unwrap_or("?").to_owned();
    let form = response.headers().get("content-type").map(http::HeaderValue::as_bytes).unwrap_or_default();
    let streamed = form.starts_with(b"text/event-stream");
    let (mut first, mut last, mut gaps) = (None, None, Vec::new());
    while let Some(frame) = response.body_mut().frame().await {
        if frame?.is_data() {
            let now = start.elapsed();
            first.get_or_insert(now);
            gaps.extend(last.replace(now).map(|last| now.saturating_sub(last)));
        }
    }
    let whole = start.elapsed();
    Ok(Measured { server, first: first.filter(|_| streamed), gaps, whole })
}

async fn exchange(
    addr: SocketAddr,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Response<Incoming>> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", addr.to_string())
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    Ok(sender.send_request(request).await?)
}

fn sum(page: &str, name: &str) -> f64 {
    let samples = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.trim().parse::<f64>().ok()
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_metric_are_added_and_those_of_longer_names_are_not() {
        let page = "# TYPE a counter\na{x=\"}\"} 1.5\na{x=\"y\"} 2\na_total 100\na 3\n";
        assert!((sum(page, "a") - 6.5).abs() < 1e-9);
    }
}
