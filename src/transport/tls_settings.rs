//! The operator's choices of TLS, and why they cannot be followed.

use std::path::PathBuf;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or unreadable.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and key do not go together, or are of no known kind.
    #[error("cannot use certificate: {0}")]
    Rustls(#[from] rustls::Error),
    /// The self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
    /// A setting has a value that does not exist.
    #[error("--{flag}: got {value:?}, expected {expected}")]
    Setting {
        /// The flag.
        flag: &'static str,
        /// The value that was given.
        value: String,
        /// The values that would be right.
        expected: &'static str,
    },
}

/// TLS choices of the operator.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// Folder with `tls.crt` and `tls.key`; `None` makes a self-signed certificate.
    pub cert_path: Option<PathBuf>,
    /// `VersionTLS12`, `VersionTLS13`; empty means 1.2 and later.
    pub min_version: String,
    /// Go names of TLS 1.2 cipher suites; empty means all that are safe.
    pub cipher_suites: Vec<String>,
}
