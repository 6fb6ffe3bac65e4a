//! Roll-outs: what is checked before one, how it goes, and how pods end.

use serde_json::{Value, json};

use super::{LABEL, NAME, RELEASE, args, containers, has, is_hook, list, names, object, render, values};
use crate::support::{program, run};

const SEVERAL: &str = "inferenceExtension.replicas=3,inferenceExtension.activeActive=false";

#[test]
fn several_replicas_all_serve_unless_one_is_to_lead() {
    let election = "--ha-enable-leader-election=true";
    let alone = values("default");
    assert!(!args(&alone).contains(&election) && !has(&alone, "PodDisruptionBudget"));

    let pair = values("ha");
    assert!(args(&pair).contains(&election), "{:?}", args(&pair));
    object(&pair, &format!("RoleBinding {NAME}-leader-election"));

    let all = values("active-active");
    assert!(
        !args(&all).contains(&election) && !names(&all).contains(&format!("Role {NAME}-leader-election"))
    );
    for objects in [pair, all] {
        assert_eq!(object(&objects, &format!("PodDisruptionBudget {NAME}"))["spec"]["maxUnavailable"], 1);
        let broken =
            &object(&objects, &format!("PodDisruptionBudget {NAME}"))["spec"]["unhealthyPodEvictionPolicy"];
        assert_eq!(broken, "AlwaysAllow", "a broken pod would keep its node from being emptied");
    }
}

#[test]
fn a_roll_out_ends_no_pod_before_a_new_one_is_ready_also_with_an_election() {
    for name in ["default", "ha", "active-active", "standalone-sidecar", "everything"] {
        let objects = values(name);
        let spec = &object(&objects, &format!("Deployment {NAME}"))["spec"];
        assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}), "{name}");
        assert!(spec["minReadySeconds"].as_u64() >= Some(5), "{name}: what breaks down at once ends nobody");
        assert!(spec.get("progressDeadlineSeconds").is_none(), "{name}: a roll-out that hangs says so");
    }
}

#[test]
fn requests_reach_the_leader_by_its_label_and_standbys_are_ready_too() {
    let leader = json!({"inferencepool": NAME, "pointsman/leader": NAME});
    let all = json!({"inferencepool": NAME});
    let selector = |objects: &[Value], name: &str| {
        object(objects, &format!("Service {name}"))["spec"]["selector"].clone()
    };
    let probe = |objects: &[Value]| {
        let containers = containers(objects);
        let (_, picker) = containers.iter().find(|(_, container)| container["name"] == "epp").unwrap();
        picker["readinessProbe"]["grpc"]["service"].clone()
    };

    let several = render(&["--set", LABEL, "--set", SEVERAL]);
    assert_eq!(selector(&several, NAME), leader);
    assert!(args(&several).contains(&format!("--ha-leader-label=pointsman/leader={NAME}").as_str()));
    assert_eq!(probe(&several), "available");
    // A pod is born without it, or every one would be the leader.
    let labels = &object(&several, &format!("Deployment {NAME}"))["spec"]["template"]["metadata"]["labels"];
    assert!(labels.get("pointsman/leader").is_none(), "{labels}");

    for one in [&["--set", LABEL][..], &["--set", LABEL, "--set", "inferenceExtension.replicas=3"]] {
        let objects = render(one);
        assert_eq!(selector(&objects, NAME), all, "{one:?}");
        assert_eq!(probe(&objects), "readiness", "{one:?}");
        assert!(!args(&objects).iter().any(|arg| arg.starts_with("--ha-leader-label")), "{one:?}");
    }

    // Beside each picker an Envoy: clients are to reach that of the leader.
    let sidecar = render(&["--set", LABEL, "--set", SEVERAL, "--set", "standalone.enabled=true"]);
    assert_eq!(selector(&sidecar, &format!("{RELEASE}-proxy")), leader);
    // Envoys of their own are no pickers; they reach the leader by the picker's Service.
    let service = "standalone.enabled=true,standalone.proxy.mode=service";
    let service = render(&["--set", LABEL, "--set", SEVERAL, "--set", service]);
    assert_eq!(selector(&service, NAME), leader);
    assert!(selector(&service, &format!("{RELEASE}-proxy")).get("pointsman/leader").is_none());

    let open = render(&["--set", LABEL, "--set", SEVERAL, "--set", "inferenceExtension.routeToLeader=false"]);
    assert_eq!(selector(&open, NAME), all, "for the change from pods without a label");
    assert!(args(&open).iter().any(|arg| arg.starts_with("--ha-leader-label")), "they get it meanwhile");
}

