//! `file-discovery`: endpoints, objectives and model rewrites from one file.
//!
//! | parameter | default | meaning |
//! |---|---|---|
//! | `path` | required | the file, YAML or JSON |
//! | `watchFile` | `false` | load it again when it changes |
//!
//! `multicluster-file-discovery` (alpha) takes clusters as endpoints: their labels `metricsAddress` (an IP address or a
//! host name) and `metricsPort` say where the metrics of one are, which are the serving address and port without them.

use std::path::PathBuf;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::plugins::roles::FileDiscoverySpec;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// The row.
pub static TYPE: PluginType = PluginType::new("file-discovery", Stability::Beta, build)
    .about(
        "Takes endpoints, objectives and model rewrites from one file.",
        "Use it without Kubernetes, or for tests. It costs one watch of the file's folder.",
    )
    .with_example("path: endpoints.yaml");

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// The endpoints file, YAML or JSON; required.
    path: PathBuf,
    /// Load it again when it changes.
    watch_file: bool,
}

/// The row of the same for clusters.
pub static MULTICLUSTER: PluginType =
    PluginType::new("multicluster-file-discovery", Stability::Alpha, build_clusters)
        .about(
            "Takes clusters as endpoints from one file, and from their labels where their metrics are.",
            "Use it where endpoints are gateways of clusters, whose labels `metricsAddress` and `metricsPort` name \
             the place of the metrics of each. It costs one watch of the file's folder, and a lookup of each host \
             name every 10 s.",
        )
        .with_example("path: clusters.yaml");

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    build_as(cx, false)
}

fn build_clusters(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    build_as(cx, true)
}

fn build_as(cx: &mut BuildCx<'_>, clusters: bool) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    if params.path.as_os_str().is_empty() {
        return Err(BuildError::at("path", "is required: the file that lists the endpoints"));
    }
    let discovery = FileDiscoverySpec { path: params.path, watch: params.watch_file, clusters };
    Ok(Roles { discovery: Some(discovery), ..Roles::default() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::metrics::Metrics;

    fn spec(params: Option<&Value>) -> Result<FileDiscoverySpec, BuildError> {
        let (metrics, mut columns) = (Arc::new(Metrics::new()), Vec::new());
        build(&mut BuildCx::new("d", params, &metrics, &mut columns, 0)).map(|roles| roles.discovery.unwrap())
    }

    #[test]
    fn a_path_is_required() {
        assert_eq!(spec(None).unwrap_err().path, "path");
    }

    #[test]
    fn the_endpoints_of_the_multicluster_type_are_clusters() {
        let (metrics, mut columns) = (Arc::new(Metrics::new()), Vec::new());
        let params = json!({"path": "/c.yaml"});
        let mut cx = BuildCx::new("d", Some(&params), &metrics, &mut columns, 0);
        let spec = build_clusters(&mut cx).unwrap().discovery.unwrap();
        assert_eq!(spec, FileDiscoverySpec { path: PathBuf::from("/c.yaml"), watch: false, clusters: true });
    }

    #[test]
    fn the_file_is_watched_on_request_only() {
        let path = PathBuf::from("/e.yaml");
        assert!(!spec(Some(&json!({"path": "/e.yaml"}))).unwrap().watch);
        let watched = spec(Some(&json!({"path": "/e.yaml", "watchFile": true}))).unwrap();
        assert_eq!(watched, FileDiscoverySpec { path, watch: true, clusters: false });
    }
}
