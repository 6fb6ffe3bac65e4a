//! Changing the tree of a document.

use crate::document::{Key, Node, NodeValue};

/// The entries of a mapping.
pub(in crate::config) type Map = Vec<(Key, Node)>;

/// The last entry called `name`, unless it is `null`.
pub(in crate::config) fn get<'m>(map: &'m Map, name: &str) -> Option<&'m Node> {
    map.iter().rev().find(|(key, _)| key.text == name).map(|(_, node)| node).filter(|node| !node.is_null())
}

/// The same, to change it.
pub(in crate::config) fn get_mut<'m>(map: &'m mut Map, name: &str) -> Option<&'m mut Node> {
    map.iter_mut()
        .rev()
        .find(|(key, _)| key.text == name)
        .map(|(_, node)| node)
        .filter(|node| !node.is_null())
}

/// Text of the entry `name`; `None` if it is absent, empty or no text.
pub(in crate::config) fn text_of<'m>(map: &'m Map, name: &str) -> Option<&'m str> {
    get(map, name).and_then(Node::as_text).filter(|text| !text.is_empty())
}

/// Takes the last entry called `name` out, `null` or not.
pub(in crate::config) fn take(map: &mut Map, name: &str) -> Option<(Key, Node)> {
    let index = map.iter().rposition(|(key, _)| key.text == name)?;
    Some(map.remove(index))
}

/// The same for a parameter, whose letter case counts for nothing.
pub(in crate::config) fn take_any_case(map: &mut Map, name: &str) -> Option<(Key, Node)> {
    let index = map.iter().rposition(|(key, _)| key.text.eq_ignore_ascii_case(name))?;
    Some(map.remove(index))
}

/// Adds an entry, in place of a `null` of that name.
pub(in crate::config) fn put(map: &mut Map, line: u32, name: &str, node: Node) {
    map.retain(|(key, node)| key.text != name || !node.is_null());
    map.push((Key { line, text: name.to_owned() }, node));
}

/// The mapping `name`, added empty if it is absent; `None` if something else stands there.
pub(in crate::config) fn section<'m>(map: &'m mut Map, line: u32, name: &str) -> Option<&'m mut Map> {
    if get(map, name).is_none() {
        put(map, line, name, Node { line, value: NodeValue::Map(Vec::new()) });
    }
    match &mut get_mut(map, name)?.value {
        NodeValue::Map(section) => Some(section),
        _ => None,
    }
}

/// Text as a node.
pub(in crate::config) fn text(line: u32, text: &str) -> Node {
    Node { line, value: NodeValue::Text(text.to_owned()) }
}

/// The mapping `name`.
pub(in crate::config) fn map_of<'m>(map: &'m Map, name: &str) -> Option<&'m Map> {
    match &get(map, name)?.value {
        NodeValue::Map(map) => Some(map),
        _ => None,
    }
}

/// True if the parameter `name` is given, in any letter case, and is neither `null` nor empty.
pub(in crate::config) fn has_any_case(map: &Map, name: &str) -> bool {
    let given = map.iter().rev().find(|(key, _)| key.text.eq_ignore_ascii_case(name));
    given.is_some_and(|(_, node)| !node.is_null() && node.as_text() != Some(""))
}

/// The row `index` of `plugins`.
pub(in crate::config) fn row_mut(plugins: &mut [Node], index: usize) -> Option<&mut Map> {
    match &mut plugins.get_mut(index)?.value {
        NodeValue::Map(row) => Some(row),
        _ => None,
    }
}

/// True if a row of `plugins` has this name, be it by its type.
pub(in crate::config) fn is_named(row: &Node, name: &str) -> bool {
    let NodeValue::Map(row) = &row.value else { return false };
    text_of(row, "name").or_else(|| text_of(row, "type")) == Some(name)
}
