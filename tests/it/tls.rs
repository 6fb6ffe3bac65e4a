//! TLS of the ext_proc port and of the metrics port, seen by clients that look at the certificate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{
    EndpointsFile, Pointsman, SCORERS, Stack, chat, config, eventually, holds, lone_request, program, within,
};

/// Takes any certificate, as a proxy does that was given no authority.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that verifies nothing and speaks these versions.
fn trusting(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).unwrap().dangerous();
    let mut config =
        builder.with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Shakes hands with the ext_proc port, as a proxy that verifies nothing does.
pub(crate) async fn shake_hands(addr: SocketAddr) -> TlsStream<TcpStream> {
    connect(addr, trusting(rustls::ALL_VERSIONS)).await.unwrap()
}

async fn connect(addr: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::IpAddress(addr.ip().into());
    let stream = TcpStream::connect(addr).await?;
    within("handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// The certificate that a new connection is shown.
async fn shown(addr: SocketAddr) -> Vec<u8> {
    let stream = connect(addr, trusting(rustls::ALL_VERSIONS)).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        Pair { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }

    /// A client that trusts this authority alone, and shows `identity` if there is one.
    fn client(&self, identity: Option<&Pair>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::Pkcs8(pair.key.serialize_der().into());
                builder.with_client_auth_cert(vec![pair.certificate.der().clone()], key).unwrap()
            }
        }
    }
}

/// A certificate and its key.
struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Pair {
    fn write(&self, folder: &Path) {
        write(folder, "tls.crt", &self.certificate.pem());
        write(folder, "tls.key", &self.key.serialize_pem());
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let next = folder.join("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, folder.join(name)).unwrap();
}

async fn start(flags: &[&str]) -> (EndpointsFile, Pointsman) {
    let endpoints = EndpointsFile::with([]);
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), flags).await;
    (endpoints, pointsman)
}

