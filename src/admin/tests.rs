//! The servers over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::metrics::Metrics;
use crate::pool::{EndpointId, EndpointSpec, Pool};
use crate::telemetry::{LogFormat, LogLevel, logs};
use crate::transport::{FEW_CLIENTS, Keepalive, Port, Tls};

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn state() -> AdminState {
    let pool = Arc::new(Pool::new("ns", "p", Instant::now()));
    let address = SocketAddr::from(([10, 0, 0, 1], 8000));
    pool.replace_endpoints(vec![EndpointSpec::new(EndpointId::new("ns", "a"), address)]);
    let (_, log) = logs::subscriber(LogLevel::Info, LogFormat::Json, std::io::sink);
    let plugin = PluginState {
        name: "a".into(),
        kind: "kind".into(),
        roles: vec!["scorer"],
        added: None,
        state: None,
    };
    AdminState {
        decisions: None,
        capturing: None,
        dry_runs: None,
        reloading: None,
        metrics: Metrics::new(),
        pool,
        plugins: Arc::new(move || vec![plugin.clone()]),
        peers: None,
        prefix: Arc::new(|| json!({"precise": {"models": []}})),
        log: Some(log),
        access: None,
        log_level_from: LogLevelFrom::Loopback,
        page: PageSources { queues: Arc::new(|| None), staleness: None },
    }
}

async fn start(tls: Option<Arc<ServerConfig>>, state: AdminState) -> Server {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let port = Port::new("metrics", tcp, FEW_CLIENTS, Keepalive::default(), &state.metrics);
    let port = port.with_tls(tls.map(Tls::from));
    let task = tokio::spawn(serve(port, state, Feed::default(), async move {
        let _ = stopped.await;
    }));
    Server { address, stop, task }
}

type Sender = http1::SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr) -> Sender {
    connect_to_end(address).await.0
}

/// A connection, and a task that ends with it.
async fn connect_to_end(address: SocketAddr) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn ask(
    sender: &mut Sender,
    method: &str,
    path: &str,
    accept: &str,
    body: &'static str,
) -> (u16, http::HeaderMap, String) {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "admin")
        .header("accept", accept)
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_metrics_page_comes_in_the_format_asked_for() {
    let state = state();
    state.metrics.info("abc", "v1");
    let server = start(None, state).await;
    let mut sender = connect(server.address).await;
    let (status, headers, page) = ask(&mut sender, "GET", "/metrics", "*/*", "").await;
    assert_eq!(
        (status, &headers["content-type"]),
        (200, &"text/plain; version=0.0.4; charset=utf-8; escaping=underscores".parse().unwrap())
    );
    assert!(page.contains("llm_d_epp_info{build_ref=\"v1\",commit=\"abc\"} 1\n"), "{page}");
    let (_, headers, page) = ask(&mut sender, "GET", "/metrics", "application/openmetrics-text", "").await;
    assert!(
        headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text; version=0.0.1")
    );
    assert!(
        page.contains("llm_d_epp_info{build_ref=\"v1\",commit=\"abc\"} 1.0\n") && page.ends_with("# EOF\n")
    );
}

#[tokio::test]
async fn debug_pages_are_json_and_only_read() {
    let server = start(None, state()).await;
    let mut sender = connect(server.address).await;
    let (status, _, body) = ask(&mut sender, "GET", "/debug/plugins/state", "*/*", "").await;
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &page["plugins"]["a"]["type"]), (200, &json!("kind")));
    let (_, _, body) = ask(&mut sender, "GET", "/debug/pool", "*/*", "").await;
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(page["endpoints"][0]["address"], "10.0.0.1:8000");
    let (_, _, body) = ask(&mut sender, "GET", "/debug/prefix", "*/*", "").await;
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(page["plugins"], json!({"precise": {"models": []}}));
    for path in ["/metrics", "/healthz", "/debug/plugins/state", "/debug/pool", "/debug/prefix"] {
        let (status, headers, _) = ask(&mut sender, "POST", path, "*/*", "").await;
        assert_eq!(status, 405, "{path}");
        assert!(headers["allow"].to_str().unwrap().contains("GET"), "{path}");
    }
    assert_eq!(ask(&mut sender, "GET", "/healthz", "*/*", "").await.2, "ok");
    assert_eq!(ask(&mut sender, "GET", "/nowhere", "*/*", "").await.0, 404);
}

#[tokio::test]
async fn the_log_level_is_read_and_changed() {
    let (subscriber, log) = logs::subscriber(LogLevel::Info, LogFormat::Json, std::io::sink);
    let server = start(None, AdminState { log: Some(log.clone()), ..state() }).await;
    let mut sender = connect(server.address).await;
    assert_eq!(ask(&mut sender, "GET", "/debug/log-level", "*/*", "").await.2, "{\"level\":\"info\"}");
    assert_eq!(ask(&mut sender, "PUT", "/debug/log-level", "*/*", "debug").await.2, "{\"level\":\"debug\"}");
    assert_eq!(log.level(), LogLevel::Debug);
    let (status, _, body) = ask(&mut sender, "PUT", "/debug/log-level", "*/*", "loud").await;
    assert_eq!(status, 400);
    assert!(body.contains("loud"), "{body}");
    drop(subscriber);
    assert_eq!(ask(&mut sender, "PUT", "/debug/log-level", "*/*", "info").await.0, 503);
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_the_server() {
    let server = start(None, state()).await;
    let (mut sender, end) = connect_to_end(server.address).await;
    ask(&mut sender, "GET", "/healthz", "*/*", "").await;
    server.stop.send(()).unwrap();
    server.task.await.unwrap();
    end.await.unwrap().unwrap();
}

#[tokio::test]
async fn pages_are_served_over_tls() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certified = rcgen::generate_simple_self_signed(vec!["admin.test".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let server = start(Some(Arc::new(config)), state()).await;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("admin.test").unwrap();
    let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(ask(&mut sender, "GET", "/healthz", "*/*", "").await.2, "ok");
}

#[tokio::test]
async fn health_answers_check_and_list_over_grpc() {
    let state = HealthState {
        live: true,
        leader_election: true,
        leader: false,
        cold_standby: false,
        protocol_matches: true,
        draining: false,
    };
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let health = HealthRpc::new(HealthService::new(move || state));
    let port = Port::new("health", tcp, FEW_CLIENTS, Keepalive::default(), &Metrics::new());
    let server = tokio::spawn(serve_health(port, health, std::future::pending()));
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut client = HealthClient::new(channel.clone());
    let check = async |client: &mut HealthClient<_>, service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        client.check(request).await.unwrap().into_inner().status()
    };
    assert_eq!(check(&mut client, "liveness").await, ServingStatus::Serving);
    assert_eq!(check(&mut client, "").await, ServingStatus::NotServing);
    assert_eq!(check(&mut client, "something").await, ServingStatus::ServiceUnknown);
    let mut raw = tonic::client::Grpc::new(channel);
    raw.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/List");
    let codec = tonic_prost::ProstCodec::<ListRequest, ListResponse>::default();
    let list = raw.unary(tonic::Request::new(ListRequest {}), path, codec).await.unwrap().into_inner();
    let mut names: Vec<(&str, ServingStatus)> =
        list.statuses.iter().map(|(name, response)| (name.as_str(), response.status())).collect();
    names.sort_unstable();
    let expected = [
        ("envoy.service.ext_proc.v3.ExternalProcessor", ServingStatus::NotServing),
        ("liveness", ServingStatus::Serving),
        ("readiness", ServingStatus::NotServing),
    ];
    assert_eq!(names, expected);
    server.abort();
}