#[test]
fn metrics_of_replicas_that_stand_by_are_scraped_too_and_those_of_the_leader_once() {
    let monitoring = "inferenceExtension.monitoring.prometheus.enabled=true";
    for (sets, expected) in [(SEVERAL, 1), ("inferenceExtension.replicas=1", 1)] {
        let objects = render(&["--set", LABEL, "--set", sets, "--set", monitoring]);
        let monitor = &object(&objects, &format!("ServiceMonitor {NAME}-monitor"))["spec"];
        assert_eq!(
            monitor["jobLabel"], "app.kubernetes.io/name",
            "the job's name does not depend on the Service"
        );
        let wanted = monitor["selector"]["matchLabels"].as_object().unwrap();
        let port = &monitor["endpoints"][0]["port"];
        let services: Vec<&Value> = objects
            .iter()
            .filter(|one| one["kind"] == "Service")
            .filter(|one| wanted.iter().all(|(key, value)| one["metadata"]["labels"][key] == *value))
            .filter(|one| list(&one["spec"]["ports"]).iter().any(|one| one["name"] == *port))
            .collect();
        assert_eq!(services.len(), expected, "{sets}");
        assert_eq!(services[0]["spec"]["selector"], json!({"inferencepool": NAME}), "{sets}: every replica");
    }
}

/// What the chart makes before anything else: the Job's container, and the configuration that it reads.
fn check(objects: &[Value]) -> (&Value, &Value) {
    let name = format!("{NAME}-check");
    (object(objects, &format!("Job {name}")), object(objects, &format!("ConfigMap {name}")))
}

#[test]
fn the_new_configuration_is_loaded_by_the_new_image_before_anything_is_changed() {
    let weight = |object: &Value| -> i64 {
        object["metadata"]["annotations"]["helm.sh/hook-weight"].as_str().unwrap().parse().unwrap()
    };
    for name in ["default", "ha", "standalone-sidecar", "everything"] {
        let objects = values(name);
        let (job, config) = check(&objects);
        for one in [job, config] {
            assert_eq!(one["metadata"]["annotations"]["helm.sh/hook"], "pre-install,pre-upgrade", "{name}");
        }
        assert!(weight(config) < weight(job), "{name}: it reads it");
        let pod = &job["spec"]["template"]["spec"];
        let picker = object(&objects, &format!("Deployment {NAME}"));
        assert_eq!(
            pod["containers"][0]["image"],
            picker["spec"]["template"]["spec"]["containers"][0]["image"]
        );
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}: it asks the API server nothing");
        assert!(pod.get("serviceAccountName").is_none(), "{name}: that one is not there yet");
        assert!(
            job["spec"]["activeDeadlineSeconds"].as_u64().is_some(),
            "{name}: an image that is not there"
        );
        assert_eq!(config["data"], object(&objects, &format!("ConfigMap {NAME}"))["data"], "{name}");
        let labels = &job["spec"]["template"]["metadata"]["labels"];
        assert!(labels.get("inferencepool").is_none(), "{name}: no Service may select it");
    }
    let off = render(&["--set", LABEL, "--set", "inferenceExtension.configCheck.enabled=false"]);
    assert!(!off.iter().any(is_hook), "{:?}", names(&off));
}

