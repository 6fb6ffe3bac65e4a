//! The `dataLayer` section, as written.
//!
//! `llm-d.ai/v1` groups what `v1alpha1` has side by side: `discovery.endpoints.pluginRef` for `discovery.pluginRef`,
//! and `crossReplica` for the fields `crossReplica…`. Both forms are read under both versions.

use super::cross_replica::RedisServer;
use super::reference::{Reference, named, reference, references};
use crate::document::scalar::go_duration;
use crate::document::{Fields, Level, Node, Problems};

/// A row of `dataLayer.sources`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The source.
    pub plugin: Reference,
    /// The extractors that read the fetched pages.
    pub extractors: Vec<Reference>,
}

/// `dataLayer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataLayer {
    /// Add the default metrics source and extractor if no metrics source is listed.
    pub inject_defaults: bool,
    /// The data sources, each with the extractors that read it.
    pub sources: Vec<Source>,
    /// The source of endpoints without Kubernetes.
    pub discovery: Option<Reference>,
    /// The server over which replicas tell each other what they do.
    pub redis: Option<RedisServer>,
}

impl Default for DataLayer {
    fn default() -> Self {
        Self { inject_defaults: true, sources: Vec::new(), discovery: None, redis: None }
    }
}

impl DataLayer {
    pub(super) fn read(node: &Node, problems: &mut Problems) -> Self {
        let mut layer = Self::default();
        let Some(mut fields) = Fields::of(node, "dataLayer", problems) else { return layer };
        layer.inject_defaults = fields.boolean("injectDefaults", problems).unwrap_or(true);
        let at = fields.path("sources");
        for (index, node) in fields.list("sources", problems).iter().enumerate() {
            let Some(mut row) = Fields::of(node, &format!("{at}[{index}]"), problems) else { continue };
            let plugin = named(&mut row, problems);
            let extractors = references(&mut row, "extractors", problems);
            row.finish(Level::Error, problems);
            layer.sources.extend(plugin.map(|plugin| Source { plugin, extractors }));
        }
        if let Some(node) = fields.get("discovery") {
            layer.discovery = discovery(node, problems);
        }
        if let Some(node) = fields.get("peerDiscovery") {
            peers(node, fields.line_of("peerDiscovery"), &fields.path("peerDiscovery"), problems);
        }
        let flat = ["crossReplicaSyncerPluginRef", "crossReplicaSyncInterval", "crossReplicaPublishTimeout"];
        synchronisation(&mut fields, flat, problems);
        if let Some(node) = fields.get("crossReplica")
            && let Some(mut group) = Fields::of(node, &fields.path("crossReplica"), problems)
        {
            synchronisation(&mut group, ["syncerPluginRef", "syncInterval", "publishTimeout"], problems);
            if let Some(node) = group.get("redis") {
                layer.redis = RedisServer::read(node, &group.path("redis"), problems);
            }
            group.finish(Level::Error, problems);
        }
        fields.finish(Level::Error, problems);
        layer
    }
}

/// The plugin that finds endpoints: `endpoints.pluginRef`, or `pluginRef` itself.
fn discovery(node: &Node, problems: &mut Problems) -> Option<Reference> {
    let mut fields = Fields::of(node, "dataLayer.discovery", problems)?;
    let grouped = fields.get("endpoints").map(|node| reference(node, &fields.path("endpoints"), problems));
    let has_peers = fields.get("peers").is_some();
    if let Some(node) = fields.get("peers") {
        peers(node, fields.line_of("peers"), &fields.path("peers"), problems);
    }
    let bare = match (fields.get("pluginRef").is_some(), &grouped) {
        (true, Some(_)) => {
            let message = "has no effect beside `endpoints.pluginRef`";
            problems.warning(fields.line_of("pluginRef"), fields.path("pluginRef"), message);
            None
        }
        // Peers may be looked for while Kubernetes tells of the endpoints.
        (false, None) if has_peers => None,
        (_, None) => named(&mut fields, problems),
        (false, Some(_)) => None,
    };
    fields.finish(Level::Error, problems);
    grouped.unwrap_or(bare)
}

fn peers(node: &Node, line: u32, path: &str, problems: &mut Problems) {
    let _ = reference(node, path, problems);
    problems.warning(
        line,
        path,
        "has no effect: --peers or --peer-service says where the other replicas are",
    );
}

/// What replicas tell each other: the plugin, how often, and for how long at most. `names` are the fields of these. The
/// reference ships no such plugin; here the flags say who the peers are, and what they tell each other needs no pace.
fn synchronisation(fields: &mut Fields<'_>, names: [&'static str; 3], problems: &mut Problems) {
    let [syncer, interval, timeout] = names;
    if let Some(name) = fields.text(syncer, problems).filter(|name| !name.is_empty()) {
        let message = format!(
            "\"{name}\" is not asked: replicas tell each other what they do where --peers or --peer-service names them"
        );
        problems.warning(fields.line_of(syncer), fields.path(syncer), message);
    }
    if fields.scalar(interval, problems, go_duration).is_some_and(|interval| !interval.is_zero()) {
        let message = "has no effect: replicas tell each other within 5ms";
        problems.warning(fields.line_of(interval), fields.path(interval), message);
    }
    if fields.scalar(timeout, problems, go_duration).is_some_and(|timeout| !timeout.is_zero()) {
        let message = "has no effect: a peer that does not read for 3s is let go";
        problems.warning(fields.line_of(timeout), fields.path(timeout), message);
    }
}
