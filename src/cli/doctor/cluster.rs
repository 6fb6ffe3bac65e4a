//! Asks the API server of the cluster.

use std::path::Path;
use std::time::Duration;

use http::Request;
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::args::DoctorArgs;
use super::files;
use super::gathered::Gathered;
use super::unnamed;
use crate::discovery::{CURRENT_GROUP, GroupVersion, LEGACY_GROUP};
use crate::doctor::cluster::{ClusterFacts, KindFacts, UNREACHABLE, findings, picker_pods};
use crate::doctor::picker::PickerFacts;
use crate::doctor::pods;
use crate::doctor::waits::Waits;
use crate::kubernetes::{Connection, told};

/// Longest time for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most objects of a kind that are asked for.
const MOST: usize = 2000;
/// Groups of objectives and rewrites.
const GROUPS: [&str; 2] = [CURRENT_GROUP, LEGACY_GROUP];
/// Their version in both.
const VERSION: &str = "v1alpha2";

/// The pool that is looked at.
struct Place {
    namespace: String,
    name: String,
    group: String,
}

/// Looks at the cluster that the file at `path` names.
pub(super) async fn look(
    args: &DoctorArgs,
    path: &Path,
    picker: Option<&PickerFacts>,
    waits: Option<Waits>,
    gathered: &mut Gathered,
) {
    let known = |name: &str| picker.and_then(|picker| picker.pool[name].as_str()).map(str::to_owned);
    let place = Place {
        namespace: args
            .pool_namespace
            .clone()
            .or_else(|| known("namespace"))
            .unwrap_or_else(|| "default".into()),
        name: args.pool_name.clone().or_else(|| known("name")).unwrap_or_default(),
        group: args.pool_group.clone(),
    };
    let server = path.display().to_string();
    match ask(args, path, &place, picker).await {
        Ok(facts) => {
            gathered.looked_at.push(format!("pool {}", facts.name));
            gathered.findings.extend(findings(&facts));
            gathered.findings.extend(pods::findings(&facts, waits));
            gathered.findings.extend(command_lines(&facts));
            unnamed::ask(args, unnamed::pods(picker_pods(&facts)), gathered).await;
        }
        Err(error) => gathered.findings.push(UNREACHABLE.found(
            server,
            error,
            "`--kubeconfig FILE` of somebody who may get pods, services and pools, and create subjectaccessreviews",
        )),
    }
}

async fn ask(
    args: &DoctorArgs,
    path: &Path,
    place: &Place,
    picker: Option<&PickerFacts>,
) -> Result<ClusterFacts, String> {
    let connection =
        Connection::from_file(&path.display().to_string()).await.map_err(|error| error.to_string())?;
    let client = connection.client().map_err(|error| error.to_string())?;
    let api = Api(client);
    let pools = format!("{}/{}", place.group, GroupVersion::of_pool(&place.group).version);
    let mut kinds = vec![api.serves("inferencepools", std::slice::from_ref(&pools), true).await?];
    let groups = GROUPS.map(|group| format!("{group}/{VERSION}"));
    for plural in ["inferenceobjectives", "inferencemodelrewrites"] {
        kinds.push(api.serves(plural, &groups, false).await?);
    }
    let Place { namespace, name, .. } = place;
    let pool = api.get(&format!("/apis/{pools}/namespaces/{namespace}/inferencepools/{name}")).await?;
    let mut facts = ClusterFacts {
        name: format!("{namespace}/{name}"),
        kinds,
        pool: pool.filter(|_| !name.is_empty()).unwrap_or_default(),
        services: api.list(&format!("/api/v1/namespaces/{namespace}/services")).await?,
        pods: api.list(&format!("/api/v1/namespaces/{namespace}/pods")).await?,
        ..ClusterFacts::default()
    };
    let of_pods = picker_pods(&facts).find_map(|pod| pod["spec"]["serviceAccountName"].as_str());
    let account = args.service_account.as_deref().or(of_pods).map(str::to_owned);
    if let Some(account) = account {
        let account = format!("system:serviceaccount:{namespace}:{account}");
        let elects = picker_pods(&facts)
            .flat_map(containers)
            .flat_map(words)
            .any(|word| word.contains("ha-enable-leader-election") && !word.ends_with("=false"));
        let asks = picker.is_some_and(|picker| picker.after.has("pointsman_metrics_auth_total"));
        facts.rights = api.rights(&account, place, elects, asks).await?;
        facts.account = account;
    }
    Ok(facts)
}

