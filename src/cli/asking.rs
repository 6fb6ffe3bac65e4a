//! Requests to the metrics port of a running picker, for commands.

use std::future::Future;
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
use serde_json::Value;
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
    #[command(flatten)]
    pub(super) caller: CallerArgs,
}

/// Who asks, and whom they trust.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct CallerArgs {
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
    /// A caller without a name, who takes any certificate.
    pub(super) fn anonymous(url: String) -> Self {
        Self { url, caller: CallerArgs { insecure_skip_tls_verify: true, ..CallerArgs::default() } }
    }

    /// Asks for a page.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.get_at_most(path, LARGEST).await
    }

    /// Asks for a page, and reads at most so many bytes of it; a longer one is an error.
    pub(super) async fn get_at_most(&self, path: &str, largest: usize) -> anyhow::Result<Answer> {
        self.timed(self.exchange(Method::GET, path, Bytes::new(), largest)).await
    }

    /// Asks for a page of JSON; `None` if there is none.
    pub(super) async fn document(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let answer = self.get(path).await?;
        match answer.status {
            200 => {
                serde_json::from_slice(&answer.body).map(Some).with_context(|| format!("{path} is no JSON"))
            }
            404 => Ok(None),
            status => bail!("{path} was answered with {status}"),
        }
    }

    /// Sends `body`, and returns the answer.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        self.timed(self.exchange(method, path, body, LARGEST)).await
    }

    async fn timed(&self, exchange: impl Future<Output = anyhow::Result<Answer>>) -> anyhow::Result<Answer> {
        let asked = timeout(PATIENCE, exchange).await;
        asked.with_context(|| format!("{} did not answer within {PATIENCE:?}", self.url))?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        largest: usize,
    ) -> anyhow::Result<Answer> {
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
        if let Some(file) = &self.caller.token_file {
            let token =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            request = request.header("authorization", format!("Bearer {}", token.trim()));
        }
        let request = request.body(Full::new(body)).context("the request cannot be written")?;
        let socket =
            TcpStream::connect((host, port)).await.with_context(|| format!("cannot reach {}", self.url))?;
        match scheme {
            "http" => send(socket, request, largest).await,
            "https" => {
                let name = ServerName::try_from(host.to_owned()).context("--url: not a host name")?;
                let tls = tokio_rustls::TlsConnector::from(Arc::new(self.caller.tls()?));
                send(tls.connect(name, socket).await.context("no TLS connection")?, request, largest).await
            }
            other => bail!("--url: got the scheme {other:?}, expected http or https"),
        }
    }
}

impl CallerArgs {
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
    largest: usize,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let Ok(body) = Limited::new(body, largest).collect().await else {
            bail!("the answer broke off, or is longer than {largest} bytes");
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn no_more_of_an_answer_is_read_than_the_caller_takes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}", "a".repeat(1000));
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let ask = AskArgs::anonymous(url);
        assert_eq!(ask.get_at_most("/", 1000).await.unwrap().body.len(), 1000);
        let error = ask.get_at_most("/", 999).await.unwrap_err().to_string();
        assert!(error.contains("longer than 999 bytes"), "{error}");
        assert!(ask.document("/").await.unwrap_err().to_string().contains("no JSON"));
    }
}
