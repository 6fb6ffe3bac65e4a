//! `metrics-data-source`: fetches the metrics page of each endpoint.
//!
//! | parameter | default | meaning |
//! |---|---|---|
//! | `scheme` | `http` | `http` or `https` |
//! | `path` | `/metrics` | path of the page |
//! | `port` | the endpoint's | port of the page, 1 to 65535, the same on every endpoint |
//! | `interval` | the process's | time between two fetches, as a Go duration; `0s` and empty mean the default |
//! | `insecureSkipVerify` | `true` | with `https`: accept any certificate |
//! | `caCertPath` | the system's | with `https` and verification: authorities to trust (PEM) |
//! | `clientCertPath`, `clientKeyPath` | none | with `https`: the certificate to show and its key (PEM); both or neither |

use std::path::PathBuf;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::datalayer::SourceSpec;
use crate::document::scalar::go_duration;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// The row.
pub static TYPE: PluginType = PluginType::new("metrics-data-source", Stability::Beta, build).about(
    "Fetches the metrics page of each endpoint.",
    "Use it where the pages have another path, port, interval or certificate than usual. It costs one \
         request to each endpoint in each interval.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// `http` or `https`.
    scheme: String,
    /// Path of the page.
    path: String,
    /// Port of the page, 1 to 65535, the same on every endpoint; the endpoint's own if it is absent.
    port: Option<u16>,
    /// Time between two fetches, as a Go duration; absent, empty and `0s` mean that of the flag
    /// `--refresh-metrics-interval`.
    interval: String,
    /// With `https`: accept any certificate.
    insecure_skip_verify: bool,
    /// With `https` and verification: file of the authorities to trust (PEM); the system's if it is absent.
    ca_cert_path: PathBuf,
    /// With `https`: file of the certificate to show (PEM); needs `clientKeyPath`.
    client_cert_path: PathBuf,
    /// With `https`: file of its key (PEM); needs `clientCertPath`.
    client_key_path: PathBuf,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            scheme: "http".to_owned(),
            path: "/metrics".to_owned(),
            port: None,
            interval: String::new(),
            insecure_skip_verify: true,
            ca_cert_path: PathBuf::new(),
            client_cert_path: PathBuf::new(),
            client_key_path: PathBuf::new(),
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
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
        (Some(_), None) => return Err(BuildError::at("clientCertPath", "needs `clientKeyPath` beside it")),
        (None, Some(_)) => return Err(BuildError::at("clientKeyPath", "needs `clientCertPath` beside it")),
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
    let source = SourceSpec {
        https,
        path,
        port: params.port,
        insecure_skip_verify: params.insecure_skip_verify,
        ca_cert,
        client_cert,
        interval,
    };
    Ok(Roles { metrics_source: Some(source), ..Roles::default() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::metrics::Metrics;

    fn source(params: &Value) -> Result<(SourceSpec, Vec<String>), BuildError> {
        let (metrics, mut columns) = (Arc::new(Metrics::new()), Vec::new());
        let mut cx = BuildCx::new("s", Some(params), &metrics, &mut columns, 0);
        build(&mut cx).map(|roles| (roles.metrics_source.unwrap(), cx.warnings))
    }

    #[test]
    fn without_parameters_the_endpoints_own_plain_page_is_read() {
        assert_eq!(source(&json!({})).unwrap(), (SourceSpec::default(), vec![]));
    }

    #[test]
    fn every_parameter_arrives() {
        let params = json!({
            "scheme": "https", "path": "m", "port": 9100, "interval": "1500ms", "insecureSkipVerify": false,
            "caCertPath": "/ca", "clientCertPath": "/c", "clientKeyPath": "/k",
        });
        let expected = SourceSpec {
            https: true,
            path: "/m".into(),
            port: Some(9100),
            insecure_skip_verify: false,
            ca_cert: Some("/ca".into()),
            client_cert: Some(("/c".into(), "/k".into())),
            interval: Some(Duration::from_millis(1500)),
        };
        assert_eq!(source(&params).unwrap(), (expected, vec![]));
    }

    #[test]
    fn faults_name_their_parameter() {
        let cases = [
            (json!({"scheme": "ftp"}), "scheme"),
            (json!({"port": 0}), "port"),
            (json!({"port": 70000}), "port"),
            (json!({"interval": "1"}), "interval"),
            (json!({"interval": "-1s"}), "interval"),
            (json!({"clientCertPath": "/c"}), "clientCertPath"),
            (json!({"clientKeyPath": "/k"}), "clientKeyPath"),
            (json!({"path": "/a b"}), "path"),
            (json!({"prot": 1}), "prot"),
        ];
        for (params, path) in cases {
            assert_eq!(source(&params).unwrap_err().path, path);
        }
    }

    #[test]
    fn certificates_that_nobody_looks_at_are_a_warning() {
        assert_eq!(source(&json!({"caCertPath": "/ca"})).unwrap().1.len(), 1);
        assert_eq!(source(&json!({"scheme": "https", "caCertPath": "/ca"})).unwrap().1.len(), 1);
    }
}
