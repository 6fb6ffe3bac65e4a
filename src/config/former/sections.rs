//! Fields of the document that stood elsewhere.

use super::tree::{self, Map};
use crate::document::{Key, Node, NodeValue, Problems};

/// A section by its former name, and the path it has today.
const MOVED: &[(&str, &[&str])] = &[("data", &["dataLayer"]), ("discovery", &["dataLayer", "discovery"])];

/// Translates the top level of the document.
pub(super) fn translate(document: &mut Map, problems: &mut Problems) {
    if let Some((key, _)) = tree::take(document, "metadata") {
        let message = "has no effect: the document is no object of the cluster; leave it out";
        problems.warning(key.line, "metadata", message);
    }
    for (former, today) in MOVED {
        if let Some((key, node)) = tree::take(document, former) {
            move_to(document, &key, node, today, problems);
        }
    }
    profile_handler(document, problems);
    parser(document, problems);
}

/// Puts a section to its path of today, unless something is there.
fn move_to(document: &mut Map, key: &Key, node: Node, today: &[&str], problems: &mut Problems) {
    let shown = today.join(".");
    let Some((last, parents)) = today.split_last() else { return };
    let mut place = document;
    for parent in parents {
        match tree::section(place, key.line, parent) {
            Some(section) => place = section,
            None => return,
        }
    }
    if tree::get(place, last).is_some() {
        problems.warning(key.line, &key.text, format!("has no effect beside `{shown}`, its name today"));
        return;
    }
    problems.warning(key.line, &key.text, format!("is the former name of `{shown}`; write that"));
    tree::put(place, key.line, last, node);
}

/// The profile handler as a section of its own; today it is a plugin.
fn profile_handler(document: &mut Map, problems: &mut Problems) {
    let Some((key, node)) = tree::take(document, "profileHandler") else { return };
    if node.is_null() {
        return;
    }
    if tree::get(document, "plugins").is_none() {
        tree::put(document, key.line, "plugins", Node { line: key.line, value: NodeValue::List(Vec::new()) });
    }
    let Some(NodeValue::List(plugins)) = tree::get_mut(document, "plugins").map(|node| &mut node.value)
    else {
        return;
    };
    plugins.push(node);
    problems.warning(key.line, "profileHandler", "is a row of `plugins` today; write it there");
}

/// One parser of the request handler; today there is a list.
fn parser(document: &mut Map, problems: &mut Problems) {
    let Some(NodeValue::Map(handler)) = tree::get_mut(document, "requestHandler").map(|node| &mut node.value)
    else {
        return;
    };
    let Some((key, node)) = tree::take(handler, "parser") else { return };
    let path = "requestHandler.parser";
    let listed =
        tree::get(handler, "parsers").is_some_and(|list| list.as_list().is_none_or(|list| !list.is_empty()));
    if listed {
        problems.warning(key.line, path, "has no effect beside `requestHandler.parsers`, its name today");
        return;
    }
    tree::take(handler, "parsers");
    if node.is_null() {
        return;
    }
    tree::put(handler, key.line, "parsers", Node { line: key.line, value: NodeValue::List(vec![node]) });
    problems.warning(
        key.line,
        path,
        "is an element of the list `requestHandler.parsers` today; write it there",
    );
}