#[test]
fn the_check_before_a_roll_out_passes_what_loads_and_refuses_what_does_not() {
    let custom = |text: &str| {
        format!("inferenceExtension.pluginsCustomConfig.default-plugins\\.yaml={text}").replace(',', "\\,")
    };
    let unknown = custom("plugins:\n- type: qeue-scorer\n");
    let experimental = "inferenceExtension.flags.allow-experimental-plugins=true";
    let text = "inferenceExtension.flags.config-text=plugin: []";
    let folder = tempfile::tempdir().unwrap();
    for (sets, passes) in [
        (&[][..], true),
        (&["standalone.enabled=true"], true),
        (&[experimental], true),
        (&[unknown.as_str()], false),
        (&[text], false),
    ] {
        let mut line = vec!["--set", LABEL];
        line.extend(sets.iter().flat_map(|set| ["--set", set]));
        let objects = render(&line);
        let (job, config) = check(&objects);
        for (name, text) in config["data"].as_object().unwrap() {
            std::fs::write(folder.path().join(name), text.as_str().unwrap()).unwrap();
        }
        let inside = folder.path().to_str().unwrap();
        let args: Vec<String> = list(&job["spec"]["template"]["spec"]["containers"][0]["args"])
            .iter()
            .map(|arg| arg.as_str().unwrap().replace("/config/", &format!("{inside}/")))
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (good, out, error) = run(&program(), &args);
        assert_eq!(good, passes, "{sets:?}: {args:?}\n{out}{error}");
    }
}

/// Seconds that a pod's picker drains and lingers for, that its Envoy stays, and that the pod has.
fn times(objects: &[Value]) -> (u64, Option<u64>, u64) {
    let containers = containers(objects);
    let (pod, picker) = containers.iter().find(|(_, container)| container["name"] == "epp").unwrap();
    let flag = |name: &str, default: u64| {
        let mut given =
            list(&picker["args"]).iter().filter_map(|arg| arg.as_str().unwrap().strip_prefix(name));
        given.next_back().map_or(default, |text| match text {
            "1m30s" => 90,
            text => text.trim_end_matches('s').parse().unwrap(),
        })
    };
    let envoy = list(&pod["containers"]).iter().find(|container| container["name"] == "envoy");
    (
        flag("--drain-timeout=", 30) + flag("--linger-timeout=", 90),
        envoy.map(|envoy| envoy["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap()),
        pod["terminationGracePeriodSeconds"].as_u64().unwrap(),
    )
}

#[test]
fn an_envoy_beside_a_picker_stays_as_long_as_it_and_the_pod_has_time_for_both() {
    let sidecar = "standalone.enabled=true";
    for (sets, expected) in [
        ("provider.name=none", 120),
        (sidecar, 120),
        ("standalone.enabled=true,standalone.proxy.drainSeconds=600", 600),
        ("standalone.enabled=true,inferenceExtension.flags.drain-timeout=20s", 20),
        (
            "standalone.enabled=true,inferenceExtension.flags.drain-timeout=1m30s,inferenceExtension.flags.linger-timeout=300s",
            390,
        ),
        ("inferenceExtension.flags.linger-timeout=600s", 630),
    ] {
        let objects = render(&["--set", LABEL, "--set", sets]);
        let (picker, envoy, pod) = times(&objects);
        assert_eq!(picker, expected, "{sets}");
        assert!(envoy.is_none_or(|envoy| envoy == picker), "{sets}: {envoy:?} s and {picker} s");
        assert_eq!(envoy.is_some(), sets.contains(sidecar), "{sets}");
        assert!(pod >= picker + 10, "{sets}: {pod} s for {picker} s");
    }
    // Who holds a connection to an Envoy that ends goes on sending; the picker beside it takes that to the end.
    let drain = args(&render(&["--set", LABEL, "--set", sidecar])).contains(&"--drain-timeout=120s");
    assert!(drain);
}
