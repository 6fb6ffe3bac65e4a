//! What the cluster has of the picker: API definitions, rights, the pool and its Services.

use serde_json::{Map, Value};

use super::{Family, Finding, Rule};

const FAMILY: Family = Family::Cluster;

/// The answers of the API server.
#[derive(Clone, Debug, Default)]
pub struct ClusterFacts {
    /// The pool, as `namespace/name`.
    pub name: String,
    /// The kinds that the picker reads, and whether the API server serves each of them.
    pub kinds: Vec<KindFacts>,
    /// The InferencePool; null if it does not exist.
    pub pool: Value,
    /// The Services of the pool's namespace.
    pub services: Vec<Value>,
    /// The pods of the pool's namespace.
    pub pods: Vec<Value>,
    /// The name of the picker's service account.
    pub account: String,
    /// The actions that the picker needs, and whether the account may do each; `None` where the API server gave no
    /// answer.
    pub rights: Vec<(String, Option<bool>)>,
}

/// A kind of the API, such as InferencePool.
#[derive(Clone, Debug, Default)]
pub struct KindFacts {
    /// The name of the kind in the plural.
    pub plural: String,
    /// The API server serves the kind.
    pub served: bool,
    /// The picker cannot work without the kind.
    pub needed: bool,
}

/// The API server does not answer. The command itself reports this rule.
pub const UNREACHABLE: Rule = Rule::error(
    "cluster-unreachable",
    FAMILY,
    "The API server does not answer, or refuses to show what doctor asks for.",
    "Nobody can see whether the cluster fits the picker.",
);
const NO_DEFINITION: Rule = Rule::error(
    "definition-missing",
    FAMILY,
    "The API server does not serve InferencePools.",
    "The picker finds no pool, and every request is refused.",
);
const NO_EXTRA_DEFINITION: Rule = Rule::warning(
    "definition-missing-for-policy",
    FAMILY,
    "The API server serves no InferenceObjectives or no InferenceModelRewrites.",
    "Priorities, or rewritten models, cannot be set.",
);
const NO_RIGHT: Rule = Rule::error(
    "right-missing",
    FAMILY,
    "The picker's account lacks a right that the picker needs.",
    "The picker misses changes in the cluster, elects no leader, or rejects those who read its metrics.",
);
const NO_POOL: Rule = Rule::error(
    "pool-missing",
    FAMILY,
    "The InferencePool that the picker is for does not exist.",
    "The picker finds no endpoints, and every request is refused.",
);
const NO_SERVICE: Rule = Rule::error(
    "picker-service-missing",
    FAMILY,
    "The Service of the picker that the pool names does not exist.",
    "The gateway reaches no picker, so every request fails.",
);
const SERVICE_PORT: Rule = Rule::error(
    "picker-service-port",
    FAMILY,
    "The picker's Service does not have the port that the pool names.",
    "The gateway asks at a port where no picker answers, so every request fails.",
);
const SERVICE_EMPTY: Rule = Rule::error(
    "picker-service-empty",
    FAMILY,
    "The picker's Service selects no pod.",
    "The gateway reaches no picker, so every request fails.",
);
const SELECTORS: Rule = Rule::warning(
    "selectors-differ",
    FAMILY,
    "A Service of the model servers selects by other labels than the pool.",
    "Scrapes, autoscalers and clients that use the Service reach other servers than those that the picker knows.",
);
const POOL_EMPTY: Rule = Rule::error(
    "pool-selects-nobody",
    FAMILY,
    "No pod has the labels that the pool selects.",
    "Every request waits for an endpoint, or is refused with 503.",
);

/// The rules of this file.
pub const RULES: &[&Rule] = &[
    &UNREACHABLE,
    &NO_DEFINITION,
    &NO_EXTRA_DEFINITION,
    &NO_RIGHT,
    &NO_POOL,
    &NO_SERVICE,
    &SERVICE_PORT,
    &SERVICE_EMPTY,
    &SELECTORS,
    &POOL_EMPTY,
];

/// Returns what is wrong with the cluster.
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    let mut found = definitions(facts);
    found.extend(rights(facts));
    if !facts.pool.is_null() {
        found.extend(pickers(facts));
        found.extend(selectors(facts));
    } else if facts.kinds.iter().all(|kind| kind.served || !kind.needed) {
        found.push(NO_POOL.found(
            &facts.name,
            "there is no InferencePool of this name",
            "`--pool-name` and `--pool-namespace` of one that `kubectl get inferencepools -A` lists",
        ));
    }
    found
}

fn definitions(facts: &ClusterFacts) -> Vec<Finding> {
    let missing = facts.kinds.iter().filter(|kind| !kind.served);
    missing
        .map(|kind| {
            let rule = if kind.needed { &NO_DEFINITION } else { &NO_EXTRA_DEFINITION };
            rule.found(
                kind.plural.clone(),
                format!("the API server knows no {}", kind.plural),
                "`kubectl apply -k deploy/crds`",
            )
        })
        .collect()
}

