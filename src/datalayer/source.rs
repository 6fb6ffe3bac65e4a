//! The source of metrics pages.

use std::path::PathBuf;
use std::time::Duration;

/// Parameters of a `metrics-data-source`, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    /// True for `https`.
    pub https: bool,
    /// Path of the page, with a leading slash.
    pub path: String,
    /// Port that replaces the endpoint's own.
    pub port: Option<u16>,
    /// With `https`: accept any certificate.
    pub insecure_skip_verify: bool,
    /// With `https` and verification: PEM file of the authorities to trust.
    pub ca_cert: Option<PathBuf>,
    /// With `https`: PEM files of the client certificate and its key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Time between scrapes; `None` follows `--refresh-metrics-interval`.
    pub interval: Option<Duration>,
}

impl Default for SourceSpec {
    fn default() -> Self {
        Self {
            https: false,
            path: "/metrics".to_owned(),
            port: None,
            insecure_skip_verify: true,
            ca_cert: None,
            client_cert: None,
            interval: None,
        }
    }
}