/// A folder with this pair, and its name.
fn folder_with(pair: &Pair) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    pair.write(folder.path());
    let name = folder.path().to_str().unwrap().to_owned();
    (folder, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_files_envoy_is_served_with_a_certificate_of_our_own() {
    let stack = Stack::start(1).await;
    let reply = stack.client().post("/v1/chat/completions", &chat("in private", 2, false)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    stack.assert_picked(&reply);
    assert!(stack.envoy.stat("cluster.ext_proc.ssl.handshake").await > 0);

    let stream = connect(stack.pointsman.grpc, trusting(rustls::ALL_VERSIONS)).await.unwrap();
    let session = stream.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let certificates = session.peer_certificates().unwrap();
    assert_eq!(certificates.len(), 1);
    let again = connect(stack.pointsman.grpc, trusting(rustls::ALL_VERSIONS)).await.unwrap();
    assert_eq!(again.get_ref().1.peer_certificates(), Some(certificates), "one certificate for a whole run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_certificate_is_served_and_can_be_verified() {
    let authority = Authority::new();
    let (_folder, path) = folder_with(&authority.sign());
    let (_endpoints, pointsman) = start(&["--cert-path", &path]).await;
    assert!(connect(pointsman.grpc, authority.client(None)).await.is_ok());
    assert!(connect(pointsman.grpc, Authority::new().client(None)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_files_are_served_and_a_broken_pair_changes_nothing() {
    let authority = Authority::new();
    let (first, second, third) = (authority.sign(), authority.sign(), authority.sign());
    let (folder, path) = folder_with(&first);
    let (_endpoints, mut pointsman) = start(&["--cert-path", &path, "--enable-cert-reload"]).await;
    assert_eq!(shown(pointsman.grpc).await, first.certificate.der().to_vec());
    let kept = connect(pointsman.grpc, authority.client(None)).await.unwrap();

    second.write(folder.path());
    holds("the renewed certificate is shown", async || {
        shown(pointsman.grpc).await == second.certificate.der().to_vec()
    })
    .await;

    // The certificate of one pair with the key of another: half of a renewal.
    write(folder.path(), "tls.crt", &third.certificate.pem());
    eventually("the log says that the pair cannot be used", async || {
        let log = pointsman.process.log();
        log.iter().any(|line| line.contains("certificate not renewed")).then_some(())
    })
    .await;
    assert_eq!(shown(pointsman.grpc).await, second.certificate.der().to_vec());

    write(folder.path(), "tls.key", &third.key.serialize_pem());
    holds("the completed renewal is shown", async || {
        shown(pointsman.grpc).await == third.certificate.der().to_vec()
    })
    .await;
    assert!(pointsman.process.runs());
    drop(kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_version_can_be_raised() {
    let old = || trusting(&[&rustls::version::TLS12]);
    let (_endpoints, pointsman) = start(&[]).await;
    let stream = connect(pointsman.grpc, old()).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));

    let (_endpoints, pointsman) = start(&["--tls-min-version", "VersionTLS13"]).await;
    assert!(connect(pointsman.grpc, old()).await.is_err());
    let stream = connect(pointsman.grpc, trusting(rustls::ALL_VERSIONS)).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

#[tokio::test(flavor = "multi_thread")]
async fn cipher_suites_can_be_chosen_by_their_go_names() {
    let suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let (_endpoints, pointsman) = start(&["--tls-cipher-suites", suite]).await;
    let stream = connect(pointsman.grpc, trusting(&[&rustls::version::TLS12])).await.unwrap();
    let chosen = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(chosen.as_str(), Some(suite));
}

#[test]
fn tls_settings_that_cannot_be_used_end_the_start_before_anything_listens() {
    let endpoints = EndpointsFile::with([]);
    let text = config(&endpoints.path(), SCORERS);
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_str().unwrap();
    for (flags, expected) in [
        (["--tls-min-version", "VersionTLS14"], "tls-min-version"),
        (["--tls-cipher-suites", "TLS_RSA_WITH_RC4_128_SHA"], "tls-cipher-suites"),
        (["--cert-path", folder], "tls.crt"),
        (["--metrics-cert-dir", folder], "tls.crt"),
    ] {
        let mut command = Command::new(program());
        command.args(["--bind-address", "127.0.0.1", "--grpc-port", "0", "--grpc-health-port", "0"]);
        command.args(["--metrics-port", "0", "--tracing=false", "--config-text", &text]).args(flags);
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success(), "{flags:?}: {said}");
        assert!(said.contains(expected), "{flags:?}: {said}");
        assert!(!said.contains("listening"), "{flags:?}: {said}");
    }
}

/// GET over TLS, as a scraper does it.
async fn scrape(addr: SocketAddr, config: ClientConfig) -> anyhow::Result<(u16, String)> {
    let stream = connect(addr, config).await?;
    within("metrics over TLS", async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get("/metrics").header("host", "metrics").body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let page = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8(page.to_vec())?))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_served_over_tls_with_a_given_certificate_and_not_in_the_clear() {
    let authority = Authority::new();
    let (folder, path) = folder_with(&authority.sign());
    let (_endpoints, pointsman) = start(&["--metrics-cert-dir", &path]).await;
    let (status, page) = scrape(pointsman.metrics, authority.client(None)).await.unwrap();
    assert_eq!(status, 200);
    assert!(page.contains("llm_d_epp_info"), "{page}");
    let plain =
        lone_request(pointsman.metrics, b"GET /metrics HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n")
            .await;
    assert!(!plain.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&plain));

    // Renewed by another authority, as when a mounted secret changes.
    let renewed = Authority::new();
    renewed.sign().write(folder.path());
    holds("the renewed certificate is shown", async || {
        scrape(pointsman.metrics, renewed.client(None)).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_clients_of_the_named_authority_alone() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (folder, path) = folder_with(&authority.sign());
    write(folder.path(), "clients.crt", &clients.0.pem());
    let clients_file = folder.path().join("clients.crt");
    let flags = ["--metrics-cert-dir", &path, "--metrics-client-ca-file", clients_file.to_str().unwrap()];
    let (_endpoints, pointsman) = start(&flags).await;
    let (status, _) = scrape(pointsman.metrics, authority.client(Some(&clients.sign()))).await.unwrap();
    assert_eq!(status, 200);
    assert!(scrape(pointsman.metrics, authority.client(None)).await.is_err(), "no certificate");
    let stranger = Authority::new().sign();
    assert!(scrape(pointsman.metrics, authority.client(Some(&stranger))).await.is_err(), "a stranger's");
}
