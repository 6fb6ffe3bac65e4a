//! The content of the debug pages.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use crate::pool::{Age, Endpoint, Load, LoadFigure, Pool, RewriteRule, RewriteTarget};
use crate::telemetry::rfc3339;

/// Time by which a figure may be older than its page.
const LATE: Duration = Duration::from_secs(1);

/// State of one plugin instance.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginState {
    /// Name of the instance.
    pub name: String,
    /// Type string.
    pub kind: String,
    /// Names of the roles that it has.
    pub roles: Vec<&'static str>,
    /// Why it was added; `None` if the configuration lists it.
    pub added: Option<String>,
    /// The state that it keeps; `None` if it keeps none.
    pub state: Option<Value>,
}

/// `{timestamp, plugins: {name: {name, type, roles, added, state}}}`. `name`, `type` and `state` are as the reference
/// shows them. A plugin that keeps nothing has no `state`, and one that the configuration lists has no `added`.
pub(super) fn plugin_states(plugins: Vec<PluginState>, now: SystemTime) -> Value {
    let plugins: Map<String, Value> = plugins
        .into_iter()
        .map(|plugin| {
            let mut row = json!({ "name": plugin.name, "type": plugin.kind, "roles": plugin.roles });
            if let Some(reason) = plugin.added {
                row["added"] = reason.into();
            }
            if let Some(state) = plugin.state {
                row["state"] = state;
            }
            (plugin.name, row)
        })
        .collect();
    json!({ "timestamp": rfc3339(now), "plugins": plugins })
}

/// The pool: each endpoint with its load, the objectives, names that requests gave for objectives which do not exist,
/// and the rules that rewrite models. `age_seconds` is null for an endpoint that was never scraped.
pub(super) fn pool_state(pool: &Pool, now: Instant, wall: SystemTime) -> Value {
    let snapshot = pool.snapshot();
    let endpoints: Vec<Value> =
        snapshot.endpoints().iter().map(|endpoint| endpoint_state(endpoint, now)).collect();
    let objectives: Map<String, Value> = pool
        .objectives()
        .listed()
        .into_iter()
        .map(|(name, priority)| (name.to_owned(), priority.into()))
        .collect();
    let rewrites: Vec<Value> =
        pool.rewrites().listed().map(|(name, rule)| rewrite_rule(name, rule)).collect();
    json!({
        "timestamp": rfc3339(wall),
        "name": pool.name(),
        "namespace": pool.namespace(),
        "synced": pool.is_synced(),
        "version": snapshot.version(),
        "endpoints": endpoints,
        "objectives": objectives,
        "unknown_objectives": pool.unknown_objectives().names(),
        "model_rewrites": rewrites,
    })
}

/// A rule; without `models` it matches every model.
fn rewrite_rule(name: &str, rule: &RewriteRule) -> Value {
    let target = |target: &RewriteTarget| json!({ "model": target.model, "weight": target.weight });
    json!({
        "name": name,
        "models": rule.models,
        "targets": rule.targets.iter().map(target).collect::<Vec<Value>>(),
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
        "own_in_flight_requests": load.own_in_flight(),
        "sent_since_reading": load.dispatched_since_reading(),
        "age_seconds": age,
        "missing_figures": missing(load, now),
        "waiting": load.waiting(),
        "running": load.running(),
        "kv_usage": load.kv_usage(),
        "block_size": load.block_size(),
        "num_blocks": load.num_blocks(),
        "lora": { "active": lora.active, "waiting": lora.waiting, "max_active": lora.max_active },
    })
}

/// Figures that the endpoint's last pages lacked, while others came.
fn missing(load: &Load, now: Instant) -> Vec<&'static str> {
    let Age::Since(page) = load.age(now) else { return Vec::new() };
    let figures = [
        (LoadFigure::Waiting, "waiting"),
        (LoadFigure::Running, "running"),
        (LoadFigure::KvUsage, "kv_usage"),
    ];
    let lacks = |figure| match load.figure_age(figure, now) {
        Age::Never => true,
        // What is written at the same time may be read a moment apart.
        Age::Since(age) => age > page + LATE,
    };
    figures.into_iter().filter(|(figure, _)| lacks(*figure)).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::pool::{EndpointId, EndpointSpec, Lease, ModelRewrite, Reading, Rewrites};

    #[test]
    fn plugins_show_their_roles_and_state_and_those_that_keep_nothing_say_no_more() {
        let plugin = |name: &str, state| PluginState {
            name: name.into(),
            kind: "kind".into(),
            roles: vec!["scorer"],
            added: (name == "b").then(|| "c reads it".to_owned()),
            state,
        };
        let states =
            plugin_states(vec![plugin("a", Some(json!({ "entries": 1 }))), plugin("b", None)], UNIX_EPOCH);
        let expected = json!({
            "timestamp": "1970-01-01T00:00:00.000000000Z",
            "plugins": {
                "a": { "name": "a", "type": "kind", "roles": ["scorer"], "state": { "entries": 1 } },
                "b": { "name": "b", "type": "kind", "roles": ["scorer"], "added": "c reads it" },
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
        assert_eq!((&a["missing_figures"], &b["missing_figures"]), (&json!(["running"]), &json!([])));
        drop(lease);
    }

    #[test]
    fn the_pool_shows_objectives_misspelt_ones_and_rewrite_rules() {
        let now = Instant::now();
        let pool = Pool::new("ns", "p", now);
        pool.set_objectives([("urgent".to_owned(), 10), ("batch".to_owned(), -1)].into_iter().collect());
        pool.unknown_objectives().note("urgnet");
        let targets = vec![RewriteTarget { model: "b".into(), weight: Some(3) }];
        let rules = vec![RewriteRule { models: vec!["a".into()], targets }];
        pool.set_rewrites(Rewrites::new(vec![ModelRewrite { name: "r".into(), created: 0, rules }]));
        let state = pool_state(&pool, now, UNIX_EPOCH);
        assert_eq!(state["objectives"], json!({ "batch": -1, "urgent": 10 }));
        assert_eq!(state["unknown_objectives"], json!(["urgnet"]));
        let rule = json!({ "name": "r", "models": ["a"], "targets": [{ "model": "b", "weight": 3 }] });
        assert_eq!(state["model_rewrites"], json!([rule]));
    }
}
