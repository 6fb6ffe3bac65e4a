//! Changes of a tree, carried over to the lines of its text.
//!
//! Blocks, the mappings and lists that stand on lines of their own, are walked side by side before and after. Entries
//! that are the same are copied with the comments before them; one whose key alone changed keeps its lines; what moved
//! takes its lines along; anything else is written anew.

use super::yaml;
use crate::document::{Key, Node, NodeValue};

type Entry = (Key, Node);

/// The text of `before` with the changes that lead to `after`.
pub(super) fn edit(text: &str, before: &Node, after: &Node) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let page = Page { lines: text.lines().collect(), moved: Vec::new() };
    let (NodeValue::Map(old), NodeValue::Map(new)) = (&before.value, &after.value) else {
        return yaml::document(after);
    };
    let Some(indent) = page.block(old) else { return yaml::document(after) };
    let mut page = page;
    page.moved = page.blocks(old, page.lines.len());
    let start = line(&old[0].0);
    let mut out: Vec<String> = page.lines[..start].iter().map(|line| (*line).to_owned()).collect();
    out.extend(page.map(old, new, (start, page.lines.len()), indent));
    out.join("\n") + "\n"
}

/// Position of the line on which a key stands.
fn line(key: &Key) -> usize {
    (key.line as usize).saturating_sub(1)
}

/// The entry of a mapping in the text.
struct Block<'n> {
    entry: &'n Entry,
    /// Line of its key.
    at: usize,
    /// End of its lines.
    to: usize,
    indent: usize,
}

struct Page<'t> {
    lines: Vec<&'t str>,
    /// Entries whose values are blocks, wherever they stand.
    moved: Vec<Block<'t>>,
}

impl<'t> Page<'t> {
    /// The column of a mapping's keys if each stands on a line of its own, below the one before.
    fn block(&self, map: &[Entry]) -> Option<usize> {
        let mut last = None;
        let mut column = None;
        for (key, _) in map {
            let at = line(key);
            let found = key_column(self.lines.get(at)?, &key.text)?;
            if last.is_some_and(|last| at <= last) || column.is_some_and(|column| column != found) {
                return None;
            }
            (last, column) = (Some(at), Some(found));
        }
        column
    }

    /// The column of a list's dashes if each element begins on a line of its own.
    fn dashes(&self, list: &[Node]) -> Option<usize> {
        let mut last = None;
        let mut column = None;
        for node in list {
            let at = first_line(node);
            let text = self.lines.get(at)?;
            let found = text.len() - text.trim_start_matches(' ').len();
            let dashed = text[found..].starts_with("- ");
            if !dashed || last.is_some_and(|last| at <= last) || column.is_some_and(|column| column != found)
            {
                return None;
            }
            (last, column) = (Some(at), Some(found));
        }
        column
    }

    /// First line of what belongs to the entry at `at`: the comments right above it that are not indented more deeply.
    fn begins(&self, at: usize, after: usize, indent: usize) -> usize {
        let mut from = at;
        while from > after {
            let text = self.lines[from - 1];
            let inner = text.trim_start();
            let comment = inner.starts_with('#') && text.len() - inner.len() <= indent;
            if !comment && !inner.is_empty() {
                break;
            }
            from -= 1;
        }
        from
    }

    /// Begin, line of the key, and end of each part that begins at one of `starts`, within `span`.
    fn parts(&self, starts: &[usize], span: (usize, usize), indent: usize) -> Vec<(usize, usize, usize)> {
        let mut parts: Vec<(usize, usize, usize)> = Vec::with_capacity(starts.len());
        for (index, at) in starts.iter().enumerate() {
            let after = if index == 0 { span.0 } else { starts[index - 1] + 1 };
            let from = if index == 0 { span.0.min(*at) } else { self.begins(*at, after, indent) };
            if let Some(last) = parts.last_mut() {
                last.2 = from;
            }
            parts.push((from, *at, span.1));
        }
        parts
    }

