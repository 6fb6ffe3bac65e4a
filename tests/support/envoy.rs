//! A real Envoy with the configuration that users take.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::client::Client;
use super::poll::eventually;
use super::process::Process;

const TEMPLATE: &str = include_str!("../../deploy/envoy/envoy.yaml");
/// The mode of the usual file; the other file keeps its own where this one is asked for.
const SHIPPED: BodyMode = BodyMode::FullDuplexStreamed;
const FAIL_OPEN: &str = include_str!("../../deploy/envoy/envoy-fail-open.yaml");

/// How Envoy hands bodies to the picker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyMode {
    /// Piece by piece, each answered with what to send on. As the file has it.
    FullDuplexStreamed,
    /// Not at all.
    None,
    /// Whole.
    Buffered,
    /// Whole, or as much as the buffer takes.
    BufferedPartial,
    /// Piece by piece, each awaiting its answer.
    Streamed,
}

impl BodyMode {
    fn name(self) -> &'static str {
        match self {
            Self::FullDuplexStreamed => "FULL_DUPLEX_STREAMED",
            Self::None => "NONE",
            Self::Buffered => "BUFFERED",
            Self::BufferedPartial => "BUFFERED_PARTIAL",
            Self::Streamed => "STREAMED",
        }
    }
}

/// A running Envoy.
pub(crate) struct Envoy {
    /// Where clients come in.
    pub(crate) addr: SocketAddr,
    /// Its admin interface.
    pub(crate) admin: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Envoy {
    /// Starts Envoy in front of the picker at `grpc`, with these modes for the two bodies, and waits until it takes
    /// requests.
    pub(crate) async fn start_in_modes(grpc: SocketAddr, request: BodyMode, response: BodyMode) -> Self {
        Self::start_with(&[grpc], true, request, response).await
    }

    /// Starts Envoy in front of the picker at `grpc` and waits until it takes requests.
    pub(crate) async fn start(grpc: SocketAddr, tls: bool, mode: BodyMode) -> Self {
        Self::start_with_several(&[grpc], tls, mode).await
    }

    /// The same in front of several replicas of the picker.
    pub(crate) async fn start_with_several(grpc: &[SocketAddr], tls: bool, mode: BodyMode) -> Self {
        Self::start_with(grpc, tls, mode, mode).await
    }

    /// The same in the mode `STREAMED` with bodies that come before the headers are answered.
    pub(crate) async fn start_with_early_bodies(grpc: SocketAddr) -> Self {
        let text = variant(TEMPLATE, &[grpc], true, BodyMode::Streamed, BodyMode::Streamed);
        let before = "                      message_timeout: 1000s\n";
        assert!(text.contains(before));
        let early = "                      send_body_without_waiting_for_header_response: true\n";
        Self::run(&text.replace(before, &format!("{before}{early}"))).await
    }

    async fn start_with(grpc: &[SocketAddr], tls: bool, request: BodyMode, response: BodyMode) -> Self {
        Self::run(&variant(TEMPLATE, grpc, tls, request, response)).await
    }

    /// Starts Envoy with the file that goes on without a picker, in front of the picker at `grpc` and these model
    /// servers.
    pub(crate) async fn start_fail_open(grpc: SocketAddr, servers: &[SocketAddr]) -> Self {
        let line = |ip: IpAddr, port: u16| {
            format!(
                "              - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}\n"
            )
        };
        let shipped: String = [8000, 8001].map(|port| line(Ipv4Addr::LOCALHOST.into(), port)).concat();
        let text = variant(FAIL_OPEN, &[grpc], true, SHIPPED, SHIPPED);
        assert!(text.contains(&shipped), "the Envoy file lists other servers");
        let own: String = servers.iter().map(|server| line(server.ip(), server.port())).collect();
        Self::run(&text.replace(&shipped, &own)).await
    }

    async fn run(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("envoy.yaml");
        let admin_file = folder.path().join("admin");
        std::fs::write(&file, config).unwrap();
        let args = [
            "-c".as_ref(),
            file.as_os_str(),
            "--admin-address-path".as_ref(),
            admin_file.as_os_str(),
            "--disable-hot-restart".as_ref(),
            "--concurrency".as_ref(),
            "1".as_ref(),
            "--log-level".as_ref(),
            "warning".as_ref(),
        ];
        let mut process = Process::start("envoy", &program(), args);
        let admin: SocketAddr = eventually("envoy's admin address", async || {
            assert!(process.runs(), "envoy ended");
            std::fs::read_to_string(&admin_file).ok()?.trim().parse().ok()
        })
        .await;
        let addr = eventually("envoy's listener", async || {
            assert!(process.runs(), "envoy ended");
            if Client::http1(admin).get("/ready").await.status != 200 {
                return None;
            }
            listener(&Client::http1(admin).get("/listeners?format=json").await.json())
        })
        .await;
        Self { addr, admin, _process: process, _folder: folder }
    }

    /// A client of the pool that speaks HTTP/1.1.
    pub(crate) fn http1(&self) -> Client {
        Client::http1(self.addr)
    }

    /// A client of the pool that speaks HTTP/2.
    pub(crate) fn http2(&self) -> Client {
        Client::http2(self.addr)
    }

    /// A counter or gauge of Envoy's own.
    pub(crate) async fn stat(&self, name: &str) -> u64 {
        let page = Client::http1(self.admin).get("/stats").await;
        let line = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("POINTSMAN_ENVOY").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv-envoy/envoy")),
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "no Envoy at {}: run `make setup`, or name one in POINTSMAN_ENVOY",
        path.display()
    );
    path
}

/// The users' file with ports that the system chooses, the answer of the picker shown in a header, and another body
/// mode where asked.
fn variant(template: &str, grpc: &[SocketAddr], tls: bool, request: BodyMode, response: BodyMode) -> String {
    let mut text = template.to_owned();
    let mut change = |from: &str, to: &str| {
        assert!(text.contains(from), "the Envoy file no longer has {from:?}");
        text = text.replace(from, to);
    };
    change("address: 127.0.0.1, port_value: 19000", "address: 127.0.0.1, port_value: 0");
    change("address: 0.0.0.0, port_value: 8081", "address: 127.0.0.1, port_value: 0");
    let host = |grpc: &SocketAddr| {
        format!(
            "              - endpoint:\n                  address:\n                    \
             socket_address: {{address: {}, port_value: {}}}\n",
            grpc.ip(),
            grpc.port()
        )
    };
    let hosts: String = grpc.iter().map(host).collect();
    change(&host(&SocketAddr::from(([127, 0, 0, 1], 9002))), &hosts);
    change(
        "                  virtual_hosts:\n",
        "                  response_headers_to_add:\n                    \
         - header: {key: x-picked, value: \"%DYNAMIC_METADATA(envoy.lb:x-gateway-destination-endpoint)%\"}\n                  \
         virtual_hosts:\n",
    );
    for (side, mode) in [("request", request), ("response", response)] {
        if mode != SHIPPED {
            let line = format!("{side}_body_mode: FULL_DUPLEX_STREAMED");
            change(&line, &format!("{side}_body_mode: {}", mode.name()));
            change(&format!("{side}_trailer_mode: SEND"), &format!("{side}_trailer_mode: SKIP"));
        }
    }
    if !tls {
        let socket = text.find("      # Pointsman signs its own certificate").unwrap();
        text.truncate(socket);
        text = text.replace("          tls_options: {alpn_protocols: [h2]}\n", "");
    }
    text
}

fn listener(page: &Value) -> Option<SocketAddr> {
    let address = &page["listener_statuses"].get(0)?["local_address"]["socket_address"];
    format!("{}:{}", address["address"].as_str()?, address["port_value"].as_u64()?).parse().ok()
}
