//! The texts of `pointsman plugins`.

use std::fmt::Write;

use super::entries::{Entry, entries};
use super::example::example;
use super::parameters::parameters;
use crate::document::hint;
use crate::plugins::{PluginType, Registry, Stability};

/// All types that a document may name, by role, one a line.
pub fn list_plugins(registry: Registry) -> String {
    let entries = entries(registry);
    let width = entries.iter().map(|entry| entry.name().len()).max().unwrap_or_default();
    let mut out = String::new();
    let mut group = String::new();
    for entry in &entries {
        let (heading, line) = match entry {
            Entry::Built(plugin, roles) => (
                plural(roles.first().copied().unwrap_or("plugin")),
                format!("{}{}", plugin.summary, remarks(plugin)),
            ),
            Entry::Missing { role, without, .. } => {
                ("not in force yet".to_owned(), format!("{role}: {without}"))
            }
        };
        if heading != group {
            let gap = if out.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{}", capital(&heading));
            group = heading;
        }
        let _ = writeln!(out, "  {:width$}  {line}", entry.name());
    }
    out.push_str("\n`pointsman plugins NAME` explains one of them.\n");
    out
}

/// One type: its roles, what it does, when to use it and what it costs, its parameters, and an example.
///
/// # Errors
///
/// There is no type of this name; the text names one that is like it.
pub fn explain_plugin(registry: Registry, name: &str) -> Result<String, String> {
    let entries = entries(registry);
    let mut found = entries.iter().filter(|entry| entry.name() == name).peekable();
    if found.peek().is_none() {
        let mut names: Vec<&str> = entries.iter().map(Entry::name).collect();
        names.sort_unstable();
        names.dedup();
        return Err(format!("there is no plugin type \"{name}\"{}", hint(name, &names)));
    }
    let texts = found.map(|entry| match entry {
        Entry::Built(plugin, roles) => explain(registry, plugin, roles),
        Entry::Missing { role, without, .. } => {
            format!(
                "{name}: {role}, not in force yet\n\n{}. `pointsman check` accepts it; `pointsman serve` starts \
                 without it if --allow-missing-plugins is given.\n",
                capital(without)
            )
        }
    });
    Ok(texts.collect::<Vec<_>>().join("\n"))
}

fn explain(registry: Registry, plugin: &PluginType, roles: &[&str]) -> String {
    let mut out = format!("{}: {}, {}\n\n", plugin.name, roles.join(", "), plugin.stability.name());
    for text in [plugin.summary, plugin.advice].into_iter().filter(|text| !text.is_empty()) {
        let _ = writeln!(out, "{text}");
    }
    if plugin.stability == Stability::Alpha {
        out.push_str("It may still change, and needs --allow-experimental-plugins.\n");
    }
    if let Some(superseded) = plugin.superseded {
        let _ = writeln!(out, "Deprecated since {}: use {}.", superseded.since, superseded.replacement);
    }
    let parameters = parameters(plugin);
    if parameters.is_empty() {
        out.push_str("\nIt takes no parameters.\n");
    } else {
        out.push_str("\nParameters\n");
        for parameter in &parameters {
            let default =
                parameter.default.as_ref().map(|text| format!(", default {text}")).unwrap_or_default();
            let _ = writeln!(out, "  {} ({}{default})", parameter.path, parameter.kind);
            if !parameter.meaning.is_empty() {
                let _ = writeln!(out, "      {}", parameter.meaning);
            }
        }
    }
    let _ = write!(out, "\nExample\n\n{}", example(registry, plugin));
    out
}

/// What a line says behind the summary.
pub(super) fn remarks(plugin: &PluginType) -> String {
    let mut remarks = Vec::new();
    if plugin.stability == Stability::Alpha {
        remarks.push("alpha".to_owned());
    }
    if let Some(superseded) = plugin.superseded {
        remarks.push(format!("deprecated: {}", superseded.replacement));
    }
    if remarks.is_empty() { String::new() } else { format!(" ({})", remarks.join(", ")) }
}

/// The plural of a role.
pub(super) fn plural(role: &str) -> String {
    match role {
        "pre-request" | "request header" | "response header" => format!("{role} hooks"),
        "endpoint discovery" => role.to_owned(),
        _ => match role.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{role}s"),
        },
    }
}

/// The text with its first letter in upper case.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::REGISTRY;

    #[test]
    fn the_list_has_every_type_under_its_role_on_one_line() {
        let list = list_plugins(REGISTRY);
        for plugin in REGISTRY {
            let rows = list.lines().filter(|line| line.starts_with(&format!("  {} ", plugin.name))).count();
            assert_eq!(rows, 1, "{}\n{list}", plugin.name);
        }
        let at = |text: &str| list.find(text).unwrap_or_else(|| panic!("{text}\n{list}"));
        assert!(at("\nScorers\n") < at("  queue-scorer ") && at("  queue-scorer ") < at("\nPickers\n"));
        assert!(at("\nSaturation detectors\n") < at("  utilization-detector "));
    }

    #[test]
    fn types_that_are_not_in_force_are_listed_and_explained_as_such() {
        let missing = crate::config::missing::all().next().unwrap();
        let list = list_plugins(REGISTRY);
        assert!(list.find("\nNot in force yet\n") < list.find(missing.name), "{list}");
        let text = explain_plugin(REGISTRY, missing.name).unwrap();
        assert!(text.contains("not in force yet") && text.contains("--allow-missing-plugins"), "{text}");
    }

    #[test]
    fn a_type_is_explained_with_its_role_its_parameters_and_an_example() {
        let text = explain_plugin(REGISTRY, "load-aware-scorer").unwrap();
        assert!(text.starts_with("load-aware-scorer: scorer, beta\n"), "{text}");
        for part in
            ["threshold (whole number, default 128)", "It costs", "\nExample\n", "- type: load-aware-scorer"]
        {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        let text = explain_plugin(REGISTRY, "session-affinity-scorer").unwrap();
        assert!(text.contains("needs --allow-experimental-plugins"), "{text}");
    }

    #[test]
    fn a_misspelt_name_gets_the_nearest_one() {
        let error = explain_plugin(REGISTRY, "qeue-scorer").unwrap_err();
        assert!(error.contains("did you mean `queue-scorer`?"), "{error}");
    }
}
