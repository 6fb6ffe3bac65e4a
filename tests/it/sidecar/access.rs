//! Which servers the routing headers may name, and TLS on both sides.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::connectors::{CHAT, Split};
use super::running::Sidecar;
use super::stub::{Stub, answer};
use crate::support::cluster::{ApiServer, Namespace, POOL};
use crate::support::{EndpointsFile, holds, program, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_says_by_address_and_port_which_servers_may_be_asked_and_may_change() {
    let encoder = Stub::plain().await;
    let prefill = Stub::start(|_| answer(200, "", "{}")).await;
    let engine = Stub::plain().await;
    let file = EndpointsFile::with([("pod-a", prefill.addr)]);
    let flag = format!("--allowed-endpoints-file={}", file.path().display());
    let sidecar = Sidecar::start(&engine, &["--ec-connector=ec-example", &flag]).await;
    let image = json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]}]});
    let ask = async |prefill: &str, encoder: &str| {
        let headers = [("x-prefiller-host-port", prefill), ("x-encoder-hosts-ports", encoder)];
        sidecar.client().post_with(CHAT, &headers, image.to_string()).await
    };
    let (first, second) = (prefill.addr.to_string(), encoder.addr.to_string());
    assert_eq!(ask(&first, "").await.status, 200);
    let mapped = format!("[::ffff:127.0.0.1]:{}", prefill.addr.port());
    assert_eq!(ask(&mapped, "").await.status, 200, "the same address, written in another way");
    for denied in [second.as_str(), "127.0.0.1:22", "localhost:8000", "127.0.0.1"] {
        let reply = ask(denied, "").await;
        assert_eq!((reply.status, reply.json()["type"].clone()), (403, json!("ForbiddenError")), "{denied}");
    }
    sidecar.counted("failed", "target", 4).await;
    // An encode server that may not be asked is left out.
    assert_eq!(ask(&first, &format!("{second},{first}")).await.status, 200);
    assert_eq!(encoder.seen().len(), 0);
    assert_eq!(ask(&first, &second).await.status, 200);
    assert_eq!(encoder.seen().len(), 0);
    file.write([("pod-b", encoder.addr)]);
    holds("the list has changed", async || ask(&first, "").await.status == 403).await;
    assert_eq!(ask(&second, "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_the_cluster_says_which_servers_may_be_asked_and_by_which_ports() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::with_chart_rights(server, &[]).await;
    let (prefill, engine) = (Stub::start(|_| answer(200, "", "{}")).await, Stub::plain().await);
    let port = prefill.addr.port();
    namespace.pool(&[port]).await;
    namespace.pod("pod-1", namespace.address(1)).await;
    let kubeconfig = server.kubeconfig(&namespace.token).display().to_string();
    let pool = format!("--inference-pool={}/{POOL}", namespace.name);
    let flags = ["--enable-ssrf-protection", pool.as_str()];
    let sidecar = Sidecar::start_in(&[("KUBECONFIG", &kubeconfig)], &engine.port(), &flags).await;
    let ask = async |place: u8, port: u16| {
        let target = format!("{}:{port}", namespace.address(place));
        let headers = [("x-prefiller-host-port", target.as_str())];
        sidecar.client().post_with(CHAT, &headers, "{}").await.status
    };
    holds("the pool is known", async || sidecar.client().get("/readyz").await.status == 200).await;
    holds("the pod may be asked", async || ask(1, port).await == 200).await;
    assert_eq!((ask(2, port).await, ask(1, 22).await), (403, 403));
    namespace.pod("pod-2", namespace.address(2)).await;
    holds("a new pod may be asked", async || ask(2, port).await == 200).await;
    namespace.delete_pod("pod-1").await;
    holds("one that is gone may not", async || ask(1, port).await == 403).await;
    assert_eq!(ask(2, port).await, 200);
}

/// A certificate for this machine, and its key.
fn signed() -> (String, String, ServerConfig) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let signed = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    (signed.cert.pem(), signed.signing_key.serialize_pem(), config)
}

