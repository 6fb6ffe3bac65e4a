//! Forms that earlier releases took, translated to today's in the tree, before the document is read. Each gets one
//! warning that says how to write it today.
//!
//! | file | what |
//! |---|---|
//! | `api_versions`, `gates` | groups and feature gates that are gone |
//! | `sections` | fields that stood elsewhere |
//! | `types`, `parameters` | names that changed |
//! | `prefix_cache` | scorers that held a prefix index of their own |
//! | `pd_profile` | profile handlers that decided about disaggregation themselves |
//! | `slo_handler` | the profile handler that a header switched to predicted latencies |
//! | `media_estimate` | fields that stood beside the mode they belong to |
//! | `shapes` | forms that templates and habit produce, and no release took |
//! | `reporter` | the first parameters of the reporter of figures |
//! | `tree` | changing a tree |

mod api_versions;
mod gates;
mod media_estimate;
mod parameters;
mod pd_profile;
mod prefix_cache;
mod reporter;
mod sections;
mod shapes;
mod slo_handler;
pub(super) mod tree;
mod types;

pub(super) use api_versions::is_former as is_former_api_version;
pub(super) use gates::why_gone as why_gate_is_gone;

use crate::document::{Node, NodeValue, Problems};

/// Translates the tree of a whole document. What is in today's form stays as it is.
pub(super) fn translate(root: &mut Node, problems: &mut Problems) {
    let NodeValue::Map(document) = &mut root.value else { return };
    sections::translate(document, problems);
    shapes::translate(document, problems);
    let Some(NodeValue::List(plugins)) = tree::get_mut(document, "plugins").map(|node| &mut node.value)
    else {
        return;
    };
    for (index, row) in plugins.iter_mut().enumerate() {
        let NodeValue::Map(row) = &mut row.value else { continue };
        let path = format!("plugins[{index}]");
        types::translate(row, &path, problems);
        slo_handler::translate(row, &path, problems);
        reporter::translate(row, &path, problems);
        media_estimate::translate(row, &path, problems);
        pd_profile::translate_encode(row, &path, problems);
        parameters::translate(row, &path, problems);
    }
    prefix_cache::translate(plugins, problems);
    pd_profile::translate(plugins, problems);
}

#[cfg(test)]
mod tests;
