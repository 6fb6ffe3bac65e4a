//! Writes conditions into the status of objectives and rewrites, so that whoever made one sees that it is used, or why not.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use kube::core::DynamicResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;

use super::conditions::{Findings, to_write};
use super::resources::{GroupVersion, InferenceModelRewrite, InferenceObjective, Written};
use crate::kubernetes::{Failure, Leadership, told};
use crate::metrics::KubernetesMetrics;

/// Name under which the fields that we write are ours.
const MANAGER: &str = "pointsman";
/// Pause after a write that was forbidden, before the next of its kind.
const FORBIDDEN_PAUSE: Duration = Duration::from_mins(5);
/// Pause after any other failure.
const RETRY: Duration = Duration::from_secs(5);
/// Time within which the same is not written twice: somebody else may write otherwise, and must not be fought.
const REST: Duration = Duration::from_secs(30);
/// Longest wait for one write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Objective,
    Rewrite,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Self::Objective => "inferenceobjectives",
            Self::Rewrite => "inferencemodelrewrites",
        }
    }
}

/// An object and what its status should say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) kind: Kind,
    pub(super) at: GroupVersion,
    pub(super) name: String,
    pub(super) written: Written,
    pub(super) findings: Findings,
}

/// What was written of an object, and when.
struct Said {
    at: Instant,
    findings: Findings,
    generation: Option<i64>,
}

/// Writes whatever is wanted, one after the other.
pub(super) struct StatusWriter {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) metrics: KubernetesMetrics,
    /// Of several replicas only the leader writes; without an election all do, and write the same.
    pub(super) leadership: Leadership,
}

impl StatusWriter {
    /// Runs until nobody wants anything any more.
    pub(super) async fn run(mut self, mut wanted: watch::Receiver<Vec<Wanted>>) {
        for kind in [Kind::Objective, Kind::Rewrite] {
            self.metrics.writes_status(kind.plural());
        }
        let mut forbidden: HashMap<(Kind, String), Instant> = HashMap::new();
        let mut warned: HashSet<(Kind, String)> = HashSet::new();
        let mut lately: HashMap<(Kind, String, String), Said> = HashMap::new();
        loop {
            self.leadership.until(true).await;
            let list = wanted.borrow_and_update().clone();
            let mut again = false;
            lately.retain(|_, said| said.at.elapsed() < REST);
            let now = seconds(&crate::telemetry::rfc3339(std::time::SystemTime::now()));
            for one in list {
                let Some(conditions) = to_write(&one.findings, &one.written, &now) else { continue };
                let key = (one.kind, one.at.group.to_string());
                if forbidden.get(&key).is_some_and(|until| *until > Instant::now())
                    || !self.leadership.leads()
                {
                    again = true;
                    continue;
                }
                let object = (one.kind, key.1.clone(), one.name.clone());
                let same =
                    |said: &Said| said.findings == one.findings && said.generation == one.written.generation;
                if lately.get(&object).is_some_and(same) {
                    again = true;
                    continue;
                }
                let status = json!({ "conditions": conditions });
                let write = async {
                    match one.kind {
                        Kind::Objective => self.write::<InferenceObjective>(&one, &status).await,
                        Kind::Rewrite => self.write::<InferenceModelRewrite>(&one, &status).await,
                    }
                };
                let failure = match tokio::time::timeout(PATIENCE, write).await {
                    Ok(Ok(())) => {
                        self.metrics.status_write(one.kind.plural(), "success");
                        let said = Said {
                            at: Instant::now(),
                            findings: one.findings.clone(),
                            generation: one.written.generation,
                        };
                        lately.insert(object, said);
                        continue;
                    }
                    Ok(Err(error)) => {
                        let failure = Failure::from(&error);
                        let error = told(&error);
                        tracing::debug!(
                            resource = one.kind.plural(),
                            name = one.name,
                            error,
                            "status not written"
                        );
                        failure
                    }
                    Err(_) => Failure::Unavailable,
                };
                self.metrics.status_write(one.kind.plural(), failure.name());
                match failure {
                    // It is gone; so is what was to be said of it.
                    Failure::Absent => {}
                    Failure::Forbidden => {
                        if warned.insert(key.clone()) {
                            tracing::warn!(
                                resource = one.kind.plural(),
                                group = key.1,
                                "conditions are not written: the account may not patch the status subresource"
                            );
                        }
                        forbidden.insert(key, Instant::now() + FORBIDDEN_PAUSE);
                        again = true;
                    }
                    _ => again = true,
                }
            }
            let retry =
                async { if again { tokio::time::sleep(RETRY).await } else { std::future::pending().await } };
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = retry => {}
            }
        }
    }

    async fn write<K>(&self, one: &Wanted, status: &serde_json::Value) -> kube::Result<()>
    where
        K: Resource<DynamicType = GroupVersion, Scope = DynamicResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced_with(self.client.clone(), &self.namespace, &one.at);
        // By server-side apply: the conditions of others stay, and no version has to match.
        let object = json!({
            "apiVersion": K::api_version(&one.at),
            "kind": K::kind(&one.at),
            "metadata": { "name": one.name },
            "status": status,
        });
        let params = PatchParams::apply(MANAGER).force();
        api.patch_status(&one.name, &params, &Patch::Apply(object)).await.map(|_| ())
    }
}

/// The time without fractions of a second, as conditions have it.
fn seconds(rfc3339: &str) -> String {
    match rfc3339.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => rfc3339.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_conditions_have_no_fractions() {
        assert_eq!(seconds("2026-01-01T00:00:00.123456789Z"), "2026-01-01T00:00:00Z");
        assert_eq!(seconds("2026-01-01T00:00:00Z"), "2026-01-01T00:00:00Z");
    }
}
