//! Compares the block size that plugins count with to that of the engine.

use serde_json::Value;

/// A plugin that counts blocks of another size than the engine does.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The name of the plugin.
    pub plugin: String,
    /// The problem, as a text for people.
    pub message: String,
    /// The parameter line that solves the problem.
    pub remedy: String,
}

/// Returns the plugins whose block size is not `engine`, in tokens. Each plugin is given by its name, its type and its
/// parameters as written.
pub fn mismatches<'p>(
    plugins: impl Iterator<Item = (&'p str, &'p str, Option<&'p Value>)>,
    engine: u64,
) -> Vec<Mismatch> {
    let mut found = Vec::new();
    for (name, kind, parameters) in plugins {
        let (path, given) = match kind {
            "approx-prefix-cache-producer" | "multicluster-approx-prefix-cache-producer" => {
                ("blockSizeTokens", size(parameters, &["blockSizeTokens"]))
            }
            "precise-prefix-cache-producer" | "precise-prefix-cache-scorer" => {
                let section = parameters.and_then(|all| member(all, "tokenProcessorConfig"));
                let given = size(section, &["blockSizeTokens", "blockSize"]);
                ("tokenProcessorConfig.blockSizeTokens", Some(given.unwrap_or(16)))
            }
            _ => continue,
        };
        let Some(given) = given.filter(|given| *given != engine) else { continue };
        found.push(Mismatch {
            plugin: name.to_owned(),
            message: format!(
                "\"{name}\" counts blocks of {given} tokens, and the blocks of the engine have {engine}, so it expects the wrong prompts to be cached"
            ),
            remedy: format!("`{path}: {engine}` among the parameters of \"{name}\""),
        });
    }
    found
}

/// The value of a parameter, whose name may be in any letter case.
fn member<'v>(parameters: &'v Value, name: &str) -> Option<&'v Value> {
    let found = parameters.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

fn size(parameters: Option<&Value>, names: &[&str]) -> Option<u64> {
    let sizes = names.iter().filter_map(|name| member(parameters?, name)?.as_u64());
    sizes.into_iter().find(|size| *size > 0)
}
