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

use super::access::Access;
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
    let access = Access {
        scheme: params.scheme,
        path: params.path,
        port: params.port,
        interval: params.interval,
        insecure_skip_verify: params.insecure_skip_verify,
        ca_cert_path: params.ca_cert_path,
        client_cert_path: params.client_cert_path,
        client_key_path: params.client_key_path,
    };
    Ok(Roles { metrics_source: Some(access.check(cx)?), ..Roles::default() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::datalayer::SourceSpec;
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
