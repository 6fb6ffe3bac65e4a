//! Requests to the metrics port of a running picker, for commands.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for a whole answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Largest answer that is read.
const LARGEST: usize = 256 << 20;

/// Where the picker is, and how it is asked.
#[derive(Args, Clone, Debug)]
pub(super) struct AskArgs {
    /// Address of the picker's metrics port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090", env = "POINTSMAN_URL")]
    pub(super) url: String,
    /// File with a bearer token for the metrics port
    #[arg(long, value_name = "PATH")]
    pub(super) token_file: Option<PathBuf>,
    /// File with the authorities that the picker's certificate must come from
    #[arg(long, value_name = "PATH")]
    pub(super) ca_file: Option<PathBuf>,
    /// Take any certificate of the picker
    #[arg(long)]
    pub(super) insecure_skip_tls_verify: bool,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: Bytes,
}

impl AskArgs {
    /// Asks for a page.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Sends `body`, and returns the answer.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        let asked = timeout(PATIENCE, self.exchange(method, path, body)).await;
        asked.with_context(|| format!("{} did not answer within {PATIENCE:?}", self.url))?
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        let base: Uri = self
            .url
            .parse()
            .with_context(|| format!("--url: got {:?}, expected http://HOST:PORT", self.url))?;
        let (Some(host), Some(scheme)) = (base.host(), base.scheme_str()) else {
            bail!("--url: got {:?}, expected http://HOST:PORT", self.url);
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = base.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", base.path().trim_end_matches('/')))
            .header("host", base.authority().map_or(host, |authority| authority.as_str()))
            .header("content-type", "application/json");
        if let Some(file) = &self.token_file {
            let token =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            request = request.header("authorization", format!("Bearer {}", token.trim()));
        }
        let request = request.body(Full::new(body)).context("the request cannot be written")?;
        let socket =
            TcpStream::connect((host, port)).await.with_context(|| format!("cannot reach {}", self.url))?;
        match scheme {
            "http" => send(socket, request).await,
            "https" => {
                let name = ServerName::try_from(host.to_owned()).context("--url: not a host name")?;
                let tls = tokio_rustls::TlsConnector::from(Arc::new(self.tls()?));
                send(tls.connect(name, socket).await.context("no TLS connection")?, request).await
            }
            other => bail!("--url: got the scheme {other:?}, expected http or https"),
        }
    }

    fn tls(&self) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("no TLS versions")?;
        if self.insecure_skip_tls_verify {
            let any = Arc::new(AnyServer(provider));
            return Ok(config.dangerous().with_custom_certificate_verifier(any).with_no_client_auth());
        }
        let Some(file) = &self.ca_file else {
            bail!("https needs --ca-file, or --insecure-skip-tls-verify");
        };
        Ok(config.with_root_certificates(authorities(file)?).with_no_client_auth())
    }
}

fn authorities(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(file).with_context(|| format!("cannot read {}", file.display()))?;
    for certificate in certificates {
        roots.add(certificate.with_context(|| format!("{} is no PEM file", file.display()))?)?;
    }
    Ok(roots)
}

async fn send(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let Ok(body) = Limited::new(body, LARGEST).collect().await else {
            bail!("the answer broke off, or is longer than {LARGEST} bytes");
        };
        Ok(Answer { status: head.status.as_u16(), body: body.to_bytes() })
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The rest of an answer may lie in buffers when the connection has ended.
        _ = connection => exchange.await,
    }
}

/// Takes every certificate, as the operator asked for.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
