//! What somebody should know who looks at the page.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rows::state;
use crate::admin::debug::PluginState;
use crate::admin::state::AdminState;
use crate::doctor::{few, texts};
use crate::pool::Snapshot;

/// Warnings of one kind, at most.
const MOST: usize = 20;

/// Something that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Warning {
    /// Something fails; otherwise it may.
    grave: bool,
    text: String,
}

impl Warning {
    fn new(grave: bool, text: impl Into<String>) -> Self {
        Self { grave, text: text.into() }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "grave": self.grave, "text": self.text })
    }
}

/// What is to be known now.
pub(super) fn warnings(state: &AdminState, config: &Value, now: Instant) -> Vec<Warning> {
    let mut found = Vec::new();
    let snapshot = state.pool.snapshot();
    if !state.pool.is_synced() {
        found.push(Warning::new(true, "The pool is not known yet: every request is refused."));
    } else if snapshot.is_empty() {
        found.push(Warning::new(true, "The pool has no endpoint: every request waits, or is refused."));
    }
    readings(&snapshot, state.page.staleness, now, &mut found);
    blocks(&snapshot, &mut found);
    plugins(&(state.plugins)(), &mut found);
    configuration(config, &mut found);
    let unknown = state.pool.unknown_objectives().names();
    if !unknown.is_empty() {
        let names = few(unknown.iter().map(|name| &**name));
        found.push(Warning::new(false, format!("Requests named objectives that do not exist: {names}.")));
    }
    found
}

fn readings(snapshot: &Snapshot, staleness: Option<Duration>, now: Instant, found: &mut Vec<Warning>) {
    for (wanted, grave, what) in [
        ("unreachable", true, "do not answer on their metrics port"),
        ("never", true, "have never shown their metrics page"),
        ("stale", false, "have stale figures"),
    ] {
        let of_state = snapshot.endpoints().iter().filter(|it| state(it, now, staleness) == wanted);
        let names: Vec<String> = of_state.map(|endpoint| endpoint.id().to_string()).collect();
        if !names.is_empty() {
            found.push(Warning::new(
                grave,
                format!("{} endpoints {what}: {}.", names.len(), few(names.iter().map(String::as_str))),
            ));
        }
    }
}

fn blocks(snapshot: &Snapshot, found: &mut Vec<Warning>) {
    let mut sizes: Vec<u32> =
        snapshot.endpoints().iter().map(|endpoint| endpoint.load().block_size()).collect();
    sizes.retain(|size| *size > 0);
    sizes.sort_unstable();
    sizes.dedup();
    if sizes.len() > 1 {
        let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        found.push(Warning::new(
            false,
            format!(
                "Endpoints have blocks of different sizes: {} tokens.",
                few(sizes.iter().map(String::as_str))
            ),
        ));
    }
}

fn plugins(plugins: &[PluginState], found: &mut Vec<Warning>) {
    for plugin in plugins {
        let Some(state) = &plugin.state else { continue };
        let name = &plugin.name;
        if state["inForce"] == false {
            found.push(Warning::new(true, format!("Plugin {name} has no effect: its type is not built.")));
        }
        let full = |used: &str, limit: &str| {
            let (used, limit) = (state[used].as_u64().unwrap_or(0), state[limit].as_u64().unwrap_or(0));
            limit > 0 && used >= limit / 100 * 99
        };
        if full("memory_bytes", "memory_limit_bytes") && state["forgotten_for_memory"].as_u64() > Some(0) {
            let text = format!(
                "The index of {name} is at its bound: it forgets. --prefix-index-memory sets the bound."
            );
            found.push(Warning::new(false, text));
        }
    }
}

fn configuration(config: &Value, found: &mut Vec<Warning>) {
    let last = &config["last_reload"];
    let time = last["time"].as_str().unwrap_or_default();
    if last["outcome"] == "refused" {
        let problems = few(texts(&last["problems"]));
        found.push(Warning::new(true, format!("A changed configuration was refused at {time}: {problems}.")));
    } else if last["outcome"] == "applied" {
        let lines = texts(&last["changes"]).len();
        found.push(Warning::new(
            false,
            format!("A changed configuration is in force since {time}: {lines} lines differ."),
        ));
    }
    let shadow = &config["shadow"];
    if shadow["active"] == false {
        let why = texts(&shadow["problems"]);
        let why = if why.is_empty() { "it panicked too often".to_owned() } else { few(why) };
        found.push(Warning::new(false, format!("The shadow is off: {why}.")));
    }
    for kind in ["configuration", "command_line"] {
        for text in texts(&config["warnings"][kind]).into_iter().take(MOST) {
            found.push(Warning::new(false, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(state: Value) -> PluginState {
        PluginState { name: "p".into(), kind: "k".into(), roles: vec![], added: None, state: Some(state) }
    }

    #[test]
    fn plugins_without_effect_and_full_indexes_are_told() {
        let mut found = Vec::new();
        let at = |used: u64, forgotten: u64| {
            plugin(
                json!({"memory_bytes": used, "memory_limit_bytes": 1000, "forgotten_for_memory": forgotten}),
            )
        };
        plugins(&[at(1000, 0), at(10, 5)], &mut found);
        assert_eq!(found, []);
        plugins(&[at(1000, 5), plugin(json!({"inForce": false}))], &mut found);
        assert_eq!(found.len(), 2);
        assert!(found[0].text.contains("at its bound") && found[1].grave);
    }

    #[test]
    fn reloads_and_what_is_doubtful_are_told() {
        let told = |config: Value| {
            let mut found = Vec::new();
            configuration(&config, &mut found);
            found
        };
        assert_eq!(told(json!({"last_reload": null})), []);
        assert!(
            told(json!({"last_reload": {"outcome": "refused", "time": "t", "problems": ["x"]}}))[0].grave
        );
        let config = json!({"last_reload": {"outcome": "applied", "time": "t", "changes": ["a"]},
            "warnings": {"configuration": ["old"], "command_line": []}});
        assert_eq!(told(config).len(), 2);
        let shadow = told(json!({"shadow": {"active": false, "problems": ["line 3: x"]}}));
        assert!(shadow[0].text.contains("line 3: x"), "{shadow:?}");
        assert_eq!(told(json!({"shadow": {"active": true, "problems": []}})), []);
    }
}
