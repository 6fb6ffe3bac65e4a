//! `pd-profile-handler` of releases in which it decided about disaggregation itself. Today a decider does, which is a
//! plugin of its own.

use serde_json::Number;

use super::tree::{self, Map};
use crate::document::{Node, NodeValue, Problems};

const HANDLER: &str = "pd-profile-handler";
/// Its successor, which some gave the parameters of the older one.
const SUCCESSOR: &str = "disagg-profile-handler";
const BY_PREFIX: &str = "prefix-based-pd-decider";
const ALWAYS: &str = "always-disagg-pd-decider";
const DECIDER_NAME: &str = "deciderPluginName";

/// Handlers of an encode and a decode stage, before one handler did all stages.
const ENCODE_HANDLERS: &[&str] = &["e-pd-profile-handler", "ed-profile-handler"];

/// Names of the uncached characters from which a request was prefilled apart; 0 was always.
const THRESHOLDS: &[&str] = &["threshold", "prefillThreshold"];

/// Characters that those releases took for a token.
const CHARACTERS_PER_TOKEN: u64 = 4;

/// Gives handlers without a decider the one that decides as they did.
pub(super) fn translate(plugins: &mut Vec<Node>, problems: &mut Problems) {
    for index in 0..plugins.len() {
        let line = plugins[index].line;
        let has_default = plugins.iter().any(|row| tree::is_named(row, BY_PREFIX));
        let Some(row) = tree::row_mut(plugins, index).filter(|row| decides(row)) else { continue };
        if tree::get(row, "parameters").is_some_and(|node| node.as_map().is_none()) {
            continue;
        }
        let Some(parameters) = tree::section(row, line, "parameters") else { continue };
        let at = format!("plugins[{index}].parameters");
        let named = tree::has_any_case(parameters, DECIDER_NAME);
        let former = Former::take(parameters);
        if named || (has_default && former.rule.is_none()) {
            if let Some(names) = former.names() {
                let message = format!("{names} have no effect: the decider decides");
                problems.warning(line, at, message);
            }
            continue;
        }
        let (kind, own) = former.decider();
        let shown = own.as_ref().map(|own| Node { line, value: NodeValue::Map(own.clone()) }.to_json());
        let shown = shown.map(|shown| format!(", parameters: {shown}")).unwrap_or_default();
        let what = former.names().map_or_else(
            || "a handler without a decider".to_owned(),
            |names| format!("{names} of the handler"),
        );
        tree::put(parameters, line, DECIDER_NAME, tree::text(line, kind));
        let listed = plugins.iter().any(|row| tree::is_named(row, kind));
        let message = format!(
            "{what} is a plugin today; write `- {{type: {kind}{shown}}}` and `{DECIDER_NAME}: {kind}` here"
        );
        problems.warning(line, at, message);
        if !listed {
            plugins.push(decider_row(line, kind, own));
        }
    }
}

/// True if the row is one of a handler that decided by itself.
fn decides(row: &Map) -> bool {
    let parameters = tree::map_of(row, "parameters");
    let has = |name: &&str| parameters.is_some_and(|given| tree::has_any_case(given, name));
    match tree::text_of(row, "type") {
        Some(HANDLER) => true,
        Some(SUCCESSOR) => THRESHOLDS.iter().chain(&["hashBlockSize", "decider"]).any(has),
        _ => false,
    }
}

/// Turns a handler of an encode and a decode stage into the one of all stages. Its decider was that of encode.
pub(super) fn translate_encode(row: &mut Map, path: &str, problems: &mut Problems) {
    let Some(former) =
        tree::text_of(row, "type").and_then(|kind| ENCODE_HANDLERS.iter().find(|name| **name == kind))
    else {
        return;
    };
    let Some((key, _)) = tree::take(row, "type") else { return };
    if tree::text_of(row, "name").is_none() {
        tree::take(row, "name");
        tree::put(row, key.line, "name", tree::text(key.line, former));
    }
    tree::put(row, key.line, "type", tree::text(key.line, SUCCESSOR));
    if let Some(parameters) = tree::section(row, key.line, "parameters") {
        if let Some((name, node)) = tree::take_any_case(parameters, DECIDER_NAME) {
            let mut deciders = Map::new();
            tree::put(&mut deciders, name.line, "encode", node);
            tree::put(
                parameters,
                name.line,
                "deciders",
                Node { line: name.line, value: NodeValue::Map(deciders) },
            );
        }
        if let Some((name, _)) = tree::take_any_case(parameters, "primaryPort") {
            let at = format!("{path}.parameters.{}", name.text);
            problems.warning(
                name.line,
                at,
                "has no effect any more: every server has its own port; leave it out",
            );
        }
    }
    let message = format!(
        "\"{former}\" is a former handler; write `type: {SUCCESSOR}`, and its decider as `deciders.encode`"
    );
    problems.warning(key.line, format!("{path}.type"), message);
}

/// The parameters in which a handler described its decision.
struct Former {
    names: Vec<String>,
    /// The threshold, or the parameters of a decider written inside the handler.
    rule: Option<Node>,
}

impl Former {
    fn take(parameters: &mut Map) -> Self {
        let mut former = Self { names: Vec::new(), rule: None };
        for name in THRESHOLDS.iter().chain(&["decider"]) {
            if let Some((key, node)) = tree::take_any_case(parameters, name) {
                former.names.push(format!("`{}`", key.text));
                former.rule = former.rule.or((!node.is_null()).then_some(node));
            }
        }
        // The size of blocks is the prefix index's own.
        if let Some((key, _)) = tree::take_any_case(parameters, "hashBlockSize") {
            former.names.push(format!("`{}`", key.text));
        }
        former
    }

    fn names(&self) -> Option<String> {
        (!self.names.is_empty()).then(|| self.names.join(", "))
    }

    /// The type of decider that decides the same, and its parameters.
    fn decider(&self) -> (&'static str, Option<Map>) {
        let Some(rule) = &self.rule else { return (ALWAYS, None) };
        let value = match &rule.value {
            NodeValue::Map(decider) => return (BY_PREFIX, tree::map_of(decider, "parameters").cloned()),
            NodeValue::Number(number) => match number.as_u64() {
                Some(0) => return (ALWAYS, None),
                Some(characters) => {
                    NodeValue::Number(Number::from(characters.div_ceil(CHARACTERS_PER_TOKEN)))
                }
                None => rule.value.clone(),
            },
            // The decider refuses it.
            other => other.clone(),
        };
        let mut own = Map::new();
        tree::put(&mut own, rule.line, "nonCachedTokens", Node { line: rule.line, value });
        (BY_PREFIX, Some(own))
    }
}

fn decider_row(line: u32, kind: &str, parameters: Option<Map>) -> Node {
    let mut row = Map::new();
    tree::put(&mut row, line, "type", tree::text(line, kind));
    if let Some(parameters) = parameters {
        tree::put(&mut row, line, "parameters", Node { line, value: NodeValue::Map(parameters) });
    }
    Node { line, value: NodeValue::Map(row) }
}
