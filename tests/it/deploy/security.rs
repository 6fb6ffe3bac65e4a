//! What pods may do on their node, and as whom they run.

use serde_json::{Value, json};

use super::{LABEL, combinations, containers, render};

const OPENSHIFT: [&str; 2] = ["--api-versions", "security.openshift.io/v1"];
const IDS: [&str; 4] = ["runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"];

/// Ids that a security context fixes.
fn ids(context: &Value) -> Vec<&str> {
    IDS.into_iter().filter(|id| context.get(*id).is_some()).collect()
}

/// Containers of the chart itself, each with its pod; what the values put beside them is not the chart's.
fn own(objects: &[Value]) -> Vec<(&Value, &Value)> {
    let known = |(_, container): &(&Value, &Value)| {
        matches!(container["name"].as_str(), Some("epp" | "envoy" | "agentgateway" | "check"))
    };
    containers(objects).into_iter().filter(known).collect()
}

/// A field of the security context that a container runs with: its own, else the pod's.
fn effective<'a>(pod: &'a Value, container: &'a Value, field: &str) -> &'a Value {
    let own = &container["securityContext"][field];
    if own.is_null() { &pod["securityContext"][field] } else { own }
}

#[test]
fn no_container_has_rights_on_its_node() {
    for file in combinations() {
        let here = render(&["--values", &file]);
        let there = render(&[&["--values", file.as_str()][..], &OPENSHIFT].concat());
        for (pod, container) in own(&here).into_iter().chain(own(&there)) {
            assert_eq!(effective(pod, container, "runAsNonRoot"), true, "{file}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{file}");
            let expected = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            let mut context = container["securityContext"].clone();
            context.as_object_mut().unwrap().retain(|field, _| !field.starts_with("runAs"));
            assert_eq!(context, expected, "{file}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{file}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{file}");
        }
    }
}

#[test]
fn ids_are_fixed_but_on_openshift_which_gives_each_namespace_its_own() {
    for file in combinations() {
        for (pod, container) in own(&render(&["--values", &file])) {
            assert_eq!(effective(pod, container, "runAsUser"), 65532, "{file}");
            assert_eq!(effective(pod, container, "runAsGroup"), 65532, "{file}");
        }
        let there = render(&[&["--values", file.as_str()][..], &OPENSHIFT].concat());
        for (pod, container) in containers(&there) {
            assert!(ids(&pod["securityContext"]).is_empty(), "{file}: {}", pod["securityContext"]);
            assert!(ids(&container["securityContext"]).is_empty(), "{file}");
        }
    }
}

#[test]
fn security_contexts_are_what_the_values_say() {
    let sets = "inferenceExtension.podSecurityContext.runAsUser=1000650000,inferenceExtension.podSecurityContext.fsGroup=null,\
                inferenceExtension.securityContext.runAsGroup=7,inferenceExtension.securityContext.readOnlyRootFilesystem=false,\
                standalone.enabled=true,standalone.proxy.mode=service,standalone.proxy.podSecurityContext.runAsUser=101,\
                standalone.proxy.securityContext.privileged=false";
    for more in [&[][..], &OPENSHIFT] {
        let objects = render(&[&["--set", LABEL, "--set", sets][..], more].concat());
        for (pod, container) in containers(&objects) {
            let (of_pod, own) = (&pod["securityContext"], &container["securityContext"]);
            assert_eq!(of_pod["runAsNonRoot"], true);
            if container["name"] == "envoy" {
                assert_eq!(of_pod["runAsUser"], 101, "{more:?}");
                assert_eq!(own["privileged"], false);
                assert_eq!(own["readOnlyRootFilesystem"], true);
            } else {
                assert_eq!(of_pod["runAsUser"], 1_000_650_000, "the user's own id stays, {more:?}");
                assert!(of_pod.get("fsGroup").is_none(), "{more:?}");
                assert_eq!(own["runAsGroup"], 7);
                assert_eq!(own["readOnlyRootFilesystem"], false);
            }
        }
    }
}
