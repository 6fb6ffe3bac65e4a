//! Who may do what: the picker's account, and readers of its metrics.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    LABEL, NAME, RELEASE, args, combinations, each, has, list, names, object, render, rights, values,
};
use crate::support;

#[test]
fn rights_are_those_that_the_program_uses_and_no_more() {
    let watch = ["get", "list", "watch"];
    let pods = each(&[""], &["pods"], &watch);
    let kinds = ["inferenceobjectives", "inferencemodelrewrites"];
    let status = ["inferenceobjectives/status", "inferencemodelrewrites/status"];
    let both = ["llm-d.ai", "inference.networking.x-k8s.io"];
    let mut expected = pods.clone();
    expected.extend(each(&["inference.networking.k8s.io"], &["inferencepools"], &watch));
    expected.extend(each(&both, &kinds, &watch));
    expected.extend(each(&both, &status, &["patch"]));
    assert_eq!(rights(object(&values("default"), &format!("Role {NAME}"))), expected);
    assert_eq!(rights(object(&values("standalone-sidecar"), &format!("Role {NAME}"))), pods);
}

#[test]
fn of_leases_the_account_may_change_its_own_alone() {
    for (sets, name) in [
        (
            "inferenceExtension.replicas=2,inferenceExtension.activeActive=false",
            format!("epp-default-{RELEASE}.llm-d.ai"),
        ),
        (
            "inferenceExtension.replicas=2,inferenceExtension.activeActive=false,standalone.enabled=true",
            format!("epp-default-{NAME}.llm-d.ai"),
        ),
        (
            "inferenceExtension.replicas=2,inferenceExtension.activeActive=false,inferenceExtension.flags.pool-name=other",
            "epp-default-other.llm-d.ai".to_owned(),
        ),
    ] {
        let objects = render(&["--set", LABEL, "--set", sets]);
        let role = object(&objects, &format!("Role {NAME}-leader-election"));
        let leases = |rule: &&Value| list(&rule["resources"]).contains(&"leases".into());
        for rule in list(&role["rules"]).iter().filter(leases) {
            let named: Vec<&str> =
                list(&rule["resourceNames"]).iter().map(|name| name.as_str().unwrap()).collect();
            if rule["verbs"] == serde_json::json!(["create"]) {
                assert!(named.is_empty(), "a name narrows no right to create: {rule}");
            } else {
                assert_eq!(named, [name.as_str()], "{sets}: {rule}");
            }
        }
        let mut expected =
            each(&["coordination.k8s.io"], &["leases"], &["get", "list", "watch", "create", "update"]);
        expected.extend(each(&[""], &["pods/status"], &["patch"]));
        assert_eq!(rights(role), expected, "{sets}");
    }
}

/// Rights that roles of the whole cluster give.
fn cluster_rights(objects: &[Value]) -> BTreeSet<String> {
    objects.iter().filter(|object| object["kind"] == "ClusterRole").flat_map(rights).collect()
}

#[test]
fn a_token_is_asked_for_with_monitoring_and_without_and_pointsman_may_have_it_checked() {
    let mut reviews = each(&["authentication.k8s.io"], &["tokenreviews"], &["create"]);
    reviews.extend(each(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]));
    for file in combinations() {
        let objects = render(&["--values", &file]);
        assert!(!args(&objects).contains(&"--metrics-endpoint-auth=false"), "{file}");
        assert_eq!(cluster_rights(&objects), reviews, "{file}");
        let bound = objects.iter().any(|object| {
            object["kind"] == "ClusterRoleBinding" && object["subjects"][0]["name"].as_str() == Some(NAME)
        });
        assert!(bound, "{file}");
    }
    // Whoever wants it open says so, and then no right is asked for.
    for open in [
        "inferenceExtension.flags.metrics-endpoint-auth=false",
        "inferenceExtension.monitoring.prometheus.auth.enabled=false",
    ] {
        let objects = render(&["--set", LABEL, "--set", open]);
        assert!(args(&objects).contains(&"--metrics-endpoint-auth=false"), "{open}");
        assert!(!has(&objects, "ClusterRole"), "{open}");
    }
}

#[test]
fn a_token_that_may_read_metrics_is_made_where_something_reads_them() {
    let reader = format!("{NAME}-metrics-reader");
    assert!(!has(&values("default"), "Secret"), "nobody reads");
    assert!(!names(&values("default")).contains(&format!("ServiceAccount {reader}")));
    for monitoring in ["prometheus.enabled=true", "gke.enabled=true"] {
        let objects =
            render(&["--set", LABEL, "--set", &format!("inferenceExtension.monitoring.{monitoring}")]);
        object(&objects, &format!("Secret {reader}"));
        let role = object(&objects, &format!("ClusterRole default.{NAME}-metrics-reader"));
        assert_eq!(role["rules"][0]["nonResourceURLs"], serde_json::json!(["/metrics"]));
    }
}

#[test]
fn releases_share_no_name_in_the_cluster() {
    let cluster_names = |release: &str, namespace: &str| -> BTreeSet<String> {
        let monitoring = "inferenceExtension.monitoring.prometheus.enabled=true";
        let objects = support::render(release, namespace, &["--set", LABEL, "--set", monitoring]).unwrap();
        let of_cluster = objects.iter().filter(|object| object["metadata"].get("namespace").is_none());
        let names: BTreeSet<String> = of_cluster.map(super::key).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        names
    };
    let all =
        [("a-b", "c"), ("a", "b-c"), ("a", "c"), ("c", "a"), ("c.a", "b"), ("a", "b-c-d"), ("a-b-c", "d")];
    let mut seen = BTreeSet::new();
    for (release, namespace) in all {
        for name in cluster_names(release, namespace) {
            assert!(seen.insert(name.clone()), "{name} of {release} in {namespace} is another's too");
        }
    }
}
