//! What is read of model servers whose metrics pages are given word for word, at addresses of every kind.

use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{EndpointsFile, Pointsman, SCORERS, config, holds};

/// Gives the same metrics page to everybody who asks.
struct Page {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Page {
    async fn serve(text: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream, answer.clone()));
            }
        });
        Self { addr, task }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer_all(mut stream: TcpStream, answer: String) {
    let (mut asked, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        asked.extend_from_slice(&buffer[..read]);
        while let Some(end) = asked.windows(4).position(|window| window == b"\r\n\r\n") {
            asked.drain(..end + 4);
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Waits until the picker has read this of the endpoint.
async fn reads(pointsman: &Pointsman, endpoint: &str, metric: &str, expected: f64) {
    holds(&format!("{metric} of {endpoint} is {expected}"), async || {
        let read = pointsman.metric(metric, &[("model_server_endpoint", endpoint)]).await;
        read.is_some_and(|read| (read - expected).abs() < 1e-6)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_dp_attention_has_the_load_of_all_its_ranks() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/metrics/sglang.dp_attention.txt");
    let page = Page::serve(std::fs::read_to_string(file).unwrap()).await;
    let (ip, port) = (page.addr.ip(), page.addr.port());
    let endpoints = EndpointsFile::of(&format!(
        "endpoints: [{{name: s, address: {ip}, port: {port}, labels: {{llm-d.ai/engine-type: sglang}}}}]\n"
    ));
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &[]).await;
    reads(&pointsman, "s", "llm_d_epp_per_endpoint_queue_size", 33.0).await;
    holds("the usage is the mean of the ranks", async || {
        let usage = pointsman.metric("llm_d_epp_average_kv_cache_utilization", &[]).await;
        usage.is_some_and(|usage| (usage - 0.7).abs() < 1e-6)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_known_by_name_is_asked_for_metrics_on_their_own_port() {
    let page = Page::serve("vllm:num_requests_waiting 21\n".to_owned()).await;
    let port = page.addr.port();
    // Nothing of interest is on the serving port.
    let other = Page::serve("vllm:num_requests_waiting 1\n".to_owned()).await;
    let serving = other.addr.port();
    let endpoints = EndpointsFile::of(&format!(
        "endpoints:\n- {{name: a, address: localhost, port: \"{serving}\", metricsPort: \"{port}\"}}\n\
         - {{name: b, address: 127.0.0.1, port: {serving}, metricsPort: {port}, metricsScheme: http}}\n\
         - {{name: c, address: 127.0.0.1, port: {serving}}}\n"
    ));
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &[]).await;
    for (name, waiting) in [("a", 21.0), ("b", 21.0), ("c", 1.0)] {
        reads(&pointsman, name, "llm_d_epp_per_endpoint_queue_size", waiting).await;
    }
    holds("the name is one server", async || {
        pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(3.0)
    })
    .await;
}
