//! TLS for connections to other servers. Servers are verified with the certificate authorities of the system, which are
//! read again when they change, or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::tls_settings::TlsError;

/// The files in which systems keep the certificate authorities that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities are read again when a connection is made and the last reading is older than this.
const RELOAD_AFTER: Duration = Duration::from_secs(10);

/// The most files that are read from a folder of authorities.
const MOST_FILES: usize = 4096;

/// Makes the TLS configuration of clients.
#[derive(Debug)]
pub struct ClientTls;

impl ClientTls {
    /// Makes a configuration for TLS 1.2 and later that offers HTTP/2 and HTTP/1.1. Servers are verified with the
    /// authorities of the file in `SSL_CERT_FILE` and of the folders in `SSL_CERT_DIR`. If neither is set, the
    /// authorities of the system are used. With `skip_verify` servers are not verified.
    ///
    /// # Errors
    ///
    /// Fails if no authority can be read and servers are to be verified.
    pub fn load(skip_verify: bool) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = if skip_verify {
            Arc::new(Unverified(Arc::clone(&provider)))
        } else {
            Arc::new(Authorities::load(Sources::of_environment(), Arc::clone(&provider))?)
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Files of the client's side of TLS towards one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Authorities that the server's certificate comes from; `None` for those of the system.
    pub authorities: Option<PathBuf>,
    /// Certificate and key that the client shows.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ClientFiles {
    /// TLS 1.2 and later, from the files as they are now.
    pub fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let sources = match &self.authorities {
            Some(path) => Sources { files: vec![path.clone()], folders: Vec::new() },
            None => Sources::of_environment(),
        };
        let (roots, _) = sources.read();
        if let (true, Some(path)) = (roots.is_empty(), &self.authorities) {
            let message = format!("{}: no certificate", path.display());
            return Err(TlsError::Rustls(rustls::Error::General(message)));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let Some((certificates, key)) = &self.identity else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let chain = CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| TlsError::Read { path: certificates.clone(), source })?;
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|source| TlsError::Read { path: key.clone(), source })?;
        Ok(Arc::new(builder.with_client_auth_cert(chain, key)?))
    }
}

/// The files and folders that the authorities are read from.
#[derive(Clone, Debug)]
struct Sources {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Sources {
    fn of_environment() -> Self {
        let named: Vec<PathBuf> = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from).into_iter().collect();
        let folders: Vec<PathBuf> = std::env::var_os("SSL_CERT_DIR")
            .map(|list| std::env::split_paths(&list).filter(|path| path.is_dir()).collect())
            .unwrap_or_default();
        let files = if named.is_empty() && folders.is_empty() {
            BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()).into_iter().collect()
        } else {
            named
        };
        Self { files, folders }
    }

    fn read(&self) -> (RootCertStore, Vec<Option<SystemTime>>) {
        let mut roots = RootCertStore::empty();
        let mut times = Vec::new();
        let inside = self.folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
        let inside =
            inside.flatten().take(MOST_FILES).filter_map(|entry| entry.ok().map(|entry| entry.path()));
        for path in self.files.iter().cloned().chain(inside) {
            times.push(changed(&path));
            let certificates =
                CertificateDer::pem_file_iter(&path).map(|list| list.flatten().collect::<Vec<_>>());
            roots.add_parsable_certificates(certificates.unwrap_or_default());
        }
        (roots, times)
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|data| data.modified()).ok()
}

/// Verifies servers with authorities whose files may change.
#[derive(Debug)]
struct Authorities {
    sources: Sources,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<WebPkiServerVerifier>,
    seen: Mutex<(Instant, Vec<Option<SystemTime>>)>,
}

impl Authorities {
    fn load(sources: Sources, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let (roots, times) = sources.read();
        let current = ArcSwap::new(verifier(roots, &provider)?);
        Ok(Self { sources, provider, current, seen: Mutex::new((Instant::now(), times)) })
    }

    fn current(&self) -> Arc<WebPkiServerVerifier> {
        let mut seen = self.seen.lock();
        if seen.0.elapsed() >= RELOAD_AFTER {
            let (roots, times) = self.sources.read();
            if times != seen.1 {
                match verifier(roots, &self.provider) {
                    Ok(verifier) => self.current.store(verifier),
                    Err(error) => tracing::warn!(%error, "authorities changed but cannot be used"),
                }
            }
            *seen = (Instant::now(), times);
        }
        self.current.load_full()
    }
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

impl ServerCertVerifier for Authorities {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.current().verify_server_cert(certificate, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts every certificate. The traffic is encrypted, but the server is not authenticated.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
