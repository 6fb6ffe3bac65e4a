//! The chart, installed and upgraded by Helm at a real API server. Controllers are played: a Job runs the real program
//! with what the Job says, and pods are made as the Job's controller would make them, so that the server's admission
//! sees them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::admission::{pods, restricted_v2};
use crate::support::cluster::{ApiServer, LABEL, Namespace, POOL};
use crate::support::{eventually, helm, program, run};

/// A tag under which there is no image.
const NOWHERE: &str = "mistyped";

/// A namespace with Pod Security `restricted`, in which Jobs run.
pub(super) struct Site {
    pub(super) namespace: Arc<Namespace>,
    kubeconfig: String,
    _jobs: AbortOnDropHandle<()>,
}

impl Site {
    pub(super) async fn start(server: &ApiServer) -> Self {
        let namespace = Arc::new(Namespace::bare(server).await);
        namespace.label("pod-security.kubernetes.io/enforce", "restricted").await;
        let kubeconfig = server.admin_kubeconfig().display().to_string();
        let jobs = tokio::spawn(Box::pin(run_jobs(Arc::clone(&namespace))));
        Self { namespace, kubeconfig, _jobs: AbortOnDropHandle::new(jobs) }
    }

    /// Installs or upgrades with these values; `Err` is what Helm says.
    async fn upgrade(&self, sets: &[&str]) -> Result<(), String> {
        let labels = format!("inferencePool.modelServers.matchLabels.{}={}", LABEL.0, LABEL.1);
        let mut args = vec![];
        for set in [labels.as_str()].iter().chain(sets) {
            args.extend(["--set", set]);
        }
        self.release("deploy/charts/pointsman", &args).await.map(drop)
    }

    /// Installs or upgrades the release with this chart and these further arguments: what Helm says.
    pub(super) async fn release(&self, chart: &str, args: &[&str]) -> Result<String, String> {
        let usual = ["upgrade", "--install", POOL, chart, "--timeout", "60s"];
        let place = ["--namespace", &self.namespace.name, "--kubeconfig", &self.kubeconfig];
        let all: Vec<String> = [&usual[..], &place, args].concat().into_iter().map(str::to_owned).collect();
        let ran = tokio::task::spawn_blocking(move || {
            let args: Vec<&str> = all.iter().map(String::as_str).collect();
            helm(&args)
        });
        let (good, out, error) = ran.await.unwrap();
        if good { Ok(out) } else { Err(format!("{out}{error}")) }
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.namespace.client.clone(), &self.namespace.name)
    }

    async fn deployment(&self) -> Deployment {
        self.api().get("pool-epp").await.unwrap()
    }

    /// True if the picker's Service selects the leader alone.
    async fn routes_to_leader(&self) -> bool {
        let service: Service = self.api().get("pool-epp").await.unwrap();
        service.spec.unwrap().selector.unwrap().contains_key("pointsman/leader")
    }

    /// Says how many pods there are, how many of them are new, and how many are available.
    async fn has_pods(&self, replicas: i32, updated: i32, available: i32) {
        let status = json!({"status": {
            "replicas": replicas, "updatedReplicas": updated, "readyReplicas": available, "availableReplicas": available,
        }});
        let deployments: Api<Deployment> = self.api();
        deployments.patch_status("pool-epp", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }
}

