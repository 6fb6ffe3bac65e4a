//! `models-data-source`: fetches the list of models of each endpoint.
//!
//! Use it to see which models the servers say they have. It costs one request for each endpoint in each interval.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::access::Access;
use crate::datalayer::PageSource;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// The row.
pub static TYPE: PluginType = PluginType::new("models-data-source", Stability::Beta, build)
    .about("Fetches the list of models of each endpoint.", "Use it to see which models the servers say they have. It costs one request for each endpoint in each interval.");

/// Largest page, in bytes.
const MAX_PAGE: usize = 1 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// `http` or `https`.
    scheme: String,
    /// Path of the page.
    path: String,
    /// Port of the page, 1 to 65535, the same on every endpoint; the endpoint's own if it is absent.
    port: Option<u16>,
    /// Time between two fetches, as a Go duration; absent, empty and `0s` mean 1 s.
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
            path: "/v1/models".to_owned(),
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
    let or = |given: String, usual: &str| if given.is_empty() { usual.to_owned() } else { given };
    let access = Access {
        scheme: or(params.scheme, "http"),
        path: or(params.path, "/v1/models"),
        port: params.port,
        interval: params.interval,
        insecure_skip_verify: params.insecure_skip_verify,
        ca_cert_path: params.ca_cert_path,
        client_cert_path: params.client_cert_path,
        client_key_path: params.client_key_path,
    };
    let source =
        PageSource { kind: "models-data-source", source: access.check(cx)?, at_node: false, limit: MAX_PAGE };
    Ok(Roles { page_source: Some(source), ..Roles::default() })
}
