//! Ports that collide are refused, by the names of both values.

use super::{LABEL, RELEASE, combinations, render};
use crate::support;

const COLLISIONS: &[(&str, &[&str])] = &[
    ("inferenceExtension.extProcPort=9003", &["inferenceExtension.extProcPort", "health port (9003)"]),
    ("inferenceExtension.extProcPort=9090", &["inferenceExtension.extProcPort", "metrics port (9090)"]),
    ("inferenceExtension.kedaScalerPort=9003", &["inferenceExtension.kedaScalerPort", "health port (9003)"]),
    ("inferenceExtension.kedaScalerPort=9090", &["inferenceExtension.kedaScalerPort", "metrics port (9090)"]),
    (
        "inferenceExtension.kedaScalerPort=9002",
        &["inferenceExtension.kedaScalerPort", "inferenceExtension.extProcPort"],
    ),
    (
        "inferenceExtension.extProcPort=9004,inferenceExtension.kedaScalerPort=9004",
        &["inferenceExtension.kedaScalerPort", "inferenceExtension.extProcPort", "9004"],
    ),
    (
        "inferenceExtension.flags.keda-scaler-port=9090",
        &["inferenceExtension.flags keda-scaler-port", "metrics port (9090)"],
    ),
    (
        "inferenceExtension.kedaScalerPort=9004,inferenceExtension.flags.keda-scaler-port=9005",
        &["keda-scaler-port", "9005", "9004", "inferenceExtension.kedaScalerPort"],
    ),
    (
        "inferenceExtension.extraContainerPorts[0].containerPort=9003,inferenceExtension.extraContainerPorts[0].name=x",
        &["inferenceExtension.extraContainerPorts[0]", "health port (9003)"],
    ),
    (
        "inferenceExtension.extraContainerPorts[0].containerPort=7000,inferenceExtension.extraContainerPorts[0].name=metrics",
        &["inferenceExtension.extraContainerPorts[0]", "metrics port (9090)", "both called metrics"],
    ),
    (
        "inferenceExtension.kedaScalerPort=9004,inferenceExtension.extraServicePorts[0].port=9004,\
         inferenceExtension.extraServicePorts[0].name=x",
        &["inferenceExtension.extraServicePorts[0]", "inferenceExtension.kedaScalerPort"],
    ),
    (
        "inferenceExtension.extraServicePorts[0].port=7000,inferenceExtension.extraServicePorts[0].name=x,\
         inferenceExtension.extraServicePorts[1].port=7000,inferenceExtension.extraServicePorts[1].name=y",
        &["inferenceExtension.extraServicePorts[0]", "inferenceExtension.extraServicePorts[1]"],
    ),
    (
        "standalone.enabled=true,inferenceExtension.extProcPort=8081",
        &["standalone.proxy.port", "inferenceExtension.extProcPort"],
    ),
    (
        "standalone.enabled=true,standalone.proxy.port=80,inferenceExtension.extProcPort=8081",
        &["standalone.proxy.port (8081 in the container)", "inferenceExtension.extProcPort"],
    ),
    ("standalone.enabled=true,standalone.proxy.port=9003", &["standalone.proxy.port", "health port (9003)"]),
    (
        "standalone.enabled=true,inferenceExtension.kedaScalerPort=19001",
        &["inferenceExtension.kedaScalerPort", "readiness and metrics (19001)"],
    ),
    (
        "standalone.enabled=true,standalone.proxy.mode=service,standalone.proxy.port=19000",
        &["standalone.proxy.port", "admin pages (19000)"],
    ),
];

#[test]
fn ports_that_collide_are_refused_by_the_names_of_both() {
    for (sets, expected) in COLLISIONS {
        let error = support::render(RELEASE, "default", &["--set", LABEL, "--set", sets]).expect_err(sets);
        for word in *expected {
            assert!(error.contains(word), "{sets}: no {word:?} in {error}");
        }
    }
}

#[test]
fn ports_that_only_look_alike_are_taken() {
    for sets in [
        // Another protocol is another port.
        "inferenceExtension.extraContainerPorts[0].containerPort=9003,inferenceExtension.extraContainerPorts[0].protocol=UDP",
        // By hand, without the value.
        "inferenceExtension.flags.keda-scaler-port=9004,inferenceExtension.extraContainerPorts[0].containerPort=9004,\
         inferenceExtension.extraServicePorts[0].port=9004,inferenceExtension.extraServicePorts[0].name=keda",
        "inferenceExtension.kedaScalerPort=9004,inferenceExtension.flags.keda-scaler-port=9004",
        // Pods of their own.
        "standalone.enabled=true,standalone.proxy.mode=service,standalone.proxy.port=9002",
        "standalone.enabled=true,standalone.proxy.mode=service,inferenceExtension.extProcPort=8081",
    ] {
        render(&["--set", LABEL, "--set", sets]);
    }
    for file in combinations() {
        render(&["--values", &file]);
    }
}
