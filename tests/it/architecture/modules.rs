//! Reads Rust files as far as a map of modules needs it: which module lies in which file, which names it defines and
//! imports, and which paths its code names. Code that only tests see is left out.

use std::collections::{BTreeMap, BTreeSet};

/// A module: the file that holds it, and what the file says in it.
#[derive(Default)]
pub(super) struct Module {
    pub(super) file: String,
    pub(super) children: BTreeSet<String>,
    pub(super) defined: BTreeSet<String>,
    pub(super) imports: Vec<Import>,
    /// Paths that the code names, outside of imports.
    pub(super) paths: Vec<Vec<String>>,
}

/// One name that a `use` brings in.
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// The name it has here; `*` for everything that the path holds, `_` for a trait without a name.
    pub(super) name: String,
    pub(super) is_public: bool,
}

/// The modules of one crate, by path. The root has the empty path.
pub(super) type Modules = BTreeMap<Vec<String>, Module>;

/// The modules of the crate whose root is the file `root`, from the texts of its files by path.
pub(super) fn modules(files: &BTreeMap<String, String>, root: &str) -> Modules {
    let mut modules = Modules::new();
    let mut open = vec![(Vec::new(), root.to_owned())];
    while let Some((path, file)) = open.pop() {
        let text = &files[&file];
        let tokens = tokens(text);
        let mut reader = Reader { file: &file, modules: &mut modules, declared: Vec::new() };
        reader.items(&tokens, &path);
        for child in reader.declared {
            let folder = folder_of_children(&file);
            let below = child[path.len()..].join("/");
            let candidates = [format!("{folder}{below}.rs"), format!("{folder}{below}/mod.rs")];
            let found = candidates.into_iter().find(|candidate| files.contains_key(candidate));
            let found = found.unwrap_or_else(|| panic!("{file} declares {child:?}, which no file holds"));
            open.push((child, found));
        }
    }
    modules
}

fn folder_of_children(file: &str) -> String {
    let (folder, name) = file.rsplit_once('/').map_or(("", file), |(folder, name)| (folder, name));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => format!("{folder}/"),
        _ => format!("{}/", file.trim_end_matches(".rs")),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Mark(char),
    /// `::`
    Step,
}

use Token::{Mark, Name, Step};

/// The text without comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            '"' => string_end(rest),
            '\'' => quote_end(rest),
            ':' if rest.starts_with("::") => {
                tokens.push(Step);
                2
            }
            _ if first.is_alphanumeric() || first == '_' => {
                let end = rest.find(|other: char| !other.is_alphanumeric() && other != '_');
                let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
                let quotes = after.trim_start_matches('#').starts_with('"');
                if matches!(name, "r" | "br") && quotes {
                    name.len() + raw_string_end(after)
                } else {
                    if !(first.is_numeric() || name == "b" && quotes) {
                        tokens.push(Name(name.to_owned()));
                    }
                    name.len()
                }
            }
            _ => {
                if !first.is_whitespace() {
                    tokens.push(Mark(first));
                }
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_end(text: &str) -> usize {
    let hashes = text.find('"').unwrap_or_default();
    let end = format!("\"{}", "#".repeat(hashes));
    text[hashes + 1..].find(&end).map_or(text.len(), |at| hashes + 1 + at + end.len())
}

/// The length of a character in quotes, or of a lifetime.
fn quote_end(text: &str) -> usize {
    let mut inside = text.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), Some(escaped)) => {
            let from = 2 + escaped.len_utf8();
            text[from..].find('\'').map_or(text.len(), |at| from + at + 1)
        }
        (Some(character), Some('\'')) => 2 + character.len_utf8(),
        _ => text[1..]
            .find(|other: char| !other.is_alphanumeric() && other != '_')
            .map_or(text.len(), |at| at + 1),
    }
}

/// The index after the group that opens at `at`, or after the one token there.
fn group_end(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token {
            Mark('(' | '[' | '{') => depth += 1,
            Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth <= 0 {
            return index + 1;
        }
    }
    tokens.len()
}

fn is_name(token: Option<&Token>, name: &str) -> bool {
    matches!(token, Some(Name(found)) if found == name)
}

/// The index after the attribute at `at`, and whether it keeps what follows for tests.
fn attribute(tokens: &[Token], at: usize) -> Option<(usize, bool)> {
    if tokens.get(at) != Some(&Mark('#')) {
        return None;
    }
    let open = if tokens.get(at + 1) == Some(&Mark('!')) { at + 2 } else { at + 1 };
    if tokens.get(open) != Some(&Mark('[')) {
        return None;
    }
    let end = group_end(tokens, open);
    let inside = &tokens[open + 1..end - 1];
    let names =
        inside.iter().filter_map(|token| if let Name(name) = token { Some(name.as_str()) } else { None });
    let names: Vec<&str> = names.collect();
    Some((end, matches!(names[..], ["cfg", "test", ..] | ["cfg", "all", "test", ..])))
}

/// The index after the visibility at `at`.
fn visibility(tokens: &[Token], at: usize) -> usize {
    match (is_name(tokens.get(at), "pub"), tokens.get(at + 1)) {
        (true, Some(Mark('('))) => group_end(tokens, at + 1),
        (true, _) => at + 1,
        _ => at,
    }
}

