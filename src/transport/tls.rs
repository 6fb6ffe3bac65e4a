//! The TLS configuration of each kind of port.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

use super::certificate::{Identity, Renewal};
use super::tls_settings::{TlsError, TlsSettings};

/// The TLS configuration of one port, with the renewal of its certificate.
pub struct Tls {
    config: Arc<ServerConfig>,
    renewal: Option<Renewal>,
}

impl Tls {
    /// Makes the TLS of a gRPC port: HTTP/2 by ALPN, and no client certificates. With `reload`, the certificate files
    /// are read again when they change.
    ///
    /// # Errors
    ///
    /// Fails if the certificate cannot be read or used, or if a TLS setting has an unknown value.
    pub fn grpc(settings: &TlsSettings, reload: bool) -> Result<Self, TlsError> {
        let identity = Identity::load(settings)?;
        let config = grpc_config(settings, Arc::clone(&identity))?;
        let folder = settings.cert_path.clone().filter(|_| reload);
        Ok(Self { config, renewal: folder.map(|folder| Renewal { folder, identity }) })
    }

    /// Makes the TLS of an HTTP port: TLS 1.2 and later, with the certificate in `folder`. The certificate files are
    /// read again when they change. If `client_ca` names a file of authorities, clients must show a certificate of one
    /// of them.
    pub fn pages(folder: &Path, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let folder = folder.to_owned();
        let identity =
            Identity::load(&TlsSettings { cert_path: Some(folder.clone()), ..TlsSettings::default() })?;
        let config = pages_config(Arc::clone(&identity), client_ca)?;
        Ok(Self { config, renewal: Some(Renewal { folder, identity }) })
    }

    /// Makes a TLS configuration whose certificate is renewed.
    pub(super) fn renewed(config: Arc<ServerConfig>, renewal: Renewal) -> Self {
        Self { config, renewal: Some(renewal) }
    }

    /// Makes the TLS of a proxy's port, which offers HTTP/2 and HTTP/1.1. The certificate is read from `folder`, and
    /// again when its files change. Without a folder it is self-signed.
    pub fn proxy(folder: Option<&Path>) -> Result<Self, TlsError> {
        let settings = TlsSettings { cert_path: folder.map(Path::to_owned), ..TlsSettings::default() };
        let identity = Identity::load(&settings)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&identity) as Arc<_>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let renewal = settings.cert_path.map(|folder| Renewal { folder, identity });
        Ok(Self { config: Arc::new(config), renewal })
    }

    pub(super) fn into_parts(self) -> (TlsAcceptor, Option<Renewal>) {
        (TlsAcceptor::from(self.config), self.renewal)
    }
}

impl From<Arc<ServerConfig>> for Tls {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { config, renewal: None }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("renewal", &self.renewal).finish_non_exhaustive()
    }
}

fn grpc_config(settings: &TlsSettings, identity: Arc<Identity>) -> Result<Arc<ServerConfig>, TlsError> {
    let provider =
        CryptoProvider { cipher_suites: suites(&settings.cipher_suites)?, ..aws_lc_rs::default_provider() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions(&settings.min_version)?)?
        .with_no_client_auth()
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn pages_config(identity: Arc<Identity>, client_ca: Option<&Path>) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let read = |source| TlsError::Read { path: file.to_owned(), source };
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(file).map_err(read)? {
                roots.add(certificate.map_err(read)?)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| TlsError::Rustls(rustls::Error::General(error.to_string())))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    Ok(Arc::new(builder.with_cert_resolver(identity)))
}

/// The protocol versions from `min` on. The names of TLS 1.0 and 1.1 are accepted, but the oldest version that is
/// spoken is 1.2.
fn versions(min: &str) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    match min {
        "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => Ok(rustls::ALL_VERSIONS.to_vec()),
        "VersionTLS13" => Ok(vec![&rustls::version::TLS13]),
        _ => Err(TlsError::Setting {
            flag: "tls-min-version",
            value: min.to_owned(),
            expected: "VersionTLS10, VersionTLS11, VersionTLS12 or VersionTLS13",
        }),
    }
}

/// The cipher suites with these Go names. The suites of TLS 1.3 are always on, as in Go.
fn suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    if names.is_empty() {
        return Ok(aws_lc_rs::DEFAULT_CIPHER_SUITES.to_vec());
    }
    let mut suites = vec![
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    for name in names {
        suites.push(match name.as_str() {
            "TLS_AES_128_GCM_SHA256" | "TLS_AES_256_GCM_SHA384" | "TLS_CHACHA20_POLY1305_SHA256" => continue,
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => {
                cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            }
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => {
                cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
            }
            _ => {
                return Err(TlsError::Setting {
                    flag: "tls-cipher-suites",
                    value: name.clone(),
                    expected: "a TLS 1.3 suite or TLS_ECDHE_{ECDSA,RSA}_WITH_{AES_128_GCM_SHA256,AES_256_GCM_SHA384,CHACHA20_POLY1305_SHA256}",
                });
            }
        });
    }
    Ok(suites)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_identity_needs_no_files() {
        let settings = TlsSettings::default();
        let identity = Identity::load(&settings).unwrap();
        assert_eq!(grpc_config(&settings, identity).unwrap().alpn_protocols, [b"h2"]);
    }

    #[test]
    fn an_unknown_suite_or_version_is_named() {
        let text = suites(&["TLS_RSA_WITH_RC4_128_SHA".to_owned()]).unwrap_err().to_string();
        assert!(text.contains("tls-cipher-suites") && text.contains("RC4"), "{text}");
        assert!(versions("TLS13").unwrap_err().to_string().contains("VersionTLS13"));
    }
}
