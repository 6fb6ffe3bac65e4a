//! What `deploy/` holds, checked by the API server itself: nothing is kept, unknown fields are faults.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::cluster::{ApiServer, Namespace};
use crate::support::{documents, render};

/// Groups of kinds that come with other software; its own tools check these.
const FOREIGN: [&str; 9] = [
    "monitoring.coreos.com",
    "monitoring.googleapis.com",
    "networking.istio.io",
    "networking.gke.io",
    "gateway.networking.k8s.io",
    "gateway.envoyproxy.io",
    "keda.sh",
    "http.keda.sh",
    "kustomize.config.k8s.io",
];

fn root(inside: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(inside)
}

fn group(object: &Value) -> &str {
    object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group)
}

/// Faults that the server finds in these objects.
async fn faults(server: &ApiServer, namespace: &Namespace, source: &str, objects: Vec<Value>) -> Vec<String> {
    let mut faults = Vec::new();
    for mut object in objects {
        if object.get("kind").is_none() || FOREIGN.contains(&group(&object)) {
            continue;
        }
        // They go wherever the user says.
        if object["metadata"].get("namespace").is_some() {
            object["metadata"]["namespace"] = namespace.name.as_str().into();
        }
        if let Err(error) = server.check_object(&object, &namespace.name).await {
            faults.push(format!("{source}: {} {}: {error}", object["kind"], object["metadata"]["name"]));
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_the_chart_renders_is_valid_to_the_api_server() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::bare(server).await;
    let mut found = Vec::new();
    let mut checked = 0;
    for entry in std::fs::read_dir(root("deploy/charts/pointsman/ci")).unwrap() {
        let values = entry.unwrap().path();
        let objects = render("release", &namespace.name, &["--values", values.to_str().unwrap()]);
        let objects = objects.unwrap_or_else(|error| panic!("{}: {error}", values.display()));
        checked += objects.len();
        let name = values.file_name().unwrap().to_string_lossy().into_owned();
        found.extend(faults(server, &namespace, &name, objects).await);
    }
    assert!(checked > 20, "only {checked} objects");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_manifest_that_is_applied_as_it_is_is_valid_to_the_api_server() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::bare(server).await;
    let mut found = Vec::new();
    let mut folders = vec![
        root("deploy/crds"),
        root("deploy/kustomize"),
        root("deploy/autoscaling"),
        root("deploy/gateways"),
    ];
    let mut checked = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            // Patches, values of charts and configurations of programs are no objects.
            if path.extension().is_none_or(|extension| extension != "yaml") || !text.contains("\nkind:") {
                continue;
            }
            let objects: Vec<Value> = documents(&text)
                .into_iter()
                .filter(|object| {
                    object["metadata"].get("name").is_some() && object["kind"] != "EndpointPickerConfig"
                })
                .collect();
            let is_patch = path.file_name().is_some_and(|name| name.to_string_lossy().contains("patch"));
            if is_patch {
                continue;
            }
            checked += objects.len();
            let name = path.strip_prefix(root("deploy")).unwrap().display().to_string();
            found.extend(faults(server, &namespace, &name, objects).await);
        }
    }
    assert!(checked > 20, "only {checked} objects");
    assert!(found.is_empty(), "{}", found.join("\n"));
}