/// The index after the item that starts at `at`, after attributes and visibility. Outside of modules it may be a field,
/// which ends at a comma.
fn item_end(tokens: &[Token], at: usize) -> usize {
    let first = match tokens.get(at) {
        Some(Name(name)) => name.as_str(),
        _ => "",
    };
    let is_function = tokens[at..].iter().take(4).any(|token| is_name(Some(token), "fn"));
    let ends_with_block = is_function
        || matches!(first, "struct" | "enum" | "union" | "trait" | "impl" | "mod" | "macro_rules" | "unsafe");
    let is_item = ends_with_block || matches!(first, "use" | "const" | "static" | "type" | "let");
    let mut index = at;
    while let Some(token) = tokens.get(index) {
        match token {
            Mark(';') => return index + 1,
            Mark(',') if !is_item => return index + 1,
            Mark('{') if ends_with_block || !is_item => return group_end(tokens, index),
            Mark('(' | '[' | '{') => index = group_end(tokens, index),
            Mark(')' | ']' | '}') => return index,
            _ => index += 1,
        }
    }
    index
}

struct Reader<'a> {
    file: &'a str,
    modules: &'a mut Modules,
    /// Modules that lie in other files.
    declared: Vec<Vec<String>>,
}

impl Reader<'_> {
    /// Reads the items of one module.
    fn items(&mut self, tokens: &[Token], path: &[String]) {
        let mut module = Module { file: self.file.to_owned(), ..Module::default() };
        let mut at = 0;
        while at < tokens.len() {
            let (start, for_tests) = after_attributes(tokens, at);
            let item = visibility(tokens, start);
            let end = item_end(tokens, item).max(item + 1).min(tokens.len());
            if !for_tests && item < tokens.len() {
                body(&tokens[at..start], &mut module);
                self.item(&tokens[item..end], item > start, path, &mut module);
            }
            at = end;
        }
        self.modules.insert(path.to_vec(), module);
    }

    fn item(&mut self, item: &[Token], is_public: bool, path: &[String], module: &mut Module) {
        let keywords = ["unsafe", "async", "const", "extern", "default"];
        let skipped = item.iter().take_while(|token| keywords.iter().any(|word| is_name(Some(token), word)));
        let mut skipped = skipped.count();
        if is_name(item.first(), "const") && !item.iter().take(4).any(|token| is_name(Some(token), "fn")) {
            skipped = 0;
        }
        let word = if let Some(Name(word)) = item.get(skipped) { word.as_str() } else { "" };
        let name = if let Some(Name(name)) = item.get(skipped + 1) { name.as_str() } else { "" };
        match word {
            "use" => imports(&item[1..], &[], is_public, &mut module.imports),
            "mod" => {
                module.children.insert(name.to_owned());
                let child = [path, &[name.to_owned()]].concat();
                match item.get(skipped + 2) {
                    Some(Mark('{')) => self.items(&item[skipped + 3..item.len() - 1], &child),
                    _ => self.declared.push(child),
                }
            }
            "struct" | "enum" | "union" | "trait" | "type" | "const" | "static" | "fn" => {
                module.defined.insert(name.to_owned());
                body(item, module);
            }
            "macro_rules" => {
                if let Some(Name(name)) = item.get(2) {
                    module.defined.insert(name.clone());
                }
                body(item, module);
            }
            _ => body(item, module),
        }
    }
}

/// The index after all attributes at `at`, and whether one of them keeps what follows for tests.
fn after_attributes(tokens: &[Token], mut at: usize) -> (usize, bool) {
    let mut for_tests = false;
    while let Some((end, test)) = attribute(tokens, at) {
        at = end;
        for_tests |= test;
    }
    (at, for_tests)
}

/// Adds the paths and imports inside an item.
fn body(tokens: &[Token], module: &mut Module) {
    let mut at = 0;
    while at < tokens.len() {
        let (after, for_tests) = after_attributes(tokens, at);
        if for_tests {
            at = item_end(tokens, visibility(tokens, after)).max(after);
            continue;
        }
        match &tokens[at] {
            Name(word) if word == "use" => {
                let end = item_end(tokens, at);
                imports(&tokens[at + 1..end], &[], false, &mut module.imports);
                at = end.max(at + 1);
            }
            Name(first) if at == 0 || !matches!(tokens[at - 1], Step | Mark('.')) => {
                let mut path = vec![first.clone()];
                while let (Some(Step), Some(Name(next))) = (tokens.get(at + 1), tokens.get(at + 2)) {
                    path.push(next.clone());
                    at += 2;
                }
                module.paths.push(path);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// Adds what one tree of a `use` brings in.
fn imports(tree: &[Token], above: &[String], is_public: bool, found: &mut Vec<Import>) {
    let mut path = above.to_vec();
    let mut name = None;
    for (at, token) in tree.iter().enumerate() {
        match token {
            Name(word) if word == "as" => {
                name = tree
                    .get(at + 1)
                    .map(|token| if let Name(name) = token { name.clone() } else { "_".to_owned() });
                break;
            }
            Name(word) if word == "self" && !path.is_empty() => {}
            Name(word) => path.push(word.clone()),
            Mark('*') => name = Some("*".to_owned()),
            Mark('{') => {
                let inside = &tree[at + 1..group_end(tree, at) - 1];
                for branch in branches(inside) {
                    imports(branch, &path, is_public, found);
                }
                return;
            }
            _ => {}
        }
    }
    if let Some(last) = path.last().cloned() {
        found.push(Import { path, name: name.unwrap_or(last), is_public });
    }
}

/// The parts between commas that stand in no group.
fn branches(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = Vec::new();
    let (mut from, mut at) = (0, 0);
    while at < tokens.len() {
        if tokens[at] == Mark(',') {
            parts.push(&tokens[from..at]);
            from = at + 1;
        }
        at = group_end(tokens, at).max(at + 1);
    }
    parts.push(&tokens[from..]);
    parts.retain(|part| !part.is_empty());
    parts
}
