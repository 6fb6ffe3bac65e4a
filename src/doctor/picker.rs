//! What a running picker shows of itself.

use serde_json::Value;

use super::page::Page;
use super::{Family, Finding, Rule, texts};

const FAMILY: Family = Family::Picker;

/// The pages of one running picker.
#[derive(Clone, Debug, Default)]
pub struct PickerFacts {
    /// The address at which doctor asked the picker.
    pub url: String,
    /// The page `/debug/pool`.
    pub pool: Value,
    /// The page `/debug/config`; null if the picker does not have it.
    pub config: Value,
    /// The page `/debug/plugins/state`.
    pub plugins: Value,
    /// The page `/debug/prefix`; null if the picker does not have it.
    pub prefix: Value,
    /// The page `/debug/peers`; null if the picker has no peers.
    pub peers: Value,
    /// The page `/metrics`, read first.
    pub before: Page,
    /// The page `/metrics`, read a moment later.
    pub after: Page,
}

impl PickerFacts {
    /// The endpoints that the picker knows.
    pub fn endpoints(&self) -> impl Iterator<Item = &Value> {
        self.pool["endpoints"].as_array().into_iter().flatten()
    }
}

/// The picker does not answer. The command itself reports this rule.
pub const UNREACHABLE: Rule = Rule::error(
    "picker-unreachable",
    FAMILY,
    "The picker's metrics port does not answer, or does not have the pages of this version.",
    "Either no picker runs there, or its state cannot be seen.",
);
const NOT_SYNCED: Rule = Rule::error(
    "pool-unknown",
    FAMILY,
    "The picker does not know its pool yet.",
    "It is not ready, and every request is refused.",
);
const NO_ENDPOINTS: Rule = Rule::error(
    "no-endpoints",
    FAMILY,
    "The pool has no endpoint.",
    "Every request waits for one, or is refused with 503.",
);
const SCRAPE_FAILING: Rule = Rule::error(
    "scrape-failing",
    FAMILY,
    "The metrics page of an endpoint cannot be read, or never could.",
    "The picker is blind to the endpoint's load, and avoids it as long as another one answers.",
);
const SCRAPE_STALE: Rule = Rule::warning(
    "scrape-stale",
    FAMILY,
    "The figures of an endpoint are older than the threshold of staleness.",
    "The picker decides by a load that is out of date.",
);
const SCRAPE_LACKS: Rule = Rule::warning(
    "scrape-lacks-series",
    FAMILY,
    "The pages of endpoints lack series that the picker reads.",
    "The scorers that read them treat all endpoints alike.",
);
const KV_EVENTS_UNHEARD: Rule = Rule::error(
    "kv-events-unconnected",
    FAMILY,
    "The picker receives KV-cache events from fewer engines than there are endpoints.",
    "The precise prefix index does not know what the other engines have cached.",
);
const PLUGIN_NOT_IN_FORCE: Rule = Rule::warning(
    "plugin-not-in-force",
    FAMILY,
    "A plugin of the configuration has no effect in this version.",
    "What it was configured for does not happen.",
);
const RELOAD_REFUSED: Rule = Rule::error(
    "reload-refused",
    FAMILY,
    "The last change of the configuration was refused.",
    "The file differs from the configuration in force, so the next start fails or decides differently.",
);
const UNKNOWN_OBJECTIVES: Rule = Rule::warning(
    "objective-unknown",
    FAMILY,
    "Requests named objectives that do not exist.",
    "They are served with priority 0, whatever their clients meant.",
);
const PEER_MISSING: Rule = Rule::warning(
    "peer-missing",
    FAMILY,
    "A replica that was named as a peer is not followed.",
    "Each of the two replicas counts only its own requests, and both send to the same servers.",
);

/// The rules of this file.
pub const RULES: &[&Rule] = &[
    &UNREACHABLE,
    &NOT_SYNCED,
    &NO_ENDPOINTS,
    &SCRAPE_FAILING,
    &SCRAPE_STALE,
    &SCRAPE_LACKS,
    &KV_EVENTS_UNHEARD,
    &PLUGIN_NOT_IN_FORCE,
    &RELOAD_REFUSED,
    &UNKNOWN_OBJECTIVES,
    &PEER_MISSING,
];

/// Returns what is wrong with a running picker.
pub fn findings(facts: &PickerFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(pool(facts));
    found.extend(scrapes(facts));
    found.extend(kv_events(facts));
    found.extend(plugins(facts));
    found.extend(reload(facts));
    found.extend(objectives(facts));
    found.extend(peers(facts));
    found
}

/// An endpoint, as `namespace/name (address)`.
pub fn endpoint_name(endpoint: &Value) -> String {
    let text = |name: &str| endpoint[name].as_str().unwrap_or("?");
    format!("{}/{} ({})", text("namespace"), text("name"), text("address"))
}

