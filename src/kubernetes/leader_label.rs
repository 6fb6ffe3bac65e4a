//! Marks the leader's pod with a label, by which a Service finds it.
//!
//! Every replica can then be ready, also one that stands by: what is ready decides about roll-outs, and the label about
//! requests. The leader puts the label on its own pod and takes it from every other. A leader that ends or steps down
//! leaves its own alone: until another leads there is nobody better to ask. For a moment two pods may have the label,
//! and both answer.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::election::now;
use super::{Failure, Leadership, told};
use crate::metrics::KubernetesMetrics;
use crate::telemetry::Repeat;

/// Time between looks while we lead: a former leader that was held up may put its label back late.
const LOOK: Duration = Duration::from_secs(5);
/// Pause after a look that failed.
const RETRY: Duration = Duration::from_millis(500);
/// Longest time for one look and what it writes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Labelled pods that one look reads, at most; the next look reads those that are left.
const MOST_PODS: u32 = 50;

/// The label and the pod that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSettings {
    /// Namespace of the pods.
    pub namespace: String,
    /// Name of our own pod.
    pub pod: String,
    /// Key of the label.
    pub key: String,
    /// Value of the label, which no pod of another pool has.
    pub value: String,
}

/// Keeps the label on the leader's pod and on no other.
#[derive(Debug)]
pub struct LeaderLabel {
    settings: LabelSettings,
    metrics: KubernetesMetrics,
}

/// Why the label is not where it belongs.
#[derive(Debug, thiserror::Error)]
enum LabelError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the API server took the change of pod {0} and left its labels as they were")]
    Ignored(String),
}

impl LabelError {
    fn failure(&self) -> Failure {
        match self {
            Self::Api(error) => Failure::from(error),
            Self::Ignored(_) => Failure::Refused,
        }
    }
}

impl LeaderLabel {
    /// Makes the writer of the label. It writes nothing yet.
    pub fn new(settings: LabelSettings, metrics: KubernetesMetrics) -> Self {
        let failures =
            [Failure::Absent, Failure::Forbidden, Failure::Expired, Failure::Refused, Failure::Unavailable];
        metrics.expect_label_writes(failures.map(Failure::name).into_iter().chain(["success"]));
        Self { settings, metrics }
    }

    /// Marks our pod while we lead, until `stop`.
    pub async fn run(self, client: Client, mut leadership: Leadership, stop: CancellationToken) {
        let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client.clone(), &self.settings.namespace);
        let pods: Api<Pod> = Api::namespaced(client, &self.settings.namespace);
        let failures = Repeat::every(Duration::from_mins(1));
        // What was written before we led counts for nothing.
        let mut fresh = true;
        loop {
            tokio::select! {
                () = leadership.until(true) => {}
                () = stop.cancelled() => return,
            }
            let mut lead = leadership.clone();
            let pass = async {
                let looked = tokio::time::timeout(PATIENCE, self.look(&pods, &api, fresh)).await;
                let good = self.tell(looked, &failures);
                tokio::time::sleep(if good { LOOK } else { RETRY }).await;
                good
            };
            tokio::select! {
                good = pass => fresh = !good,
                // A late write would mark a pod that does not lead.
                () = lead.until(false) => fresh = true,
                () = stop.cancelled() => return,
            }
        }
    }

    /// Counts and tells what became of a look. True if every label is where it belongs.
    fn tell(
        &self,
        looked: Result<Result<(), LabelError>, tokio::time::error::Elapsed>,
        failures: &Repeat,
    ) -> bool {
        let (failure, error) = match looked {
            Ok(Ok(())) => {
                failures.reset();
                return true;
            }
            Ok(Err(error)) => (error.failure(), told(&error)),
            Err(_) => (Failure::Unavailable, "the API server did not answer in time".to_owned()),
        };
        self.metrics.label_write(failure.name());
        if let Some(suppressed) = failures.due(now()) {
            let LabelSettings { pod, key, value, .. } = &self.settings;
            tracing::warn!(
                error,
                pod,
                label = format!("{key}={value}"),
                suppressed,
                "the leader's label is not where it belongs, and a service may not find the leader; the account needs list on pods and patch on \
                 pods/status"
            );
        }
        false
    }

    /// Puts the label on our pod, at once if this is the first look, and takes it from all others. Gives the first
    /// failure after all were tried.
    async fn look(
        &self,
        pods: &Api<Pod>,
        api: &Api<PartialObjectMeta<Pod>>,
        first: bool,
    ) -> Result<(), LabelError> {
        let LabelSettings { pod: own, key, value, .. } = &self.settings;
        let mut outcome = Ok(());
        if first {
            outcome = outcome.and(self.write(api, own, Some(value)).await);
        }
        let labelled = pods
            .list_metadata(&ListParams::default().labels(&format!("{key}={value}")).limit(MOST_PODS))
            .await;
        let labelled = match labelled {
            Ok(labelled) => labelled.items,
            Err(error) => return outcome.and(Err(error.into())),
        };
        let mut marked = first;
        for pod in labelled.iter().map(kube::ResourceExt::name_any) {
            if pod == *own {
                marked = true;
                continue;
            }
            match self.write(api, &pod, None).await {
                // It is gone, and its label with it.
                Err(error) if error.failure() == Failure::Absent => {}
                done => outcome = outcome.and(done),
            }
        }
        if !marked {
            outcome = outcome.and(self.write(api, own, Some(value)).await);
        }
        outcome
    }

    /// Sets the label of a pod, or removes it. The status subresource lets us change labels and conditions, and not
    /// what the pod runs: a right to patch the pod itself would be a right to run any program in the namespace.
    async fn write(
        &self,
        api: &Api<PartialObjectMeta<Pod>>,
        pod: &str,
        value: Option<&str>,
    ) -> Result<(), LabelError> {
        let key = &self.settings.key;
        let change: Value = json!({"metadata": {"labels": {key: value}}});
        let written =
            api.patch_subresource("status", pod, &PatchParams::default(), &Patch::Merge(change)).await?;
        if written.labels().get(key).map(String::as_str) != value {
            return Err(LabelError::Ignored(pod.to_owned()));
        }
        self.metrics.label_write("success");
        tracing::info!(pod, label = key, value = value.unwrap_or_default(), "leader's label written");
        Ok(())
    }
}

#[cfg(test)]
#[path = "leader_label_tests.rs"]
mod tests;
