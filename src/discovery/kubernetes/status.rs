//! Writes conditions into the status of objectives and rewrites, so that whoever made one sees that it is used, or why
//! not.

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

/// The kind of an object.
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
pub(super) struct DesiredStatus {
    pub(super) kind: Kind,
    pub(super) at: GroupVersion,
    pub(super) name: String,
    pub(super) written: Written,
    pub(super) findings: Findings,
}

/// The last status that was written for an object, and the time.
struct WrittenStatus {
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

/// The state that the writer keeps between two rounds.
#[derive(Default)]
struct Memory {
    /// Until when a kind is not written, because the account may not.
    forbidden: HashMap<(Kind, String), Instant>,
    /// Kinds whose lack of rights was logged.
    warned: HashSet<(Kind, String)>,
    /// The last statuses, by kind, group and name.
    lately: HashMap<(Kind, String, String), WrittenStatus>,
}

impl Memory {
    /// True if the same was written lately; the API server may not show it yet.
    fn said(&self, object: &(Kind, String, String), one: &DesiredStatus) -> bool {
        let same =
            |said: &WrittenStatus| said.findings == one.findings && said.generation == one.written.generation;
        self.lately.get(object).is_some_and(same)
    }

    /// The account may not write this kind: it is left alone for a while, and the log says so once.
    fn forbid(&mut self, key: (Kind, String)) {
        if self.warned.insert(key.clone()) {
            tracing::warn!(
                resource = key.0.plural(),
                group = key.1,
                "conditions are not written: the account may not patch the status subresource"
            );
        }
        self.forbidden.insert(key, Instant::now() + FORBIDDEN_PAUSE);
    }
}

impl StatusWriter {
    /// Runs until nobody wants anything any more.
    pub(super) async fn run(mut self, mut wanted: watch::Receiver<Vec<DesiredStatus>>) {
        for kind in [Kind::Objective, Kind::Rewrite] {
            self.metrics.writes_status(kind.plural());
        }
        let mut memory = Memory::default();
        loop {
            self.leadership.until(true).await;
            let list = wanted.borrow_and_update().clone();
            let again = self.write_all(list, &mut memory).await;
            let retry =
                async { if again { tokio::time::sleep(RETRY).await } else { std::future::pending().await } };
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = retry => {}
            }
        }
    }

    /// Writes what is not written yet. True if something has to be tried again.
    async fn write_all(&self, list: Vec<DesiredStatus>, memory: &mut Memory) -> bool {
        let mut again = false;
        memory.lately.retain(|_, said| said.at.elapsed() < REST);
        let now = seconds(&crate::telemetry::rfc3339(std::time::SystemTime::now()));
        for one in list {
            let Some(conditions) = to_write(&one.findings, &one.written, &now) else { continue };
            let key = (one.kind, one.at.group.to_string());
            let object = (one.kind, key.1.clone(), one.name.clone());
            let forbidden = memory.forbidden.get(&key).is_some_and(|until| *until > Instant::now());
            if forbidden || memory.said(&object, &one) || !self.leadership.leads() {
                again = true;
                continue;
            }
            let Err(failure) = self.write_one(&one, &json!({ "conditions": conditions })).await else {
                self.metrics.status_write(one.kind.plural(), "success");
                let (findings, generation) = (one.findings.clone(), one.written.generation);
                memory.lately.insert(object, WrittenStatus { at: Instant::now(), findings, generation });
                continue;
            };
            self.metrics.status_write(one.kind.plural(), failure.name());
            match failure {
                // It is gone; so is what was to be said of it.
                Failure::Absent => {}
                Failure::Forbidden => {
                    memory.forbid(key);
                    again = true;
                }
                _ => again = true,
            }
        }
        again
    }

    /// Writes the status of one object.
    async fn write_one(&self, one: &DesiredStatus, status: &serde_json::Value) -> Result<(), Failure> {
        let write = async {
            match one.kind {
                Kind::Objective => self.write::<InferenceObjective>(one, status).await,
                Kind::Rewrite => self.write::<InferenceModelRewrite>(one, status).await,
            }
        };
        match tokio::time::timeout(PATIENCE, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let failure = Failure::from(&error);
                let error = told(&error);
                let resource = one.kind.plural();
                tracing::debug!(resource, name = one.name, error, "status not written");
                Err(failure)
            }
            Err(_) => Err(Failure::Unavailable),
        }
    }

    async fn write<K>(&self, one: &DesiredStatus, status: &serde_json::Value) -> kube::Result<()>
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