fn pool(facts: &PickerFacts) -> Option<Finding> {
    let name = format!(
        "{}/{}",
        facts.pool["namespace"].as_str().unwrap_or("?"),
        facts.pool["name"].as_str().unwrap_or("?")
    );
    if facts.pool["synced"] == false {
        return Some(NOT_SYNCED.found(
            name,
            "discovery has not delivered the pool",
            "`--pool-name NAME --pool-namespace NAMESPACE` of an InferencePool that exists, and rights to read it",
        ));
    }
    let none = facts.endpoints().next().is_none();
    none.then(|| {
        NO_ENDPOINTS.found(
            name,
            "no ready pod fits the pool's selector, or the endpoints file lists none",
            "`kubectl get pods -l SELECTOR` shows why pods are not ready; the selector stands in `spec.selector` of the pool",
        )
    })
}

fn scrapes(facts: &PickerFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    let scrapes = facts.after.has("pointsman_scrape_state");
    let state = |name: &str| facts.after.sum("pointsman_scrape_state", Some(("state", name))).unwrap_or(0.0);
    let failed = "llm_d_epp_datalayer_poll_errors_total";
    let rises = |name: &str| facts.after.sum(name, None) > facts.before.sum(name, None);
    let unread = |endpoint: &&Value| endpoint["age_seconds"].is_null();
    for endpoint in facts.endpoints().filter(unread).filter(|_| scrapes) {
        let page = endpoint["metrics_address"].as_str().unwrap_or("?");
        found.push(SCRAPE_FAILING.found(
            endpoint_name(endpoint),
            format!("its page at {page} was never read"),
            format!(
                "`port`, `path` and `scheme` of `metrics-data-source` so that http://{page}/metrics answers"
            ),
        ));
    }
    let old = || {
        let old: Vec<String> = facts.endpoints().filter(|it| age(it) > 2.0).map(endpoint_name).collect();
        if old.is_empty() { facts.url.clone() } else { old.join(", ") }
    };
    let dead = state("unreachable");
    if found.is_empty() && (dead > 0.0 || rises(failed) && state("fresh") < facts.endpoints().count() as f64)
    {
        found.push(SCRAPE_FAILING.found(
            old(),
            format!("{dead} endpoints do not answer on their metrics port, and reading pages fails now"),
            "a model server that runs, and a NetworkPolicy that lets the picker reach its metrics port",
        ));
    }
    if state("stale") > 0.0 && found.is_empty() {
        found.push(SCRAPE_STALE.found(
            old(),
            format!("{} endpoints have stale figures", state("stale")),
            "`--refresh-metrics-interval 50ms`, and `--metrics-staleness-threshold` above the time that a page takes",
        ));
    }
    for endpoint in facts.endpoints() {
        let missing = texts(&endpoint["missing_figures"]);
        if missing.is_empty() {
            continue;
        }
        found.push(SCRAPE_LACKS.found(
            endpoint_name(endpoint),
            format!("its pages do not say {}", missing.join(", ")),
            "`--default-engine ENGINE`, or the label of `engineLabelKey` on the pods, that names the engine which they run",
        ));
    }
    found
}

fn age(endpoint: &Value) -> f64 {
    endpoint["age_seconds"].as_f64().unwrap_or(f64::INFINITY)
}

fn kv_events(facts: &PickerFacts) -> Option<Finding> {
    let precise = facts.prefix["plugins"].as_object().is_some_and(|plugins| !plugins.is_empty());
    let endpoints = facts.endpoints().count();
    let heard = facts.after.sum("llm_d_epp_kv_cache_events_active_subscribers", None).unwrap_or(0.0);
    (precise && endpoints > 0 && heard < endpoints as f64).then(|| {
        KV_EVENTS_UNHEARD.found(
            facts.url.clone(),
            format!("{heard} connections for {endpoints} endpoints"),
            "`--kv-events-config '{\"enable_kv_cache_events\": true, \"publisher\": \"zmq\", \"endpoint\": \"tcp://*:5557\"}'` on \
             the command line of vLLM, and the same port in `kvEventsConfig` of the plugin",
        )
    })
}

fn plugins(facts: &PickerFacts) -> Vec<Finding> {
    let plugins = facts.plugins["plugins"].as_object().into_iter().flatten();
    let idle = plugins.filter(|(_, plugin)| plugin["state"]["inForce"] == false);
    idle.map(|(name, plugin)| {
        PLUGIN_NOT_IN_FORCE.found(
            name.clone(),
            format!(
                "its type is not built: {}",
                plugin["state"]["reason"].as_str().unwrap_or("no reason given")
            ),
            format!("no row for {name:?} in `plugins` and in no profile"),
        )
    })
    .collect()
}