async fn shown(sidecar: &Sidecar) -> Vec<u8> {
    let stream = crate::tls::shake_hands(sidecar.addr).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// As the kubelet mounts a secret: the files are links into a folder behind one link, which is swapped.
fn mount(folder: &Path, version: &str, certificate: &str, key: &str) {
    let inside = folder.join(version);
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("tls.crt"), certificate).unwrap();
    std::fs::write(inside.join("tls.key"), key).unwrap();
    symlink(version, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_served_over_tls_with_a_certificate_of_its_own_or_one_that_is_renewed() {
    let engine = Stub::plain().await;
    let port = format!("--vllm-port={}", engine.port());
    let sidecar = Sidecar::launch(&[], &program(), &["sidecar", "--port=0", &port]).await;
    // HTTP/1.1 and HTTP/2 both.
    let mut stream = crate::tls::shake_hands(sidecar.addr).await;
    stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut reply = Vec::new();
    let _ = within("answer", stream.read_to_end(&mut reply)).await;
    assert!(
        reply.starts_with(b"HTTP/1.1 200 ") && reply.ends_with(b"{}"),
        "{}",
        String::from_utf8_lossy(&reply)
    );
    let stream = TokioIo::new(crate::tls::shake_hands(sidecar.addr).await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("https://x/v1/completions").body(Full::new(Bytes::from("{}"))).unwrap();
    let reply = within("answer", sender.send_request(request)).await.unwrap();
    assert_eq!(
        (reply.status().as_u16(), reply.into_body().collect().await.unwrap().to_bytes()),
        (200, Bytes::from("{}"))
    );

    let folder = tempfile::tempdir().unwrap();
    let ((first, key, _), (second, other_key, _)) = (signed(), signed());
    mount(folder.path(), "v1", &first, &key);
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
    }
    let path = format!("--cert-path={}", folder.path().display());
    let words = ["sidecar", "--port=0", &port, "--secure-proxy=true", &path];
    let sidecar = Sidecar::launch(&[], &program(), &words).await;
    let before = shown(&sidecar).await;
    mount(folder.path(), "v2", &second, &other_key);
    holds("the renewed certificate is shown", async || shown(&sidecar).await != before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_called_over_tls_and_verified_unless_told_otherwise() {
    let (certificate, _, config) = signed();
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca.crt");
    std::fs::write(&bundle, certificate).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let kv = r#"{"kv_transfer_params":{"a":1}}"#;
    let prefill = Stub::start_at(0, Some(acceptor.clone()), move |_| answer(200, "", kv)).await;
    let engine = Stub::start_at(0, Some(acceptor), |_| answer(200, "", "{}")).await;
    let target = prefill.addr.to_string();
    let both = "--enable-tls=prefiller,decoder";
    for (environment, flags, split, local) in [
        (vec![("SSL_CERT_FILE", bundle.to_str().unwrap())], vec![both], 200, 200),
        (
            vec![],
            vec![both, "--tls-insecure-skip-verify=prefiller", "--tls-insecure-skip-verify=decoder"],
            200,
            200,
        ),
        (
            vec![],
            vec![
                "--prefiller-use-tls",
                "--decoder-use-tls=true",
                "--prefiller-tls-insecure-skip-verify",
                "--decoder-tls-insecure-skip-verify",
            ],
            200,
            200,
        ),
        (vec![], vec![both, "--tls-insecure-skip-verify=decoder"], 502, 200),
        (vec![], vec![both], 502, 503),
        (vec![], vec!["--enable-tls=decoder", "--tls-insecure-skip-verify=decoder"], 502, 200),
    ] {
        let sidecar = Sidecar::start_in(&environment, &engine.port(), &flags).await;
        let headers = [("x-prefiller-host-port", target.as_str())];
        let reply = sidecar.client().post_with(CHAT, &headers, "{}").await;
        assert_eq!(reply.status, split, "{flags:?} {reply:?}");
        if split == 200 {
            assert_eq!(engine.seen().last().unwrap().json()["kv_transfer_params"], json!({"a": 1}));
        }
        let reply = sidecar.client().get("/v1/models").await;
        assert_eq!(reply.status, local, "{flags:?} {reply:?}");
    }
}

/// Speaks HTTP/2 until the first request, and then goes away.
async fn goes_away(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> Option<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.ok()?;
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await.ok()?;
        if head[3] == 1 {
            // The last stream that was served is none, and the reason is none.
            stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.ok()?;
            stream.flush().await.ok()?;
            return stream.shutdown().await.ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_in_the_middle_of_http2_is_one_that_failed() {
    let (_, _, mut config) = signed();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { goes_away(acceptor.accept(stream).await.ok()?).await });
        }
    });
    let away_port = away.port().to_string();
    for connector in ["nixlv2", "lmcache", "shared-storage", "sglang", "offloading"] {
        let flag = format!("--kv-connector={connector}");
        let flags = [flag.as_str(), "--enable-tls=prefiller", "--tls-insecure-skip-verify=prefiller"];
        let split = Split::start(
            &flags,
            |_| answer(200, "", "{}"),
            move |_| match connector {
                "sglang" | "offloading" => vec![super::stub::Step::Hang],
                _ => answer(200, "", "{}"),
            },
        )
        .await;
        let headers = [("x-prefiller-host-port", away.to_string())];
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = split.sidecar.client().post_with(CHAT, &headers, "{}").await;
        assert_eq!(reply.status, 502, "{connector} {reply:?}");
        split.sidecar.counted("failed", "prefill_reset", 1).await;
        holds("no call is left", async || split.engine.open() == 0).await;
    }
    // The engine does so.
    let flags = ["--enable-tls=decoder", "--tls-insecure-skip-verify=decoder"];
    let sidecar = Sidecar::start_in(&[], &away_port, &flags).await;
    let reply = sidecar.client().post_with(CHAT, &[], "{}").await;
    assert_eq!(reply.status, 502, "{reply:?}");
    sidecar.counted("failed", "decode_reset", 1).await;
}