/// Runs every Job of the namespace once.
async fn run_jobs(namespace: Arc<Namespace>) {
    let jobs: Api<Job> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let mut done = std::collections::BTreeSet::new();
    loop {
        for job in jobs.list(&ListParams::default()).await.unwrap().items {
            let job = serde_json::to_value(job).unwrap();
            if done.insert(job["metadata"]["uid"].to_string()) {
                let failure = run_job(&namespace, &job).await.err();
                end(&jobs, &job, failure).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Makes the Job's pod and runs its program. `Err` says why it failed.
async fn run_job(namespace: &Namespace, job: &Value) -> Result<(), String> {
    let template = &job["spec"]["template"];
    let container = &template["spec"]["containers"][0];
    if container["image"].as_str().unwrap().ends_with(NOWHERE) {
        return Err("DeadlineExceeded".to_owned());
    }
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(namespace.client.clone(), &namespace.name);
    let name = format!("check-{}", fastrand::u32(..));
    let pod = json!({"metadata": {"name": name, "labels": template["metadata"]["labels"]}, "spec": template["spec"]});
    let pod = serde_json::from_value(pod).unwrap();
    let made = pods.create(&kube::api::PostParams::default(), &pod).await;
    made.map_err(|error| format!("the pod is refused: {error}"))?;

    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let map = template["spec"]["volumes"][0]["configMap"]["name"].as_str().unwrap();
    let map = maps.get(map).await.map_err(|error| format!("no configuration: {error}"))?;
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in map.data.unwrap() {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let inside = format!("{}/", folder.path().display());
    let args = container["args"].as_array().unwrap().iter();
    let args: Vec<String> = args.map(|arg| arg.as_str().unwrap().replace("/config/", &inside)).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (good, out, error) = run(&program(), &args);
    if good { Ok(()) } else { Err(format!("{out}{error}")) }
}

/// Tells that the Job has ended, as its controller does.
async fn end(jobs: &Api<Job>, job: &Value, failure: Option<String>) {
    let now = Timestamp::now().to_string();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "Played", "lastTransitionTime": now, "lastProbeTime": now});
    let status = match &failure {
        None => json!({"startTime": now, "completionTime": now, "succeeded": 1,
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]}),
        Some(_) => {
            json!({"startTime": now, "failed": 1, "conditions": [condition("FailureTarget"), condition("Failed")]})
        }
    };
    let name = job["metadata"]["name"].as_str().unwrap();
    let sent = json!({"status": status});
    jobs.patch_status(name, &PatchParams::default(), &Patch::Merge(&sent)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_does_not_load_is_refused_before_any_old_replica_ends() {
    let server = ApiServer::shared().await;
    let site = Site::start(server).await;
    let broken =
        "inferenceExtension.pluginsCustomConfig.default-plugins\\.yaml=plugins: [{type: qeue-scorer}]";
    let refused = site.upgrade(&[broken]).await.unwrap_err();
    assert!(refused.contains("pre-install"), "{refused}");
    let none: Option<Deployment> = site.api().get_opt("pool-epp").await.unwrap();
    assert!(none.is_none(), "nothing is installed");

    let several = "inferenceExtension.replicas=2,inferenceExtension.activeActive=false";
    site.upgrade(&[several]).await.unwrap();
    let before = site.deployment().await;
    assert!(site.routes_to_leader().await);
    let configuration: ConfigMap = site.api().get("pool-epp").await.unwrap();

    let mistyped = format!("inferenceExtension.image.tag={NOWHERE}");
    for bad in [broken, "inferenceExtension.flags.config-text=plugin: []", mistyped.as_str()] {
        let refused =
            site.upgrade(&[several, bad, "inferenceExtension.podLabels.new=one"]).await.unwrap_err();
        assert!(refused.contains("pre-upgrade"), "{bad}: {refused}");
        let after = site.deployment().await;
        assert_eq!(after.spec, before.spec, "{bad}: no roll-out begins");
        assert_eq!(after.metadata.generation, before.metadata.generation, "{bad}");
        let now: ConfigMap = site.api().get("pool-epp").await.unwrap();
        assert_eq!(now.data, configuration.data, "{bad}: a restart finds the old configuration");
    }

    site.upgrade(&[several, "inferenceExtension.podLabels.new=one"]).await.unwrap();
    let after = site.deployment().await;
    assert!(after.metadata.generation > before.metadata.generation);
    let rolling = serde_json::to_value(after.spec.unwrap().strategy).unwrap();
    assert_eq!(rolling["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
    let jobs: Api<Job> = site.api();
    assert!(
        jobs.list(&ListParams::default()).await.unwrap().items.is_empty(),
        "nothing is left of the check"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn services_select_every_ready_pod_until_the_pods_that_label_themselves_are_there() {
    let server = ApiServer::shared().await;
    let site = Site::start(server).await;
    site.upgrade(&["inferenceExtension.replicas=1"]).await.unwrap();
    assert!(!site.routes_to_leader().await);
    site.has_pods(1, 1, 1).await;

    let several = ["inferenceExtension.replicas=2,inferenceExtension.activeActive=false"];
    site.upgrade(&several).await.unwrap();
    assert!(!site.routes_to_leader().await, "the one that runs has no label and would be cut off");
    // The roll-out hangs: still the old pod alone serves.
    site.has_pods(2, 1, 1).await;
    site.upgrade(&several).await.unwrap();
    assert!(!site.routes_to_leader().await);
    site.has_pods(2, 2, 2).await;
    site.upgrade(&several).await.unwrap();
    assert!(site.routes_to_leader().await);
    // From then on it stays so, also in the middle of a roll-out.
    site.has_pods(3, 1, 2).await;
    site.upgrade(&several).await.unwrap();
    assert!(site.routes_to_leader().await);
    site.upgrade(&["inferenceExtension.replicas=1"]).await.unwrap();
    assert!(!site.routes_to_leader().await, "nobody elects, nobody labels");
}

/// The kind by which OpenShift is known.
fn security_context_constraints() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "securitycontextconstraints.security.openshift.io"},
        "spec": {
            "group": "security.openshift.io",
            "scope": "Cluster",
            "names": {
                "kind": "SecurityContextConstraints",
                "listKind": "SecurityContextConstraintsList",
                "plural": "securitycontextconstraints",
                "singular": "securitycontextconstraints",
            },
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_installs_on_openshift_without_a_value_that_says_so() {
    let server = ApiServer::start().await;
    server.install_definitions().await;
    let site = Site::start(&server).await;
    restricted_v2(&server, &site.namespace).await;
    // The check before the installation is refused where ids are fixed, once the policy is in force.
    let refused = eventually("fixed ids are refused", async || {
        site.upgrade(&["inferenceExtension.replicas=2,inferenceExtension.activeActive=false"]).await.err()
    })
    .await;
    assert!(refused.contains("pre-"), "{refused}");

    server.apply_object(&security_context_constraints(), None).await;
    eventually("the group is served", async || {
        site.upgrade(&["inferenceExtension.replicas=2,inferenceExtension.activeActive=false"]).await.ok()
    })
    .await;
    let mut deployment = serde_json::to_value(site.deployment().await).unwrap();
    deployment["kind"] = "Deployment".into();
    for pod in pods(&[deployment], &site.namespace.name) {
        assert!(pod["spec"]["securityContext"].get("runAsUser").is_none(), "{pod}");
        server.check_object(&pod, &site.namespace.name).await.unwrap();
    }
}
