//! The TLS settings of the operator, and the errors that they can cause.

use std::path::PathBuf;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and the key do not belong together, or are of an unknown kind.
    #[error("cannot use certificate: {0}")]
    Rustls(#[from] rustls::Error),
    /// The self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
    /// A setting has an unknown value.
    #[error("--{flag}: got {value:?}, expected {expected}")]
    Setting {
        /// The name of the flag, without dashes.
        flag: &'static str,
        /// The value that was given.
        value: String,
        /// The values that are allowed.
        expected: &'static str,
    },
}

/// The TLS settings of a port.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// The folder with `tls.crt` and `tls.key`. `None` makes a self-signed certificate.
    pub cert_path: Option<PathBuf>,
    /// The oldest version: `VersionTLS12` or `VersionTLS13`. Empty means 1.2.
    pub min_version: String,
    /// The Go names of the TLS 1.2 cipher suites. Empty means all safe suites.
    pub cipher_suites: Vec<String>,
}
