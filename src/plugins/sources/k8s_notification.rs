//! `k8s-notification-source`: watches all objects of one kind, and tells its extractors of those that come, change or
//! go.
//!
//! Only the replica that leads watches. Objects of a kind that belongs to namespaces are watched in the pool's, others in
//! the whole cluster; the account needs get, list and watch on them. With `file-discovery` nothing is watched.
//! `topology-extractor` listens to `Pod` of `v1`. `/debug/plugins/state` shows the watch.
//!
//! Use it where a plugin goes by objects of the cluster. It costs one watch of all objects of the kind.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::datalayer::{ObjectKind, ObjectSource};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// The row.
pub static TYPE: PluginType = PluginType::new("k8s-notification-source", Stability::Beta, build)
    .about(
        "Watches all objects of one kind and tells its extractors of those that come, change or go.",
        "Use it where a plugin goes by objects of the cluster, such as topology-extractor by the host names of pods. It \
         costs one watch of all objects of the kind.",
    )
    .with_example("version: v1\nkind: Pod");

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// API group; empty for the core group.
    group: String,
    /// API version; required.
    version: String,
    /// Kind of the objects; required.
    kind: String,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { group, version, kind } = cx.params()?;
    for (name, value) in [("version", &version), ("kind", &kind)] {
        if value.is_empty() {
            return Err(BuildError::at(name, "is required: objects are watched by version and kind"));
        }
    }
    let source = Arc::new(ObjectSource::new(cx.name(), ObjectKind { group, version, kind }));
    let shown = Arc::clone(&source);
    Ok(Roles { object_source: Some(source), ..Roles::default() }.state(move || shown.state()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::Fleet;

    #[test]
    fn version_and_kind_are_required_and_name_the_objects_that_are_watched() {
        let mut fleet = Fleet::new([]);
        assert_eq!(fleet.build(&TYPE, None).map(|_| ()).unwrap_err().path, "version");
        let partial = fleet.build(&TYPE, Some(json!({"version": "v1"})));
        assert_eq!(partial.map(|_| ()).unwrap_err().path, "kind");
        for (params, kind) in [
            (json!({"version": "v1", "kind": "Pod"}), "Pod of v1"),
            (json!({"group": "apps", "version": "v1", "kind": "Deployment"}), "Deployment of apps/v1"),
            (json!({"group": "", "version": "v1", "kind": "ConfigMap"}), "ConfigMap of v1"),
        ] {
            let built = fleet.build(&TYPE, Some(params)).unwrap();
            let source = built.roles.object_source.unwrap();
            assert_eq!((source.kind.to_string().as_str(), built.warnings.len()), (kind, 0));
            let state = built.roles.state.unwrap();
            assert_eq!((&state.read()["live"], &state.read()["objects"]), (&json!(false), &json!(0)));
            source.found(true, 3);
            assert_eq!((&state.read()["live"], &state.read()["objects"]), (&json!(true), &json!(3)));
        }
    }
}