fn rights(facts: &ClusterFacts) -> Option<Finding> {
    let missing: Vec<&str> =
        facts.rights.iter().filter(|(_, may)| *may == Some(false)).map(|(what, _)| what.as_str()).collect();
    (!missing.is_empty()).then(|| {
        NO_RIGHT.found(
            facts.account.clone(),
            format!("it may not {}", missing.join("; ")),
            "a Role or ClusterRole with these verbs, as templates/rbac.yaml of the chart has them, bound to the account",
        )
    })
}

/// The labels that the selector of a pool or a Service asks for.
pub(super) fn selector(value: &Value) -> Option<&Map<String, Value>> {
    let labels = if value["matchLabels"].is_object() { &value["matchLabels"] } else { value };
    labels.as_object().filter(|labels| !labels.is_empty())
}

/// Returns true if an object has all these labels.
pub(super) fn fits(labels: &Map<String, Value>, object: &Value) -> bool {
    labels.iter().all(|(name, value)| &object["metadata"]["labels"][name] == value)
}

/// The pods that the pool selects.
pub(super) fn servers(facts: &ClusterFacts) -> impl Iterator<Item = &Value> {
    let labels = selector(&facts.pool["spec"]["selector"]);
    facts.pods.iter().filter(move |pod| labels.is_some_and(|labels| fits(labels, pod)))
}

/// The name and the port number of the picker's Service that the pool names.
fn reference(pool: &Value) -> Option<(&str, Option<u64>)> {
    let spec = &pool["spec"];
    let found =
        [&spec["endpointPickerRef"], &spec["extensionRef"]].into_iter().find(|row| row.is_object())?;
    let port = found["port"]["number"].as_u64().or_else(|| found["portNumber"].as_u64());
    let is_service = found["kind"].as_str().is_none_or(|kind| kind == "Service");
    found["name"].as_str().filter(|_| is_service).map(|name| (name, port))
}

/// The Service with this name.
fn service<'f>(facts: &'f ClusterFacts, name: &str) -> Option<&'f Value> {
    facts.services.iter().find(|service| service["metadata"]["name"] == name)
}

/// The pods that the Service of the pool's picker selects.
pub fn picker_pods(facts: &ClusterFacts) -> impl Iterator<Item = &Value> {
    let service = reference(&facts.pool).and_then(|(name, _)| service(facts, name));
    let labels = service.and_then(|service| selector(&service["spec"]["selector"]));
    facts.pods.iter().filter(move |pod| labels.is_some_and(|labels| fits(labels, pod)))
}

fn pickers(facts: &ClusterFacts) -> Option<Finding> {
    let (name, port) = reference(&facts.pool)?;
    let Some(service) = service(facts, name) else {
        return Some(NO_SERVICE.found(
            name,
            format!("the pool {} names it in endpointPickerRef", facts.name),
            format!("a Service `metadata.name: {name}` that selects the picker's pods, or its name in `spec.endpointPickerRef.name`"),
        ));
    };
    let spec = &service["spec"];
    let ports: Vec<u64> =
        spec["ports"].as_array().into_iter().flatten().filter_map(|port| port["port"].as_u64()).collect();
    if let Some(port) = port.filter(|port| !ports.contains(port)) {
        return Some(SERVICE_PORT.found(
            name,
            format!("the pool names port {port}, and the Service has {ports:?}"),
            format!("`- {{name: grpc, port: {port}, targetPort: 9002, appProtocol: http2}}` in `spec.ports` of the Service"),
        ));
    }
    let labels = selector(&spec["selector"])?;
    let nobody = picker_pods(facts).next().is_none();
    nobody.then(|| {
        SERVICE_EMPTY.found(
            name,
            format!("no pod of the namespace has the labels {}", shown(labels)),
            "`spec.selector` of the Service with the labels of the picker's pods",
        )
    })
}

fn selectors(facts: &ClusterFacts) -> Vec<Finding> {
    let Some(wanted) = selector(&facts.pool["spec"]["selector"]) else { return Vec::new() };
    if servers(facts).next().is_none() {
        return vec![POOL_EMPTY.found(
            &facts.name,
            format!("no pod of the namespace has the labels {}", shown(wanted)),
            "`spec.selector.matchLabels` of the pool with the labels of the model servers' pods",
        )];
    }
    let picker = reference(&facts.pool).map(|(name, _)| name);
    let others = facts.services.iter().filter(|service| service["metadata"]["name"].as_str() != picker);
    others
        .filter_map(|service| {
            let labels = selector(&service["spec"]["selector"])?;
            // A Service for one role or one revision selects by the pool's labels and by further labels.
            let asks_for_more = wanted.iter().all(|(name, value)| labels.get(name) == Some(value));
            let shares = servers(facts).any(|pod| fits(labels, pod)) || shares_port(service, &facts.pool);
            (shares && !asks_for_more).then(|| {
                SELECTORS.found(
                    service["metadata"]["name"].as_str().unwrap_or("?"),
                    format!("the Service selects {}, and the pool {}", shown(labels), shown(wanted)),
                    format!("`selector: {{{}}}` in `spec` of the Service", shown(wanted)),
                )
            })
        })
        .collect()
}

