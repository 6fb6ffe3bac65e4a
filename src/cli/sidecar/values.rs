//! What was said on the command line, in the configuration and in the environment, by flag.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use super::flags::{FLAGS, Flag, Takes};
use crate::document::{self, Node, NodeValue, nearest};

/// The values of flags.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    given: BTreeMap<&'static str, Vec<String>>,
    file: BTreeMap<&'static str, Vec<String>>,
    environment: BTreeMap<&'static str, String>,
    /// For the operator.
    pub(super) warnings: Vec<String>,
}

/// Why the command line cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It asks for help.
    Help,
    /// It asks for the version.
    Version,
    /// There is no such flag, or its value is missing.
    Wrong(String),
}

impl Values {
    /// Reads the words behind the command: `--name`, `-name`, with `=value` or the value as the next word. Empty words
    /// and stray ones are passed over.
    pub(super) fn read(words: &[OsString]) -> Result<Self, Unreadable> {
        let mut values = Self::default();
        let mut words = words.iter().map(|word| word.to_string_lossy().into_owned()).peekable();
        while let Some(word) = words.next() {
            let word = word.trim();
            let bare = word.trim_matches(['\'', '"']);
            if bare.is_empty() {
                continue;
            }
            let Some(body) =
                bare.strip_prefix("--").or_else(|| bare.strip_prefix('-')).filter(|body| !body.is_empty())
            else {
                values.warnings.push(format!("argument {word:?} is no flag and has no effect"));
                continue;
            };
            let (name, value) = split(body);
            match name {
                "help" | "h" => return Err(Unreadable::Help),
                "version" => return Err(Unreadable::Version),
                _ => {}
            }
            let Some(flag) = Flag::named(name) else { return Err(Unreadable::Wrong(unknown(name))) };
            let value = match (value, flag.takes) {
                (Some(value), _) => value.to_owned(),
                (None, Takes::Switch) => {
                    words.next_if(|next| boolean(next).is_some()).unwrap_or_else(|| "true".to_owned())
                }
                (None, _) => match words.next_if(|next| !next.starts_with('-') || next.len() == 1) {
                    Some(value) => value,
                    None => return Err(Unreadable::Wrong(format!("--{name}: its value is missing"))),
                },
            };
            values.give(flag, value);
        }
        Ok(values)
    }

    fn give(&mut self, flag: &'static Flag, value: String) {
        if let Some(today) = flag.deprecated {
            self.warnings.push(format!("flag --{} is deprecated; today it is {today}", flag.name));
        }
        let list = self.given.entry(flag.name).or_default();
        if flag.takes != Takes::List {
            list.clear();
        }
        list.push(value);
    }

    /// Takes in the environment.
    pub(super) fn with_environment(mut self, get: impl Fn(&str) -> Option<String>) -> Self {
        for flag in FLAGS {
            if let Some(value) = flag.env.and_then(&get).filter(|value| !value.trim().is_empty()) {
                self.environment.insert(flag.name, value.trim().to_owned());
            }
        }
        self
    }

    /// Takes in a configuration. Unknown keys are errors; empty values and zeros are as good as absent.
    pub(super) fn with_configuration(mut self, text: &str) -> Result<Self, Vec<String>> {
        let root = document::parse(text).map_err(|error| vec![error.to_string()])?;
        let Some(root) = root.filter(|root| !root.is_null()) else { return Ok(self) };
        let Some(entries) = root.as_map() else {
            return Err(vec![format!("line {}: got {root}, expected a mapping of flags", root.line)]);
        };
        let (mut problems, mut seen) = (Vec::new(), BTreeSet::new());
        for (key, node) in entries {
            let Some(flag) = Flag::named(&key.text).filter(|flag| flag.in_file) else {
                let known = FLAGS.iter().filter(|flag| flag.in_file).map(|flag| flag.name);
                let near = nearest(&key.text, known)
                    .map_or_else(String::new, |name| format!("; did you mean {name}?"));
                problems
                    .push(format!("line {}: {:?} is no key of the configuration{near}", key.line, key.text));
                continue;
            };
            if !seen.insert(flag.name) {
                problems.push(format!("line {}: {} stands there twice", key.line, flag.name));
            }
            match texts(node) {
                Some(texts) if counts(flag, &texts) => {
                    self.file.insert(flag.name, texts);
                }
                Some(_) => {}
                None => {
                    problems.push(format!("line {}: {}: got {node}, expected a value", node.line, flag.name));
                }
            }
        }
        if problems.is_empty() { Ok(self) } else { Err(problems) }
    }

    /// True if the flag stands on the command line.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.get(name).is_some_and(|values| values.iter().any(|value| !value.is_empty()))
    }

    /// True if anybody said anything.
    pub(super) fn is_said(&self, name: &str) -> bool {
        self.is_given(name) || self.file.contains_key(name) || self.environment.contains_key(name)
    }

    /// The values of a flag, from the command line, else from the configuration, else from the environment, else its
    /// default.
    pub(super) fn all(&self, name: &'static str) -> Vec<String> {
        let own = self.given.get(name).filter(|values| values.iter().any(|value| !value.is_empty()));
        if let Some(values) = own.or_else(|| self.file.get(name)) {
            return values.iter().flat_map(|value| pieces(name, value)).collect();
        }
        let default = Flag::named(name).map_or("", |flag| flag.default);
        pieces(name, self.environment.get(name).map_or(default, String::as_str))
    }

    /// The value of a flag.
    pub(super) fn one(&self, name: &'static str) -> String {
        self.all(name).pop().unwrap_or_default()
    }
}

/// The parts of a list, or the value as it is.
fn pieces(name: &str, value: &str) -> Vec<String> {
    if Flag::named(name).is_some_and(|flag| flag.takes == Takes::List) {
        let parts = value.trim_matches(['[', ']']).split(',').map(str::trim);
        return parts.filter(|part| !part.is_empty()).map(str::to_owned).collect();
    }
    vec![value.trim().to_owned()]
}

/// Name and value, if it is there. `v5` is `v=5`.
fn split(body: &str) -> (&str, Option<&str>) {
    if let Some((name, value)) = body.split_once('=') {
        return (name, Some(value.trim_matches(['\'', '"'])));
    }
    match body.strip_prefix('v').filter(|level| level.parse::<i32>().is_ok()) {
        Some(level) => ("v", Some(level)),
        None => (body, None),
    }
}

fn unknown(name: &str) -> String {
    let near = nearest(name, FLAGS.iter().map(|flag| flag.name));
    let near = near.map_or_else(String::new, |near| format!("; did you mean --{near}?"));
    format!("--{name}: there is no such flag{near}")
}

/// Booleans as Go reads them.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn texts(node: &Node) -> Option<Vec<String>> {
    match &node.value {
        NodeValue::Null => Some(Vec::new()),
        NodeValue::Bool(value) => Some(vec![value.to_string()]),
        NodeValue::Number(number) => Some(vec![number.to_string()]),
        NodeValue::Text(text) => Some(vec![text.clone()]),
        NodeValue::List(list) => {
            let parts: Option<Vec<_>> = list.iter().map(texts).collect();
            Some(parts?.concat())
        }
        NodeValue::Map(_) => None,
    }
}

/// Whether a value of the configuration says anything. Booleans always do, and so does a number of retries.
fn counts(flag: &Flag, texts: &[String]) -> bool {
    let always = flag.takes == Takes::Switch || flag.name == "prefill-max-retries";
    texts.iter().any(|text| always || !(text.is_empty() || text == "0"))
}
