//! How a source asks for pages: what all of them can be told.

use std::path::PathBuf;

use crate::datalayer::SourceSpec;
use crate::document::scalar::go_duration;
use crate::plugins::{BuildCx, BuildError};

/// The parameters that sources of pages share, as given.
#[derive(Debug)]
pub(super) struct Access {
    /// `http`, `https`, or empty for `http`.
    pub(super) scheme: String,
    pub(super) path: String,
    pub(super) port: Option<u16>,
    /// A Go duration, or empty.
    pub(super) interval: String,
    pub(super) insecure_skip_verify: bool,
    pub(super) ca_cert_path: PathBuf,
    pub(super) client_cert_path: PathBuf,
    pub(super) client_key_path: PathBuf,
}

impl Access {
    /// Checks them.
    pub(super) fn check(self, cx: &mut BuildCx<'_>) -> Result<SourceSpec, BuildError> {
        let params = self;
        let https = match params.scheme.as_str() {
            "http" | "" => false,
            "https" => true,
            other => {
                let message = format!("got \"{other}\", expected \"http\" or \"https\"");
                return Err(BuildError::at("scheme", message));
            }
        };
        if params.port == Some(0) {
            return Err(BuildError::at("port", "got 0, expected a port from 1 to 65535"));
        }
        let interval = match params.interval.as_str() {
            "" => None,
            text => {
                let interval = go_duration(text).map_err(|message| BuildError::at("interval", message))?;
                Some(interval).filter(|interval| !interval.is_zero())
            }
        };
        let given = |path: PathBuf| Some(path).filter(|path| !path.as_os_str().is_empty());
        let ca_cert = given(params.ca_cert_path);
        let client_cert = match (given(params.client_cert_path), given(params.client_key_path)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(BuildError::at("clientCertPath", "needs `clientKeyPath` beside it"));
            }
            (None, Some(_)) => {
                return Err(BuildError::at("clientKeyPath", "needs `clientCertPath` beside it"));
            }
        };
        if !https && (ca_cert.is_some() || client_cert.is_some()) {
            cx.warn("certificates have no effect with scheme \"http\"");
        } else if ca_cert.is_some() && params.insecure_skip_verify {
            cx.warn("`caCertPath` has no effect unless `insecureSkipVerify` is false");
        }
        let path = match params.path {
            path if path.starts_with('/') => path,
            path => format!("/{path}"),
        };
        if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(BuildError::at("path", "holds blanks or control characters"));
        }
        Ok(SourceSpec {
            https,
            path,
            port: params.port,
            insecure_skip_verify: params.insecure_skip_verify,
            ca_cert,
            client_cert,
            interval,
        })
    }
}
