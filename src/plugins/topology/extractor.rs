//! `topology-extractor` (alpha): says which pod labels hold the place of an endpoint.
//!
//! `topology-affinity-filter` and `topology-affinity-scorer` read it. An endpoint without the label for hosts is on the
//! host that `spec.hostname` of its pod names, where a `k8s-notification-source` of pods lists this plugin as an
//! extractor, else on the host that its node's address says, where discovery knows that.
//!
//! Use it, with those, where stages of a request hand caches to each other and near servers do so faster. It costs one
//! small piece of memory for each request.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use smallvec::{SmallVec, smallvec};

use super::{Hostnames, Level, PlaceLabels, Topology};
use crate::datalayer::{ObjectKind, ObjectListener, ObjectView};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Column, Produced, Producer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("topology-extractor", Stability::Alpha, build).about(
    "Says which pod labels hold the host, rack, zone and region of an endpoint.",
    "Use it, with topology-affinity-filter or topology-affinity-scorer, where near servers hand caches to each other \
     faster. It costs one small piece of memory for each request.",
);

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Label with the host; empty means `kubernetes.io/hostname`.
    hostname: String,
    /// Label with the rack; empty means `topology.kubernetes.io/rack`.
    rack: String,
    /// Label with the zone; empty means `topology.kubernetes.io/zone`.
    zone: String,
    /// Label with the region; empty means `topology.kubernetes.io/region`.
    region: String,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let or = |given: String, usual: &str| if given.is_empty() { usual.to_owned() } else { given };
    let labels = PlaceLabels {
        host: or(params.hostname, "kubernetes.io/hostname"),
        further: [
            (Level::Rack, or(params.rack, "topology.kubernetes.io/rack")),
            (Level::Zone, or(params.zone, "topology.kubernetes.io/zone")),
            (Level::Region, or(params.region, "topology.kubernetes.io/region")),
        ],
    };
    let hostnames = Arc::new(Hostnames::default());
    let topology = Topology { labels: Arc::new(labels), hostnames: Arc::clone(&hostnames) };
    let plugin = Extractor { column: cx.produces(), topology };
    let listener = Some(hostnames as Arc<dyn ObjectListener>);
    let roles = Roles { follows_endpoints: true, object_listener: listener, ..Roles::default() };
    Ok(roles.producer(Arc::new(plugin)))
}

/// The host name in `spec.hostname` of a pod, if it has one and is ready.
fn hostname(content: &Value) -> Option<&str> {
    let conditions = content.pointer("/status/conditions")?.as_array()?;
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let name = content.pointer("/spec/hostname")?.as_str()?;
    Some(name).filter(|name| !name.is_empty() && conditions.iter().any(ready))
}

impl ObjectListener for Hostnames {
    fn listens_to(&self) -> ObjectKind {
        ObjectKind { group: String::new(), version: "v1".to_owned(), kind: "Pod".to_owned() }
    }

    fn applied(&self, object: ObjectView<'_>) {
        let found = hostname(object.content);
        if found == self.get(object.name).as_deref() {
            return;
        }
        self.change(|names| {
            match found {
                Some(found) => names.insert(object.name.to_owned(), found.into()),
                None => names.remove(object.name),
            };
        });
    }

    fn removed(&self, name: &str) {
        self.change(|names| drop(names.remove(name)));
    }

    fn listed(&self, known: &dyn Fn(&str) -> bool) {
        self.change(|names| names.retain(|name, _| known(name)));
    }
}

#[derive(Debug)]
struct Extractor {
    column: Column<Topology>,
    topology: Topology,
}

impl Producer for Extractor {
    fn produce(&self, _call: &Call<'_>) -> Result<SmallVec<[Produced; 1]>, String> {
        Ok(smallvec![Produced::new(self.column, vec![self.topology.clone()])])
    }
}
