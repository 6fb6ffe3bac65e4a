//! `k8s-notification-source`: would tell extractors of objects of one kind that change.
//!
//! No plugin type of the reference, or of this program, listens to such a source. The parameters are checked, and
//! nothing is watched.
//!
//! Use it to keep a configuration of the reference as it is. It costs nothing.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// The row.
pub static TYPE: PluginType = PluginType::new("k8s-notification-source", Stability::Beta, build)
    .about(
        "Names a kind of objects of the cluster for extractors, of which there are none.",
        "Use it to keep a configuration of the reference as it is; no plugin type listens to it, so that \
         nothing is watched. It costs nothing.",
    )
    .with_example("version: v1\nkind: ConfigMap");

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
    let gap = if group.is_empty() { "" } else { "/" };
    cx.warn(format!("watches no {kind} of {group}{gap}{version}: no plugin type listens to such a source"));
    Ok(Roles { watches_objects: true, ..Roles::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::Fleet;

    #[test]
    fn version_and_kind_are_required_and_a_warning_says_that_nothing_is_watched() {
        let mut fleet = Fleet::new([]);
        assert_eq!(fleet.build(&TYPE, None).map(|_| ()).unwrap_err().path, "version");
        let partial = fleet.build(&TYPE, Some(json!({"version": "v1"})));
        assert_eq!(partial.map(|_| ()).unwrap_err().path, "kind");
        let built = fleet.build(&TYPE, Some(json!({"group": "apps", "version": "v1", "kind": "Deployment"})));
        let warnings = built.unwrap().warnings;
        assert!(warnings[0].contains("Deployment of apps/v1"), "{warnings:?}");
    }
}
