//! A namespace of the API server with a pool in it, and pods as a kubelet would keep them: made through the API, their
//! status set through the status subresource, their addresses those of simulated servers on loopback.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::apiserver::ApiServer;
use crate::support::render;

/// Label of the pods that the pool selects.
pub(crate) const LABEL: (&str, &str) = ("app", "vllm");
/// Name of the pool, of its objects' prefix, and of the release.
pub(crate) const POOL: &str = "pool";

/// A namespace that no other test uses.
pub(crate) struct Namespace {
    /// Name.
    pub(crate) name: String,
    /// A client that may do everything.
    pub(crate) client: Client,
    /// Token of the picker's service account.
    pub(crate) token: String,
    number: usize,
}

impl Namespace {
    /// A fresh namespace in which the picker's account may do what the chart's Role says.
    pub(crate) async fn with_chart_rights(server: &ApiServer, values: &[&str]) -> Self {
        let namespace = Self::bare(server).await;
        for object in namespace.rendered(values) {
            if matches!(
                object["kind"].as_str(),
                Some(
                    "Role"
                        | "RoleBinding"
                        | "ClusterRole"
                        | "ClusterRoleBinding"
                        | "ValidatingAdmissionPolicy"
                        | "ValidatingAdmissionPolicyBinding"
                )
            ) {
                server.apply_object(&object, Some(&namespace.name)).await;
            }
        }
        namespace
    }

    /// A fresh namespace in which nobody may do anything.
    pub(crate) async fn bare(server: &ApiServer) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("t{number}");
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        server.apply_object(&object, None).await;
        Self { name, client: server.admin(), token: ApiServer::account(number).1, number }
    }

    /// Puts a label on the namespace itself.
    pub(crate) async fn label(&self, key: &str, value: &str) {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        let change = json!({"metadata": {"labels": {key: value}}});
        namespaces.patch(&self.name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }

    /// What the chart renders here for a release called [`POOL`] with these values.
    pub(crate) fn rendered(&self, values: &[&str]) -> Vec<Value> {
        let labels = format!("inferencePool.modelServers.matchLabels.{}={}", LABEL.0, LABEL.1);
        let sets = std::iter::once(labels.as_str()).chain(values.iter().copied());
        let args: Vec<&str> = sets.flat_map(|set| ["--set", set]).collect();
        render(POOL, &self.name, &args).unwrap_or_else(|error| panic!("{values:?}: {error}"))
    }

    /// An address on loopback that is no other test's: `place` from 1 to 254.
    pub(crate) fn address(&self, place: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 32 + self.number as u8, 7, place)
    }

    /// Makes or changes the pool.
    pub(crate) async fn pool(&self, ports: &[u16]) {
        self.pool_of(LABEL, ports).await;
    }

    /// The same with a selector of this label.
    pub(crate) async fn pool_of(&self, (key, value): (&str, &str), ports: &[u16]) {
        let ports: Vec<Value> = ports.iter().map(|port| json!({"number": port})).collect();
        self.apply(&json!({
            "apiVersion": "inference.networking.k8s.io/v1",
            "kind": "InferencePool",
            "metadata": {"name": POOL},
            "spec": {
                "selector": {"matchLabels": {key: value}},
                "targetPorts": ports,
                "endpointPickerRef": {"name": "pool-epp", "port": {"number": 9002}},
            },
        }))
        .await;
    }

    /// Makes or changes an object by server-side apply.
    pub(crate) async fn apply(&self, object: &Value) {
        apply(&self.client, object, Some(&self.name), false)
            .await
            .unwrap_or_else(|error| panic!("{error}: {object}"));
    }

    /// An object of the API.
    pub(crate) async fn get(&self, group: &str, version: &str, kind: &str, name: &str) -> Value {
        let object = self.dynamic(group, version, kind).await.get(name).await.unwrap();
        serde_json::to_value(object).unwrap()
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, group: &str, version: &str, kind: &str, name: &str) {
        let api = self.dynamic(group, version, kind).await;
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    async fn dynamic(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk(group, version, kind);
        let (resource, _) = kube::discovery::pinned_kind(&self.client, &kind).await.unwrap();
        Api::namespaced_with(self.client.clone(), &self.name, &resource)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// A pod that is ready.
    pub(crate) async fn pod(&self, name: &str, address: Ipv4Addr) {
        self.pod_with(name, address, json!({LABEL.0: LABEL.1}), json!({})).await;
        self.set_ready(name, true).await;
    }

    /// A pod with these labels and annotations, and an address, but not ready.
    pub(crate) async fn pod_with(&self, name: &str, address: Ipv4Addr, labels: Value, annotations: Value) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"containers": [{"name": "server", "image": "vllm"}], "nodeName": "node-1"},
        }))
        .unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
        let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}], "hostIP": "127.0.0.1", "phase": "Running"}});
        self.patch_status(name, &status).await;
    }

    /// `count` ready pods, twenty at a time, called as [`Self::many_name`] says. Nothing listens at their addresses.
    pub(crate) async fn many_pods(&self, count: usize) {
        let make = async |number: usize| {
            let name = Self::many_name(number);
            let address = Ipv4Addr::new(127, 255, (number / 250) as u8, (number % 250 + 1) as u8);
            let labels = json!({"app": "vllm", "pod-template-hash": "7d9f8c6b5", "llm-d.ai/role": "both", "zone": "a"});
            self.pod_with(&name, address, labels, json!({})).await;
            self.set_ready(&name, true).await;
        };
        for batch in 0..count / 20 {
            futures_util::future::join_all((0..20).map(|one| make(batch * 20 + one))).await;
        }
    }

    /// Name of one of [`Self::many_pods`].
    pub(crate) fn many_name(number: usize) -> String {
        format!("vllm-llama3-8b-instruct-7d9f8c6b5-{number:05}")
    }

    /// Sets the pod's `Ready` condition.
    pub(crate) async fn set_ready(&self, name: &str, ready: bool) {
        let status = if ready { "True" } else { "False" };
        self.patch_status(name, &json!({"status": {"conditions": [{"type": "Ready", "status": status}]}}))
            .await;
    }

    /// Moves a pod to another address.
    pub(crate) async fn set_address(&self, name: &str, address: Ipv4Addr) {
        self.patch_status(name, &json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}})).await;
    }

    async fn patch_status(&self, name: &str, status: &Value) {
        self.pods().patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    /// Changes a pod's metadata or specification.
    pub(crate) async fn patch_pod(&self, name: &str, change: &Value) {
        self.pods().patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }

    /// Deletes a pod at once, as when its kubelet has confirmed that it ended.
    pub(crate) async fn delete_pod(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }
}