fn reload(facts: &PickerFacts) -> Option<Finding> {
    let last = &facts.config["last_reload"];
    (last["outcome"] == "refused").then(|| {
        let problems = texts(&last["problems"]);
        let first = problems.first().copied().unwrap_or("no problem is named");
        RELOAD_REFUSED.found(
            facts.config["source"].as_str().unwrap_or("?"),
            format!("{} problems; the first: {first}", problems.len()),
            "`pointsman check --config-file FILE` names each problem and what mends it; a change that needs a restart needs one",
        )
    })
}

fn objectives(facts: &PickerFacts) -> Option<Finding> {
    let unknown = texts(&facts.pool["unknown_objectives"]);
    (!unknown.is_empty()).then(|| {
        UNKNOWN_OBJECTIVES.found(
            unknown.join(", "),
            "there is no InferenceObjective of this name that refers to the pool",
            "an InferenceObjective `metadata.name` of that text with `spec.poolRef.name` of the pool, or another header in the client",
        )
    })
}

fn peers(facts: &PickerFacts) -> Vec<Finding> {
    let peers = facts.peers["peers"].as_array().into_iter().flatten();
    let missing = peers.filter(|peer| peer["state"] == "missing");
    missing
        .map(|peer| {
            let text = |name: &str| peer[name].as_str().unwrap_or("");
            PEER_MISSING.found(
                text("address"),
                format!("it is not followed: {} {}", text("reason"), text("error")).trim_end().to_owned(),
                "`--peers` with addresses of running replicas of this pool, and certificates in `--peer-cert-dir` that fit on both sides",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sound() -> PickerFacts {
        let page = Page::new(
            "pointsman_scrape_state{state=\"fresh\"} 1\npointsman_scrape_state{state=\"stale\"} 0\n\
             llm_d_epp_datalayer_poll_errors_total 3\n",
        );
        PickerFacts {
            url: "http://p".into(),
            pool: json!({"name": "p", "namespace": "n", "synced": true, "unknown_objectives": [],
                "endpoints": [{"namespace": "n", "name": "a", "address": "10.0.0.1:8000", "age_seconds": 0.01,
                    "metrics_address": "10.0.0.1:8000"}]}),
            config: json!({"last_reload": null}),
            plugins: json!({"plugins": {"a": {}}}),
            prefix: json!({"plugins": {}}),
            peers: Value::Null,
            before: page.clone(),
            after: page,
        }
    }

    fn found(facts: &PickerFacts) -> Vec<&'static str> {
        findings(facts).iter().map(|finding| finding.rule.name).collect()
    }

    fn with_page(text: &str) -> PickerFacts {
        PickerFacts { after: Page::new(text), ..sound() }
    }

    #[test]
    fn nothing_is_said_of_a_sound_picker() {
        assert_eq!(found(&sound()), [""; 0]);
    }

    #[test]
    fn each_fault_is_found_by_its_rule() {
        let mut facts = sound();
        facts.pool["synced"] = false.into();
        assert_eq!(found(&facts), ["pool-unknown"]);
        facts = sound();
        facts.pool["endpoints"] = json!([]);
        assert_eq!(found(&facts), ["no-endpoints"]);
        facts = sound();
        facts.pool["endpoints"][0]["age_seconds"] = Value::Null;
        assert_eq!(found(&facts), ["scrape-failing"]);
        assert_eq!(
            found(&with_page("pointsman_scrape_state{state=\"unreachable\"} 1\n")),
            ["scrape-failing"]
        );
        let stale = "pointsman_scrape_state{state=\"stale\"} 1\npointsman_scrape_state{state=\"fresh\"} 1\n";
        assert_eq!(found(&with_page(stale)), ["scrape-stale"]);
        facts = sound();
        facts.pool["endpoints"][0]["missing_figures"] = json!(["waiting"]);
        assert_eq!(found(&facts), ["scrape-lacks-series"]);
        facts = sound();
        facts.pool["unknown_objectives"] = json!(["urgnet"]);
        assert_eq!(found(&facts), ["objective-unknown"]);
        facts = sound();
        facts.config["last_reload"] = json!({"outcome": "refused", "problems": ["x"]});
        assert_eq!(found(&facts), ["reload-refused"]);
        facts = sound();
        facts.plugins["plugins"]["a"]["state"] = json!({"inForce": false, "reason": "later"});
        assert_eq!(found(&facts), ["plugin-not-in-force"]);
        facts = sound();
        facts.peers =
            json!({"peers": [{"state": "following"}, {"state": "missing", "address": "10.0.0.9:9006"}]});
        assert_eq!(found(&facts), ["peer-missing"]);
        facts = sound();
        facts.prefix = json!({"plugins": {"precise": {}}});
        assert_eq!(found(&facts), ["kv-events-unconnected"]);
    }
}
