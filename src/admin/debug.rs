//! What the debug pages say.

use std::time::{Instant, SystemTime};

use serde_json::{Map, Value, json};

use crate::pool::{Age, Endpoint, Pool};
use crate::telemetry::rfc3339;

/// State of one plugin instance.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginState {
    /// Name of the instance.
    pub name: String,
    /// Type string.
    pub kind: String,
    /// What it keeps; `None` if it has nothing to show, an error if that could not be put together.
    pub state: Result<Option<Value>, String>,
}

/// `{timestamp, plugins: {name: {name, type, state | message}}}`, as the reference shows it.
pub(super) fn plugin_states(plugins: Vec<PluginState>, now: SystemTime) -> Value {
    let plugins: Map<String, Value> = plugins
        .into_iter()
        .map(|plugin| {
            let (key, value) = match plugin.state {
                Ok(Some(state)) => ("state", state),
                Ok(None) => ("message", "plugin does not support state collection".into()),
                Err(error) => ("message", format!("failed to dump plugin state: {error}").into()),
            };
            (plugin.name.clone(), json!({ "name": plugin.name, "type": plugin.kind, key: value }))
        })
        .collect();
    json!({ "timestamp": rfc3339(now), "plugins": plugins })
}

/// The pool and each endpoint with its load; `age_seconds` is null for one that was never scraped.
pub(super) fn pool_state(pool: &Pool, now: Instant, wall: SystemTime) -> Value {
    let snapshot = pool.snapshot();
    let endpoints: Vec<Value> =
        snapshot.endpoints().iter().map(|endpoint| endpoint_state(endpoint, now)).collect();
    json!({
        "timestamp": rfc3339(wall),
        "name": pool.name(),
        "namespace": pool.namespace(),
        "synced": pool.is_synced(),
        "version": snapshot.version(),
        "endpoints": endpoints,
    })
}

fn endpoint_state(endpoint: &Endpoint, now: Instant) -> Value {
    let (spec, load) = (endpoint.spec(), endpoint.load());
    let age = match load.age(now) {
        Age::Never => None,
        Age::Since(age) => Some(age.as_secs_f64()),
    };
    let lora = load.lora();
    json!({
        "namespace": endpoint.id().namespace(),
        "name": endpoint.id().name(),
        "pod": &*spec.pod,
        "address": endpoint.target(),
        "metrics_address": spec.metrics_address.to_string(),
        "rank": spec.rank,
        "incarnation": endpoint.incarnation(),
        "labels": &*spec.labels,
        "in_flight_requests": load.in_flight(),
        "in_flight_tokens": load.in_flight_tokens(),
        "sent_since_reading": load.dispatched_since_reading(),
        "age_seconds": age,
        "waiting": load.waiting(),
        "running": load.running(),
        "kv_usage": load.kv_usage(),
        "block_size": load.block_size(),
        "num_blocks": load.num_blocks(),
        "lora": { "active": lora.active, "waiting": lora.waiting, "max_active": lora.max_active },
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::pool::{EndpointId, EndpointSpec, Lease, Reading};

    #[test]
    fn plugins_show_their_state_or_say_why_not() {
        let plugin = |name: &str, state| PluginState { name: name.into(), kind: "kind".into(), state };
        let states = plugin_states(
            vec![
                plugin("a", Ok(Some(json!({ "entries": 1 })))),
                plugin("b", Ok(None)),
                plugin("c", Err("broken".into())),
            ],
            UNIX_EPOCH,
        );
        let expected = json!({
            "timestamp": "1970-01-01T00:00:00.000000000Z",
            "plugins": {
                "a": { "name": "a", "type": "kind", "state": { "entries": 1 } },
                "b": { "name": "b", "type": "kind", "message": "plugin does not support state collection" },
                "c": { "name": "c", "type": "kind", "message": "failed to dump plugin state: broken" },
            },
        });
        assert_eq!(states, expected);
    }

    #[test]
    fn the_pool_shows_load_with_its_age_and_what_is_in_flight() {
        let start = Instant::now();
        let pool = Pool::new("ns", "p", start);
        let spec = |name, port| {
            EndpointSpec::new(EndpointId::new("ns", name), SocketAddr::from(([10, 0, 0, 1], port)))
        };
        pool.replace_endpoints(vec![spec("a", 8000), spec("b", 8001)]);
        let snapshot = pool.snapshot();
        let lease = Lease::take(&snapshot.endpoints()[0], 7);
        let reading = Reading { waiting: Some(3), kv_usage: Some(0.5), ..Reading::default() };
        snapshot.endpoints()[0].load().record(reading, 1, start);
        let state = pool_state(&pool, start + Duration::from_secs(2), UNIX_EPOCH);
        assert_eq!(state["synced"], true);
        let (a, b) = (&state["endpoints"][0], &state["endpoints"][1]);
        assert_eq!(
            (&a["address"], &a["waiting"], &a["kv_usage"]),
            (&json!("10.0.0.1:8000"), &json!(3), &json!(0.5))
        );
        assert_eq!((&a["in_flight_requests"], &a["in_flight_tokens"]), (&json!(1), &json!(7)));
        assert_eq!((&a["age_seconds"], &b["age_seconds"]), (&json!(2.0), &Value::Null));
        drop(lease);
    }
}