impl ApiServer {
    /// Applies one object; `namespace` is where those go that have one and do not say which.
    pub(crate) async fn apply_object(&self, object: &Value, namespace: Option<&str>) {
        apply(&self.admin(), object, namespace, false)
            .await
            .unwrap_or_else(|error| panic!("{error}: {object}"));
    }

    /// Has the server check an object without keeping it.
    pub(crate) async fn check_object(&self, object: &Value, namespace: &str) -> kube::Result<()> {
        apply(&self.admin(), object, Some(namespace), true).await
    }
}

async fn apply(client: &Client, object: &Value, namespace: Option<&str>, dry: bool) -> kube::Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    let kind = object.types.as_ref().and_then(|types| GroupVersionKind::try_from(types).ok());
    let kind = kind.unwrap_or_else(|| panic!("no kind in {object:?}"));
    let (resource, capabilities): (ApiResource, _) = kube::discovery::pinned_kind(client, &kind).await?;
    let api: Api<DynamicObject> = if capabilities.scope == kube::discovery::Scope::Cluster {
        Api::all_with(client.clone(), &resource)
    } else {
        let namespace = object.metadata.namespace.as_deref().or(namespace).unwrap_or("default");
        Api::namespaced_with(client.clone(), namespace, &resource)
    };
    let mut params = PatchParams::apply("tests").force();
    params.dry_run = dry;
    // Unknown fields are faults.
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    let name = object.metadata.name.clone().unwrap_or_default();
    api.patch(&name, &params, &Patch::Apply(&object)).await.map(|_| ())
}
