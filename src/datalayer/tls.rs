//! TLS towards model servers.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::SourceSpec;

/// Certificate files are looked at again after this long, when a new connection is made.
const RELOAD_AFTER: Duration = Duration::from_secs(10);

/// Files in which systems keep the authorities that they trust. `SSL_CERT_FILE` comes first.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// TLS material that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable, or not PEM of the expected kind.
    #[error("cannot read {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// The reason of the failure.
        reason: String,
    },
    /// Verification is on, no authority is configured, and the system has none.
    #[error("no certificate authorities to verify model servers with; configure caCertPath")]
    NoAuthorities,
    /// Certificate and key do not fit, or the library refuses them.
    #[error("unusable tls material: {0}")]
    Material(#[from] rustls::Error),
}

/// The client side of TLS for one source; picks up changed files.
#[derive(Debug)]
pub(super) struct TlsClient {
    spec: SourceSpec,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ClientConfig>,
    changed: Vec<Option<SystemTime>>,
    checked: Instant,
}

impl TlsClient {
    /// Reads the files that `spec` names.
    pub(super) fn new(spec: &SourceSpec, now: Instant) -> Result<Self, TlsError> {
        let loaded = Loaded { config: build(spec)?, changed: change_times(spec), checked: now };
        Ok(Self { spec: spec.clone(), loaded: Mutex::new(loaded) })
    }

    /// The configuration for a new connection. Files that cannot be used any more leave the former ones in force.
    pub(super) fn config(&self, now: Instant) -> Arc<ClientConfig> {
        let mut loaded = self.loaded.lock();
        if now.saturating_duration_since(loaded.checked) >= RELOAD_AFTER {
            loaded.checked = now;
            let changed = change_times(&self.spec);
            if changed != loaded.changed {
                loaded.changed = changed;
                match build(&self.spec) {
                    Ok(config) => loaded.config = config,
                    Err(error) => tracing::warn!(%error, "scrape certificates changed but cannot be used"),
                }
            }
        }
        Arc::clone(&loaded.config)
    }

    /// The name a server's certificate must carry: its host name if it is known by one, else its address.
    pub(super) fn server_name(address: IpAddr, host: Option<&str>) -> ServerName<'static> {
        let named = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
        named.unwrap_or_else(|| ServerName::IpAddress(address.into()))
    }
}

fn change_times(spec: &SourceSpec) -> Vec<Option<SystemTime>> {
    let client = spec.client_cert.iter().flat_map(|(cert, key)| [cert, key]);
    let files = spec.ca_cert.iter().chain(client);
    files.map(|path| std::fs::metadata(path).and_then(|data| data.modified()).ok()).collect()
}

fn build(spec: &SourceSpec) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if spec.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    } else {
        builder.with_root_certificates(authorities(spec.ca_cert.as_deref())?)
    };
    let mut config = match &spec.client_cert {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
            builder.with_client_auth_cert(certificates(cert)?, key)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn authorities(configured: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = configured {
        for certificate in certificates(path)? {
            roots.add(certificate)?;
        }
        return Ok(roots);
    }
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundles = named.into_iter().chain(SYSTEM_BUNDLES.map(PathBuf::from));
    let Some(bundle) = bundles.into_iter().find(|path| path.exists()) else {
        return Err(TlsError::NoAuthorities);
    };
    // Bundles hold a few oddities that the library refuses; the rest is of use.
    let (accepted, _) = roots.add_parsable_certificates(certificates(&bundle)?);
    if accepted == 0 { Err(TlsError::NoAuthorities) } else { Ok(roots) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| unreadable(path, &error))?;
    if found.is_empty() { Err(unreadable(path, &"no certificate in it")) } else { Ok(found) }
}

fn unreadable(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

/// Accepts whatever a server shows: the default, since pods have self-made certificates. The traffic is encrypted, not
/// authenticated.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
