//! `docs/plugins.md`, from the registry.

use std::fmt::Write;

use super::entries::{Entry, entries};
use super::example::example;
use super::listing::{capital, plural};
use super::parameters::parameters;
use crate::generated::{keep, wrapped};
use crate::plugins::{PluginType, REGISTRY, Stability};

const HEAD: &str = "# Plugins

This page is made from the code by `make docs`. It lists every plugin type with its parameters, when to use it, what it
costs and an example that loads. `pointsman plugins` prints the list and `pointsman plugins NAME` one type.
[configuration.md](configuration.md#plugins) has the formulas.

Parameter names match in any letter case, `null` means the default, and unknown ones are errors. A default that is not
shown is told in the text.
";

fn table_cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn section(out: &mut String, plugin: &PluginType, roles: &[&str]) {
    let _ = writeln!(out, "\n### `{}`\n", plugin.name);
    let mut text = format!("{} {}", plugin.summary, plugin.advice);
    if plugin.stability == Stability::Alpha {
        text.push_str(" *Alpha*: it needs `--allow-experimental-plugins`.");
    }
    if let Some(superseded) = plugin.superseded {
        let _ = write!(text, " Deprecated since {}: use `{}`.", superseded.since, superseded.replacement);
    }
    if let [_, others @ ..] = roles
        && !others.is_empty()
    {
        let _ = write!(text, " It is a {} besides.", others.join(", "));
    }
    let parameters = parameters(plugin);
    if parameters.is_empty() {
        text.push_str(" It takes no parameters.");
    }
    let _ = writeln!(out, "{}", wrapped(&text, ""));
    if !parameters.is_empty() {
        out.push_str("\n| parameter | type | default | meaning |\n|---|---|---|---|\n");
        for row in parameters {
            let default = row.default.map(|text| format!("`{text}`")).unwrap_or_default();
            let cells =
                [format!("`{}`", row.path), row.kind, default, row.meaning].map(|text| table_cell(&text));
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
    }
    let _ = writeln!(out, "\n```yaml\n{}```", example(REGISTRY, plugin));
}

fn page() -> String {
    let mut out = HEAD.to_owned();
    let (mut group, mut missing) = (String::new(), String::new());
    for entry in entries(REGISTRY) {
        match entry {
            Entry::Built(plugin, roles) => {
                let heading = capital(&plural(roles[0]));
                if heading != group {
                    let _ = writeln!(out, "\n## {heading}");
                    group = heading;
                }
                section(&mut out, plugin, &roles);
            }
            Entry::Missing { name, without, .. } => {
                let _ = writeln!(missing, "| `{name}` | {without} |");
            }
        }
    }
    if !missing.is_empty() {
        let text = "`pointsman check` accepts these types and says what is not in force without them. \
                    `pointsman serve` \
                    starts without those that are not built yet if `--allow-missing-plugins` is given.";
        let _ = write!(
            out,
            "\n## Not in force\n\n{}\n\n| type | without it |\n|---|---|\n{missing}",
            wrapped(text, "")
        );
    }
    out
}

#[test]
fn the_generated_page_of_plugins_is_what_the_code_says() {
    keep("docs/plugins.md", &page());
}
