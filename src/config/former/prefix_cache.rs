//! Prefix scorers of releases in which the scorer held the index. Today the index is a plugin of its own, a data
//! producer.

use serde_json::Number;

use super::tree::{self, Map};
use crate::document::{Node, NodeValue, Problems};

const SCORER: &str = "prefix-cache-scorer";
const PRECISE_SCORER: &str = "precise-prefix-cache-scorer";
const PRODUCER: &str = "approx-prefix-cache-producer";
const PRODUCER_NAME: &str = "prefixMatchInfoProducerName";

/// Parameters of the scorer that the producer has today, under the same names.
const MOVED: &[&str] = &[
    "autoTune",
    "blockSizeTokens",
    "lruCapacityPerServer",
    "maxPrefixBlocksToMatch",
    "maxPrefixTokensToMatch",
];

/// Names of the block size while it was counted in characters.
const CHARACTERS: &[&str] = &["hashBlockSize", "blockSize"];

/// Characters that those releases took for a token.
const CHARACTERS_PER_TOKEN: u64 = 4;

/// Parameters that the scorer had while one type stood for both indexes and this was the one of KV events.
const PRECISE: &[&str] = &["indexerConfig", "kvEventsConfig", "tokenProcessorConfig"];

/// Turns parameters of the index into a producer. Scorers with equal ones share it.
pub(super) fn translate(plugins: &mut Vec<Node>, problems: &mut Problems) {
    let mut added: Vec<Node> = Vec::new();
    for index in 0..plugins.len() {
        let line = plugins[index].line;
        let Some(row) =
            tree::row_mut(plugins, index).filter(|row| tree::text_of(row, "type") == Some(SCORER))
        else {
            continue;
        };
        let scorer = tree::text_of(row, "name").unwrap_or(SCORER).to_owned();
        let path = format!("plugins[{index}]");
        if precise(row, &path, problems) {
            continue;
        }
        let Some((names, parameters)) = own_index(row) else { continue };
        let named = parameters_mut(row).and_then(producer_name);
        let producer = named.clone().unwrap_or_else(|| PRODUCER.to_owned());
        let shown = Node { line, value: NodeValue::Map(parameters.clone()) }.to_json();
        let at = format!("{path}.parameters");
        let listed = plugins.iter().chain(&added).find(|row| tree::is_named(row, &producer));
        let same = listed.is_some_and(|row| parameters_of(row).is_some_and(|known| known == shown));
        if named.is_some() || listed.is_some_and(|row| !same && !added.contains(row)) {
            let message = format!("{names} have no effect here: they are parameters of \"{producer}\" today");
            problems.warning(line, at, message);
            continue;
        }
        let name = if listed.is_none() || same { producer } else { format!("{scorer}-index") };
        let mut today = format!("type: {PRODUCER}, ");
        if name != PRODUCER {
            today = format!("{today}name: {name}, ");
            if let Some(parameters) = tree::row_mut(plugins, index).and_then(parameters_mut) {
                tree::put(parameters, line, PRODUCER_NAME, tree::text(line, &name));
            }
        }
        let message = format!(
            "{names} are parameters of the index, which is a plugin today; write `- {{{today}parameters: {shown}}}`"
        );
        problems.warning(line, at, message);
        if !same {
            added.push(producer_row(line, &name, parameters));
        }
    }
    plugins.append(&mut added);
}

/// The scorer of KV events had the same type once. True if this is one, which then has its type of today.
fn precise(row: &mut Map, path: &str, problems: &mut Problems) -> bool {
    let Some(parameters) = parameters_mut(row) else { return false };
    let mode = tree::take_any_case(parameters, "mode");
    let tracks = mode.as_ref().is_some_and(|(_, mode)| mode.as_text() == Some("cache_tracking"));
    let has = |name: &&str| parameters.iter().any(|(key, _)| key.text.eq_ignore_ascii_case(name));
    if !tracks && !PRECISE.iter().any(has) {
        if let Some((key, _)) = mode {
            let message = "has no effect any more: the type says which index it is; leave it out";
            problems.warning(key.line, format!("{path}.parameters.mode"), message);
        }
        return false;
    }
    for name in MOVED.iter().chain(CHARACTERS) {
        tree::take_any_case(parameters, name);
    }
    let Some((key, _)) = tree::take(row, "type") else { return true };
    if tree::text_of(row, "name").is_none() {
        tree::put(row, key.line, "name", tree::text(key.line, SCORER));
    }
    tree::put(row, key.line, "type", tree::text(key.line, PRECISE_SCORER));
    let message =
        format!("a \"{SCORER}\" that follows KV events is a \"{PRECISE_SCORER}\" today; write that");
    problems.warning(key.line, format!("{path}.type"), message);
    true
}

/// Takes the parameters of an index out: their names as a text, and the parameters of a producer. `None` if there are
/// none.
fn own_index(row: &mut Map) -> Option<(String, Map)> {
    let parameters = parameters_mut(row)?;
    let (mut names, mut index) = (Vec::new(), Map::new());
    for name in MOVED {
        if let Some((key, node)) = tree::take_any_case(parameters, name) {
            names.push(format!("`{name}`"));
            if !node.is_null() {
                tree::put(&mut index, key.line, name, node);
            }
        }
    }
    for name in CHARACTERS {
        let Some((key, node)) = tree::take_any_case(parameters, name) else { continue };
        names.push(format!("`{name}` (in characters)"));
        if !node.is_null() && tree::get(&index, "blockSizeTokens").is_none() {
            tree::put(&mut index, key.line, "blockSizeTokens", tokens(node));
        }
    }
    (!names.is_empty()).then(|| (names.join(", "), index))
}

/// A number of characters as one of tokens; anything else stays, to be refused by its new owner.
fn tokens(mut node: Node) -> Node {
    if let NodeValue::Number(number) = &mut node.value
        && let Some(characters) = number.as_u64()
    {
        *number = Number::from(characters.div_ceil(CHARACTERS_PER_TOKEN));
    }
    node
}

fn producer_row(line: u32, name: &str, parameters: Map) -> Node {
    let mut row = Map::new();
    tree::put(&mut row, line, "type", tree::text(line, PRODUCER));
    tree::put(&mut row, line, "name", tree::text(line, name));
    tree::put(&mut row, line, "parameters", Node { line, value: NodeValue::Map(parameters) });
    Node { line, value: NodeValue::Map(row) }
}

fn parameters_mut(row: &mut Map) -> Option<&mut Map> {
    match &mut tree::get_mut(row, "parameters")?.value {
        NodeValue::Map(parameters) => Some(parameters),
        _ => None,
    }
}

fn producer_name(parameters: &mut Map) -> Option<String> {
    let given = parameters.iter().rev().find(|(key, _)| key.text.eq_ignore_ascii_case(PRODUCER_NAME));
    given.and_then(|(_, node)| node.as_text()).filter(|name| !name.is_empty()).map(str::to_owned)
}

fn parameters_of(row: &Node) -> Option<serde_json::Value> {
    match &row.value {
        NodeValue::Map(row) => tree::get(row, "parameters").map(Node::to_json),
        _ => None,
    }
}