/// Returns true if the Service sends to a port of the pool.
fn shares_port(service: &Value, pool: &Value) -> bool {
    let targets: Vec<u64> = targets(pool);
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let sent = ports.filter_map(|port| port["targetPort"].as_u64().or_else(|| port["port"].as_u64()));
    sent.into_iter().any(|port| targets.contains(&port))
}

/// The ports of the pool's endpoints.
pub(super) fn targets(pool: &Value) -> Vec<u64> {
    let spec = &pool["spec"];
    let listed = spec["targetPorts"].as_array().into_iter().flatten();
    listed.filter_map(|port| port["number"].as_u64()).chain(spec["targetPortNumber"].as_u64()).collect()
}

fn shown(labels: &Map<String, Value>) -> String {
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or("?"))).collect();
    pairs.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sound() -> ClusterFacts {
        let kind = |plural: &str, needed| KindFacts { plural: plural.into(), served: true, needed };
        let pod = |app: &str| json!({"metadata": {"name": app, "labels": {"app": app, "role": "both"}}});
        let service = |name: &str, app: &str, port: u64| json!({"metadata": {"name": name}, "spec": {"selector": {"app": app}, "ports": [{"port": port}]}});
        ClusterFacts {
            name: "n/p".into(),
            kinds: vec![kind("inferencepools", true), kind("inferenceobjectives", false)],
            pool: json!({"spec": {"selector": {"matchLabels": {"app": "vllm"}}, "targetPorts": [{"number": 8000}],
                "endpointPickerRef": {"name": "epp", "port": {"number": 9002}}}}),
            services: vec![service("epp", "epp", 9002), service("vllm", "vllm", 8000)],
            pods: vec![pod("vllm"), pod("epp")],
            account: "a".into(),
            rights: vec![("list pods".into(), Some(true)), ("get leases".into(), None)],
        }
    }

    fn found(facts: &ClusterFacts) -> Vec<&'static str> {
        findings(facts).iter().map(|finding| finding.rule.name).collect()
    }

    #[test]
    fn a_sound_cluster_gives_no_finding_and_each_fault_its_own() {
        assert_eq!(found(&sound()), [""; 0]);
        let change = |change: fn(&mut ClusterFacts)| {
            let mut facts = sound();
            change(&mut facts);
            found(&facts)
        };
        assert_eq!(change(|it| it.kinds[0].served = false), ["definition-missing"]);
        assert_eq!(change(|it| it.kinds[1].served = false), ["definition-missing-for-policy"]);
        assert_eq!(change(|it| it.rights[0].1 = Some(false)), ["right-missing"]);
        assert_eq!(change(|it| it.pool = Value::Null), ["pool-missing"]);
        assert_eq!(change(|it| drop(it.services.remove(0))), ["picker-service-missing"]);
        assert_eq!(
            change(|it| it.services[0]["spec"]["ports"][0]["port"] = 1.into()),
            ["picker-service-port"]
        );
        assert_eq!(change(|it| drop(it.pods.remove(1))), ["picker-service-empty"]);
        assert_eq!(change(|it| drop(it.pods.remove(0))), ["pool-selects-nobody"]);
        assert_eq!(
            change(|it| it.services[1]["spec"]["selector"] = json!({"role": "both"})),
            ["selectors-differ"]
        );
        assert_eq!(
            change(|it| it.services[1]["spec"]["selector"] = json!({"app": "old"})),
            ["selectors-differ"]
        );
        let of_one_role = json!({"app": "vllm", "role": "both"});
        let mut facts = sound();
        facts.services[1]["spec"]["selector"] = of_one_role;
        assert_eq!(found(&facts), [""; 0]);
    }

    #[test]
    fn the_pickers_pods_are_those_of_the_service_that_a_pool_of_either_group_names() {
        let mut facts = sound();
        let names = |facts: &ClusterFacts| -> Vec<String> {
            picker_pods(facts).map(|pod| pod["metadata"]["name"].to_string()).collect()
        };
        assert_eq!(names(&facts), ["\"epp\""]);
        facts.pool = json!({"spec": {"selector": {"app": "vllm"}, "targetPortNumber": 8000,
            "extensionRef": {"name": "epp", "portNumber": 9002}}});
        assert_eq!(names(&facts), ["\"epp\""]);
        facts.pool = json!({"spec": {}});
        assert_eq!(names(&facts), [""; 0]);
    }
}
