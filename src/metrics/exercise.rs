//! Uses the handles of some features once, so that their series show.

use std::time::Duration;

use super::*;
use crate::latency::{LatencyKind, Standing};

pub(super) fn exercise_peers(metrics: &Metrics) {
    let peers = metrics.peers();
    peers.show(1, 0, 1);
    peers.peer("10.0.0.2:9006", Duration::from_millis(5), 3);
    peers.sent(100, true);
    peers.received(100, true);
    peers.ended("closed");
    peers.refused("pool");
    peers.assignments("taken", 1);
    peers.divergence(0.25);
    peers.server("write", true);
    peers.server_ended("closed");
    peers.round_trip(Duration::from_millis(1));
}

pub(super) fn exercise_shadow(metrics: &Metrics) {
    let shadow = metrics.shadow();
    shadow.active(true);
    shadow.compared();
    shadow.skipped();
    shadow.bound();
    shadow.panicked();
    shadow.spent(0.001, 0.0001);
    let profile = shadow.profile("default");
    profile.agrees();
    profile.differs(Some(0.5), None);
    profile.alone(true);
    profile.cached(128, 64);
    profile.agreement(0.5);
}

/// Touches every series that exists. The endpoints show for as long as the pool lives.
pub(super) fn exercise_latency(metrics: &Metrics) {
    let latency = metrics.latency("predicted-latency-producer", "latency");
    let labels = latency.labels("m", "t");
    for kind in [LatencyKind::FirstToken, LatencyKind::BetweenTokens] {
        latency.predicted(&labels, kind, 20.0, Duration::from_millis(1));
        latency.measured(&labels, kind, 30.0, 20.0);
        latency.standing(kind, Standing { in_force: true, error: Some(0.2), samples: 30 });
    }
    latency.within(0.5);
}

pub(super) fn exercise_split(metrics: &Metrics) {
    metrics.split().prompts(["transferred"], [1]);
    metrics.split().states(&[SplitState::Transferring]);
}

pub(super) fn exercise_events(metrics: &Metrics) {
    let events = metrics.kv_events();
    events.listens();
    events.reconnected("10.0.0.1:8000");
    events.message("10.0.0.1:8000");
    events.error("10.0.0.1:8000", "connect");
    events.age("10.0.0.1:8000", 1.0);
    events.rebuilt("gap");
    let proof = metrics.proof("precise");
    proof.state("m", "", "exact", ["exact", "off"]);
    proof.checked("m", "count", "matched");
    proof.cached("m", 1, 1);
    proof.fell_back("off");
    proof.blocks("gpu", 1);
}
