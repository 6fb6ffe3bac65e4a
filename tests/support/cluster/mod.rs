//! A cluster without machines: a real API server, pods that are simulated servers, and the program as if it ran in a pod.

mod apiserver;
mod helm;
mod namespace;
mod stage;
mod traffic;

pub(crate) use apiserver::ApiServer;
pub(crate) use helm::helm;
pub(crate) use namespace::{LABEL, Namespace};
pub(crate) use stage::{CONFIG, Stage, condition, free_port, picker, simulate};
pub(crate) use traffic::{Gone, Traffic};

use serde_json::Value;

/// The documents of a YAML text; empty ones are left out.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let parts = format!("\n{text}");
    let parts = parts.split("\n---").map(|part| part.split_once('\n').map_or("", |(_, rest)| rest));
    let values = parts.filter(|part| part.lines().any(|line| !line.is_empty() && !line.starts_with('#')));
    values
        .map(|part| serde_saphyr::from_str::<Value>(part).unwrap_or_else(|error| panic!("{error}\n{part}")))
        .filter(|value| !value.is_null())
        .collect()
}