/// The containers of a pod.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["containers"].as_array().into_iter().flatten()
}

/// The words of a container's command line.
fn words(container: &Value) -> impl Iterator<Item = &str> {
    container["args"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What is wrong with the command lines of the picker's pods. Pods of one template are told once.
fn command_lines(facts: &ClusterFacts) -> Vec<crate::doctor::Finding> {
    let mut seen: Vec<Vec<String>> = Vec::new();
    let mut found = Vec::new();
    for pod in picker_pods(facts).take(MOST) {
        for container in containers(pod) {
            let words: Vec<String> = words(container).map(str::to_owned).collect();
            let of_picker = words.iter().any(|word| word.contains("pool-name") || word.contains("poolName"));
            if of_picker && !seen.contains(&words) {
                let name = pod["metadata"]["name"].as_str().unwrap_or("?");
                found.extend(files::flags(&format!("pod {name}"), &words));
                seen.push(words);
            }
        }
    }
    found
}

/// The API server, with a bound on time.
struct Api(Client);

impl Api {
    /// An object; `None` if there is none.
    async fn get(&self, path: &str) -> Result<Option<Value>, String> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| format!("{path}: {error}"))?;
        match timeout(PATIENCE, self.0.request::<Value>(request)).await {
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(Error::Api(status))) if status.code == 404 => Ok(None),
            Ok(Err(error)) => Err(format!("{path}: {}", told(&error))),
            Err(_) => Err(format!("{path}: no answer within {PATIENCE:?}")),
        }
    }

    async fn list(&self, path: &str) -> Result<Vec<Value>, String> {
        let list = self.get(&format!("{path}?limit={MOST}")).await?.unwrap_or_default();
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Whether one of these groups, each with its version, serves a kind.
    async fn serves(&self, plural: &str, groups: &[String], needed: bool) -> Result<KindFacts, String> {
        let mut served = false;
        for group in groups {
            let list = self.get(&format!("/apis/{group}")).await?.unwrap_or_default();
            served |= list["resources"].as_array().into_iter().flatten().any(|row| row["name"] == plural);
        }
        Ok(KindFacts { plural: plural.to_owned(), served, needed })
    }

    /// What an account may do of what a picker does.
    async fn rights(
        &self,
        account: &str,
        place: &Place,
        elects: bool,
        asks: bool,
    ) -> Result<Vec<(String, Option<bool>)>, String> {
        let mut wanted: Vec<(&str, &str, &str)> = Vec::new();
        for verb in ["list", "watch"] {
            wanted.push((verb, "", "pods"));
            wanted.push((verb, place.group.as_str(), "inferencepools"));
            wanted.push((verb, CURRENT_GROUP, "inferenceobjectives"));
            wanted.push((verb, CURRENT_GROUP, "inferencemodelrewrites"));
        }
        if elects {
            wanted.push(("create", "coordination.k8s.io", "leases"));
        }
        if asks {
            wanted.push(("create", "authentication.k8s.io", "tokenreviews"));
            wanted.push(("create", "authorization.k8s.io", "subjectaccessreviews"));
        }
        let mut rights = Vec::new();
        for (verb, group, resource) in wanted {
            let attributes =
                json!({"verb": verb, "group": group, "resource": resource, "namespace": place.namespace});
            rights.push((format!("{verb} {resource}"), self.may(account, &attributes).await?));
        }
        Ok(rights)
    }

    /// Whether an account may do this; `None` if this caller may not ask.
    async fn may(&self, account: &str, attributes: &Value) -> Result<Option<bool>, String> {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let namespace = attributes["namespace"].as_str().unwrap_or_default();
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ];
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": account, "groups": groups, "resourceAttributes": attributes},
        });
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(review.to_string().into_bytes())
            .map_err(|error| error.to_string())?;
        match timeout(PATIENCE, self.0.request::<Value>(request)).await {
            Ok(Ok(answer)) => Ok(answer["status"]["allowed"].as_bool()),
            Ok(Err(Error::Api(status))) if status.code == 403 => Ok(None),
            Ok(Err(error)) => Err(format!("{path}: {}", told(&error))),
            Err(_) => Err(format!("{path}: no answer within {PATIENCE:?}")),
        }
    }
}