    /// Every entry below `map` whose value is a block.
    fn blocks(&self, map: &'t [Entry], end: usize) -> Vec<Block<'t>> {
        let Some(indent) = self.block(map) else { return Vec::new() };
        let starts: Vec<usize> = map.iter().map(|(key, _)| line(key)).collect();
        let mut blocks = Vec::new();
        for (entry, (_, at, to)) in map.iter().zip(self.parts(&starts, (starts[0], end), indent)) {
            if !self.is_block(&entry.1, at) {
                continue;
            }
            blocks.push(Block { entry, at, to, indent });
            match &entry.1.value {
                NodeValue::Map(inner) => blocks.extend(self.blocks(inner, to)),
                NodeValue::List(list) => {
                    let starts: Vec<usize> = list.iter().map(first_line).collect();
                    let dashes = self.dashes(list).unwrap_or_default();
                    for (node, (_, _, to)) in list.iter().zip(self.parts(&starts, (at + 1, to), dashes)) {
                        if let NodeValue::Map(inner) = &node.value {
                            blocks.extend(self.blocks(inner, to));
                        }
                    }
                }
                _ => {}
            }
        }
        blocks
    }

    /// True if the value of the key on line `at` is a block below it.
    fn is_block(&self, node: &Node, at: usize) -> bool {
        match &node.value {
            NodeValue::Map(map) => !map.is_empty() && line(&map[0].0) > at && self.block(map).is_some(),
            NodeValue::List(list) => {
                !list.is_empty() && first_line(&list[0]) > at && self.dashes(list).is_some()
            }
            _ => false,
        }
    }

    /// Begin of the blank lines and comments at the end of these lines.
    fn tail(&self, from: usize, to: usize) -> usize {
        let told = |text: &&str| !text.trim().is_empty() && !text.trim_start().starts_with('#');
        self.lines[from..to].iter().rposition(told).map_or(from, |last| from + last + 1)
    }

    fn copied(&self, from: usize, to: usize) -> impl Iterator<Item = String> {
        self.lines[from..to].iter().map(|line| (*line).to_owned())
    }

    /// The lines of a mapping after its changes.
    fn map(&self, old: &[Entry], new: &[Entry], span: (usize, usize), indent: usize) -> Vec<String> {
        let starts: Vec<usize> = old.iter().map(|(key, _)| line(key)).collect();
        let has = |map: &[Entry], name: &str| map.iter().any(|(key, _)| key.text == name);
        let mut taken = vec![false; new.len()];
        let mut out = Vec::new();
        for ((key, node), (from, at, to)) in old.iter().zip(self.parts(&starts, span, indent)) {
            let fits = |(other, _): &Entry| {
                let renamed = other.line == key.line && !has(new, &key.text) && !has(old, &other.text);
                other.text == key.text || renamed
            };
            let Some(place) = (0..new.len()).find(|place| !taken[*place] && fits(&new[*place])) else {
                continue;
            };
            taken[place] = true;
            let (today, value) = &new[place];
            let head = key_line(self.lines[at], indent, &key.text, &today.text);
            out.extend(self.copied(from, at));
            if value.to_json() == node.to_json() {
                out.push(head);
                out.extend(self.copied(at + 1, to));
            } else if let Some(inner) = self.inner(node, value, (at, to)) {
                out.push(head);
                out.extend(inner);
            } else {
                let mut rows = yaml::entry(&today.text, value, indent);
                if let ([row], Some(comment)) = (rows.as_mut_slice(), comment_of(self.lines[at])) {
                    row.push_str("  ");
                    row.push_str(comment);
                }
                out.extend(rows);
                out.extend(self.copied(self.tail(at + 1, to), to));
            }
        }
        let added = new.iter().zip(&taken).filter(|(_, taken)| !**taken);
        let rows: Vec<String> = added.flat_map(|((key, node), _)| self.entry(key, node, indent)).collect();
        // Blank lines at the end stay there.
        let end = out.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
        out.splice(end..end, rows);
        out
    }

    /// The lines below the key of a changed block; `None` if the value is no block, before or after.
    fn inner(&self, old: &Node, new: &Node, (at, to): (usize, usize)) -> Option<Vec<String>> {
        if !self.is_block(old, at) {
            return None;
        }
        match (&old.value, &new.value) {
            (NodeValue::Map(old), NodeValue::Map(new)) if !new.is_empty() => {
                Some(self.map(old, new, (at + 1, to), self.block(old)?))
            }
            (NodeValue::List(old), NodeValue::List(new)) if !new.is_empty() => {
                Some(self.list(old, new, (at + 1, to), self.dashes(old)?))
            }
            _ => None,
        }
    }

    /// The lines of a list after its changes. Elements are told by their line.
    fn list(&self, old: &[Node], new: &[Node], span: (usize, usize), dashes: usize) -> Vec<String> {
        let starts: Vec<usize> = old.iter().map(first_line).collect();
        let mut taken = vec![false; new.len()];
        let mut out = Vec::new();
        for (node, (from, at, to)) in old.iter().zip(self.parts(&starts, span, dashes)) {
            let fits = |place: &usize| !taken[*place] && new[*place].line == node.line;
            let Some(place) = (0..new.len()).find(fits) else { continue };
            taken[place] = true;
            let value = &new[place];
            if value.to_json() == node.to_json() {
                out.extend(self.copied(from, to));
                continue;
            }
            out.extend(self.copied(from, at));
            let block = match (&node.value, &value.value) {
                (NodeValue::Map(old), NodeValue::Map(new)) if !new.is_empty() => {
                    self.block(old).map(|indent| self.map(old, new, (at, to), indent))
                }
                _ => None,
            };
            let mut rows = block.unwrap_or_else(|| yaml::element(value, dashes));
            let told = |row: &String| !row.trim().is_empty() && !row.trim_start().starts_with('#');
            if let Some(first) = rows.iter_mut().find(|row| told(row))
                && first.as_bytes().get(dashes) == Some(&b' ')
            {
                first.replace_range(dashes..=dashes, "-");
            }
            out.extend(rows);
        }
        let added = new.iter().zip(&taken).filter(|(_, taken)| !**taken);
        let rows: Vec<String> = added.flat_map(|(node, _)| yaml::element(node, dashes)).collect();
        let end = out.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
        out.splice(end..end, rows);
        out
    }

    /// An entry that is new here. One that stood elsewhere brings its lines along.
    fn entry(&self, key: &Key, node: &Node, indent: usize) -> Vec<String> {
        let value = node.to_json();
        let same = |block: &&Block<'_>| block.entry.0.line == key.line && block.entry.1.to_json() == value;
        let Some(block) = self.moved.iter().find(same) else {
            return yaml::entry(&key.text, node, indent);
        };
        let mut rows = vec![key_line(self.lines[block.at], block.indent, &block.entry.0.text, &key.text)];
        rows.extend(self.copied(block.at + 1, block.to));
        let shifted = rows.into_iter().map(|row| match row.strip_prefix(&" ".repeat(block.indent)) {
            Some(rest) => format!("{}{rest}", " ".repeat(indent)),
            None => row,
        });
        shifted.collect()
    }
}

/// Position of the line on which an element of a list begins.
fn first_line(node: &Node) -> usize {
    let first = node.as_map().and_then(|map| map.first()).map_or(node.line, |(key, _)| key.line);
    (first.min(node.line) as usize).saturating_sub(1)
}

/// The column in which `key` stands as a key; dashes may be before it.
fn key_column(text: &str, key: &str) -> Option<usize> {
    let inner = text.trim_start_matches([' ', '-']);
    let column = text.len() - inner.len();
    let rest = match inner.chars().next()? {
        quote @ ('"' | '\'') => inner[1..].strip_prefix(key)?.strip_prefix(quote)?,
        _ => inner.strip_prefix(key)?,
    };
    let rest = rest.trim_start().strip_prefix(':')?;
    (rest.is_empty() || rest.starts_with(' ')).then_some(column)
}

/// The line of a key with its name of today, and blanks for the dashes before it.
fn key_line(text: &str, indent: usize, key: &str, today: &str) -> String {
    let rest = &text[indent..];
    let gap = " ".repeat(indent);
    if key == today {
        return format!("{gap}{rest}");
    }
    let quoted = usize::from(rest.starts_with(['"', '\'']));
    format!("{gap}{today}{}", &rest[key.len() + 2 * quoted..])
}

/// The comment behind a value.
fn comment_of(text: &str) -> Option<&str> {
    let start = text.rfind(['"', '\'']).map_or(0, |quote| quote + 1);
    let found = text[start..].find(" #")?;
    Some(text[start + found..].trim())
}
