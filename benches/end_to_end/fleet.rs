//! Model servers that serve nothing but a metrics page of a usual size.

use std::convert::Infallible;
use std::fmt::Write;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves until killed; prints its port.
pub fn run() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
        #[allow(clippy::print_stdout, reason = "the parent reads it")]
        {
            println!("fleet {}", listener.local_addr().expect("a bound socket has an address"));
        }
        let page = Bytes::from(page());
        while let Ok((stream, _)) = listener.accept().await {
            let page = page.clone();
            tokio::spawn(async move {
                let service = service_fn(move |_| {
                    let response = hyper::Response::new(Full::new(page.clone()));
                    async move { Ok::<_, Infallible>(response) }
                });
                // A client that goes away is no fault.
                let _: Result<(), _> = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
}

/// 25 KB with the needed series in the middle, like a real server's. It answers a filtered request with the whole page
/// too.
fn page() -> String {
    let mut page = String::new();
    let filler = |page: &mut String, from: usize, to: usize| {
        for index in from..to {
            let name = format!("vllm:some_histogram_{index}_seconds");
            writeln!(page, "# HELP {name} Some histogram.\n# TYPE {name} histogram")
                .expect("writes to memory");
            for bound in ["0.001", "0.005", "0.01", "0.1", "1.0", "10.0", "+Inf"] {
                writeln!(page, "{name}_bucket{{engine=\"0\",le=\"{bound}\",model_name=\"m\"}} 12345.0")
                    .expect("writes to memory");
            }
        }
    };
    filler(&mut page, 0, 20);
    page.push_str(
        "# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 1.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"20000\"} 1.0
",
    );
    filler(&mut page, 20, 38);
    page
}
