//! Parameters that had another name or are gone.

use super::tree::{self, Map};
use crate::document::{NodeValue, Problems};

/// The present form of a parameter.
enum Today {
    /// The parameter has this name.
    Named(&'static str),
    /// The parameter has no effect. The text says why.
    Gone(&'static str),
}

/// Plugin type by today's name, the parameter as it was, and what became of it.
const FORMER: &[(&str, &str, Today)] = &[
    (
        "core-metrics-extractor",
        "enableMultiEngine",
        Today::Gone("`engineConfigs` may always list several engines"),
    ),
    ("data-parallel-profile-handler", "targetPort", Today::Named("primaryPort")),
    ("max-score-picker", "maxEndpoints", Today::Named("maxNumOfEndpoints")),
    ("mm-embeddings-cache-producer", "cacheSizeInMB", Today::Named("cacheSizeInMBPerServer")),
    ("random-picker", "maxEndpoints", Today::Named("maxNumOfEndpoints")),
    ("weighted-random-picker", "maxEndpoints", Today::Named("maxNumOfEndpoints")),
];

/// Translates the parameters of a row of `plugins` whose type has today's name.
pub(super) fn translate(row: &mut Map, path: &str, problems: &mut Problems) {
    let Some(kind) = tree::text_of(row, "type").map(str::to_owned) else { return };
    let Some(NodeValue::Map(parameters)) = tree::get_mut(row, "parameters").map(|node| &mut node.value)
    else {
        return;
    };
    for (_, former, today) in FORMER.iter().filter(|(owner, ..)| *owner == kind) {
        let Some((key, node)) = tree::take_any_case(parameters, former) else { continue };
        let at = format!("{path}.parameters.{}", key.text);
        match today {
            Today::Named(name) if tree::get(parameters, name).is_some() => {
                problems.warning(key.line, at, format!("has no effect beside `{name}`, its name today"));
            }
            Today::Named(name) => {
                tree::put(parameters, key.line, name, node);
                problems.warning(key.line, at, format!("is the former name of `{name}`; write that"));
            }
            Today::Gone(why) => {
                problems.warning(key.line, at, format!("has no effect any more: {why}; leave it out"));
            }
        }
    }
}
