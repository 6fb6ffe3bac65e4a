//! Scraping over TLS: unverified by default, verified on demand, with a client certificate where asked.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pointsman::datalayer::{DataLayer, Settings, SourceSpec};
use pointsman::pool::Pool;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::server::{Accept, Harness, Server, at_once, page, unfiltered, vllm};

struct Tls(TlsAcceptor);

impl Accept for Tls {
    type Stream = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

    async fn accept(&self, stream: tokio::net::TcpStream) -> std::io::Result<Self::Stream> {
        self.0.accept(stream).await
    }
}

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for 127.0.0.1 and its key.
    fn sign(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Arc::new(roots)
    }
}

async fn serve(authority: &Authority, demand_client_certificate: bool) -> Server {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if demand_client_certificate {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(authority.roots(), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let (certificate, key) = authority.sign();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    Server::start_with(Tls(TlsAcceptor::from(Arc::new(config))), at_once(|_| page(&vllm(5)))).await
}

fn https(source: SourceSpec) -> Settings {
    Settings { source: SourceSpec { https: true, ..source }, ..unfiltered() }
}

async fn reads(settings: Settings, server: &Server) {
    let mut harness = Harness::start(settings, &[server.address]);
    harness.pages("e0", 3).await;
    assert_eq!(harness.load(0).waiting(), 5);
    assert!(server.seen.borrow().iter().all(|request| request.connection == 0), "the session is kept");
}

#[tokio::test]
async fn any_certificate_will_do_by_default() {
    let server = serve(&Authority::new(), false).await;
    reads(https(SourceSpec::default()), &server).await;
}

#[tokio::test]
async fn a_certificate_of_the_configured_authority_is_accepted() {
    let authority = Authority::new();
    let server = serve(&authority, false).await;
    let folder = tempfile::tempdir().unwrap();
    reads(https(verifying(&authority, folder.path())), &server).await;
}

fn verifying(authority: &Authority, folder: &Path) -> SourceSpec {
    let file = folder.join("ca.pem");
    std::fs::write(&file, authority.0.pem()).unwrap();
    SourceSpec { insecure_skip_verify: false, ca_cert: Some(file), ..SourceSpec::default() }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let server = serve(&Authority::new(), false).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = https(verifying(&Authority::new(), folder.path()));
    let mut harness = Harness::start(settings, &[server.address]);
    harness.poll_error("cannot connect: invalid peer certificate").await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let authority = Authority::new();
    let server = serve(&authority, true).await;
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.sign();
    let files = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&files.0, certificate.pem()).unwrap();
    std::fs::write(&files.1, key.serialize_pem()).unwrap();
    let with = SourceSpec { client_cert: Some(files), ..SourceSpec::default() };
    reads(https(with), &server).await;
    let mut without = Harness::start(https(SourceSpec::default()), &[server.address]);
    without.until(|told| !told.is_empty()).await;
    assert_eq!(without.poll_errors().len(), without.told.borrow().len(), "no page without a certificate");
}

#[test]
fn unusable_files_are_a_start_up_error_that_names_them() {
    let pool = Arc::new(Pool::new("ns", "pool", Instant::now()));
    let source = SourceSpec {
        insecure_skip_verify: false,
        ca_cert: Some("/no/such/ca.pem".into()),
        ..SourceSpec::default()
    };
    let error = DataLayer::new(pool, https(source), Arc::new(())).unwrap_err();
    assert!(error.to_string().contains("/no/such/ca.pem"), "{error}");
}
