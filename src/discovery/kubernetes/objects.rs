//! Watches of objects for plugins: `k8s-notification-source`.
//!
//! Only the replica that leads watches, as in the reference. Objects of a kind that belongs to namespaces are watched in
//! the pool's, others in the whole cluster. No object is kept here: listeners take what they need.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::discovery::Scope;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::cluster::Delta;
use super::watch::{Sink, Watched};
use crate::datalayer::{ObjectReading, ObjectSource, ObjectView};
use crate::kubernetes::{Connection, Leadership};
use crate::metrics::Metrics;
use crate::telemetry::Repeat;

/// Steps on their way from a watch; a full channel makes it wait, and the API server with it.
const STEPS: usize = 64;
/// Longest wait for the name under which the API serves a kind.
const KIND: Duration = Duration::from_secs(10);
/// Pause before the name is asked for again.
const AGAIN: Duration = Duration::from_secs(5);
/// Time between two lines that say that it is not known.
const SAID_AGAIN: Duration = Duration::from_mins(5);

/// Watches objects of a cluster for plugins.
#[derive(Clone)]
pub struct ObjectWatches {
    /// The way to the API server.
    pub connection: Connection,
    /// Namespace of the pool.
    pub namespace: String,
    /// Whether this replica leads.
    pub leadership: Leadership,
    /// Series of watches.
    pub metrics: Arc<Metrics>,
}

impl ObjectWatches {
    /// Tells the listeners of objects while this replica leads, until `ended`.
    pub async fn run(self, reading: ObjectReading, ended: CancellationToken) {
        let mut leads = self.leadership.clone();
        while !ended.is_cancelled() {
            tokio::select! {
                () = ended.cancelled() => return,
                () = leads.until(true) => {}
            }
            let mut stays = self.leadership.clone();
            tokio::select! {
                () = ended.cancelled() => {}
                () = stays.until(false) => {}
                () = Box::pin(self.watch(&reading)) => {}
            }
            reading.source.found(false, 0);
            self.metrics.kubernetes().forget_watch(&label(&reading.source), &reading.source.kind.group);
        }
    }

    /// Watches without end.
    async fn watch(&self, reading: &ObjectReading) {
        let (client, resource, scope) = self.resource(&reading.source).await;
        let kind = &reading.source.kind;
        let api: Api<DynamicObject> = match scope {
            Scope::Namespaced => Api::namespaced_with(client, &self.namespace, &resource),
            Scope::Cluster => Api::all_with(client, &resource),
        };
        let watched = Watched {
            resource: resource.plural.clone(),
            group: kind.group.clone(),
            without: "plugins that listen to these objects hear nothing",
            metrics: self.metrics.kubernetes().watch(&label(&reading.source), &kind.group),
        };
        let (to, steps) = mpsc::channel(STEPS);
        let read = |object: DynamicObject| {
            let name = object.name_any();
            for listener in &reading.listeners {
                listener.applied(ObjectView { name: &name, content: &object.data });
            }
            Some(name)
        };
        let sink = Sink { to, step: |delta: Delta<String>| delta, heard: None };
        let following = watched.follow(api, watcher::Config::default(), read, sink);
        tokio::join!(following, tell(reading, steps));
    }

    /// A client, the place of the kind in the API, and whether its objects belong to namespaces. Waits for a kind that is
    /// not installed.
    async fn resource(&self, source: &ObjectSource) -> (Client, ApiResource, Scope) {
        let kind = &source.kind;
        let wanted = GroupVersionKind::gvk(&kind.group, &kind.version, &kind.kind);
        let said = Repeat::every(SAID_AGAIN);
        loop {
            let error = match self.connection.client() {
                Ok(client) => match timeout(KIND, kube::discovery::pinned_kind(&client, &wanted)).await {
                    Ok(Ok((resource, found))) => return (client, resource, found.scope),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("no answer within {KIND:?}"),
                },
                Err(error) => error.to_string(),
            };
            if let Some(suppressed) = said.due(std::time::Instant::now()) {
                let (source, kind) = (&source.name, kind.to_string());
                tracing::warn!(
                    source,
                    kind,
                    error,
                    suppressed,
                    "kind is not watched: the API does not serve it; looked for again every few seconds"
                );
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// The value of the label `resource` in the series of the watch: the name of the reference's controller.
fn label(source: &ObjectSource) -> String {
    format!("notify_{}_{}", source.kind.kind.to_lowercase(), source.name)
}

/// Tells the listeners what went, and the source how many there are.
async fn tell(reading: &ObjectReading, mut steps: mpsc::Receiver<Delta<String>>) {
    let mut names: HashSet<String> = HashSet::new();
    while let Some(step) = steps.recv().await {
        match step {
            Delta::Listed(all) => {
                names = all.into_iter().collect();
                for listener in &reading.listeners {
                    listener.listed(&|name| names.contains(name));
                }
            }
            Delta::Applied(name) => {
                names.insert(name);
            }
            Delta::Removed(name) => {
                names.remove(&name);
                for listener in &reading.listeners {
                    listener.removed(&name);
                }
            }
        }
        reading.source.changed();
        reading.source.found(true, names.len());
    }
}
