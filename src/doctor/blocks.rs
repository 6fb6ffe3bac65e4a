//! Sizes of blocks: what plugins count with.

use serde_json::Value;

/// A plugin that counts blocks of another size than the engine does.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Name of the plugin.
    pub plugin: String,
    /// What is wrong.
    pub message: String,
    /// The parameter that mends it.
    pub remedy: String,
}

/// Plugins whose blocks are not of this size. Each plugin is its name, its type and its parameters as written.
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
                "\"{name}\" counts blocks of {given} tokens, and the engine's have {engine}: what it takes for cached is not what is"
            ),
            remedy: format!("`{path}: {engine}` among the parameters of \"{name}\""),
        });
    }
    found
}

/// A parameter, in any letter case.
fn member<'v>(parameters: &'v Value, name: &str) -> Option<&'v Value> {
    let found = parameters.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

fn size(parameters: Option<&Value>, names: &[&str]) -> Option<u64> {
    let sizes = names.iter().filter_map(|name| member(parameters?, name)?.as_u64());
    sizes.into_iter().find(|size| *size > 0)
}
