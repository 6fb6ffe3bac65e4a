//! `decision-tree-filter`, see the folder.
//!
//! A node has a filter, `current`, which is another plugin (`pluginRef`) or a tree of its own (`decisionTree`). If it
//! leaves somebody, `nextOnSuccess` goes on with them; if not, `nextOnFailure` goes on with those that there were before
//! it. `nextOnSuccessOrFailure` stands for either. Without a next node, what the filter leaves is the result.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::{BuildCx, BuildError, FilterSlot, PluginType, Roles, Stability};
use crate::scheduling::{Call, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("decision-tree-filter", Stability::Beta, build)
    .superseded_by("queue-scorer", "v1.0.0 of the inference extension")
    .about(
        "Walks a tree of filters.",
        "Use scorers with weights instead. It costs what the filters on its way cost.",
    )
    .with_example("current: {pluginRef: low-queue-filter}\nnextOnFailure: {pluginRef: least-queue-filter}");

/// Deepest tree that is taken.
const MAX_DEPTH: usize = 32;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// The filter of this node; required.
    current: Option<Box<Entry>>,
    /// The node that follows if the filter leaves an endpoint.
    next_on_success: Option<Box<Entry>>,
    /// The node that follows if the filter leaves no endpoint.
    next_on_failure: Option<Box<Entry>>,
    /// The node that follows in either case.
    next_on_success_or_failure: Option<Box<Entry>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    /// Name of a filter.
    plugin_ref: String,
    /// A tree in its place.
    decision_tree: Option<Box<Params>>,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let tree = node(cx, params, "", 0)?;
    Ok(Roles::default().filter(Arc::new(tree)))
}

fn node(cx: &mut BuildCx<'_>, params: Params, path: &str, depth: usize) -> Result<Node, BuildError> {
    let at = |field: &str| format!("{path}{field}");
    if depth > MAX_DEPTH {
        return Err(BuildError::at(at("current"), format!("lies deeper than {MAX_DEPTH} trees")));
    }
    let Params { current, next_on_success, next_on_failure, next_on_success_or_failure } = params;
    let current =
        current.ok_or_else(|| BuildError::at(at("current"), "is required: the filter of the node"))?;
    let mut next = |entry: Option<Box<Entry>>, field: &str| {
        entry.map(|entry| step(cx, *entry, &at(field), depth)).transpose()
    };
    let success = next(next_on_success, "nextOnSuccess")?;
    let failure = next(next_on_failure, "nextOnFailure")?;
    let either = next(next_on_success_or_failure, "nextOnSuccessOrFailure")?;
    let current = step(cx, *current, &at("current"), depth)?;
    Ok(Node { current, success, failure, either })
}

fn step(cx: &mut BuildCx<'_>, entry: Entry, path: &str, depth: usize) -> Result<Step, BuildError> {
    match (entry.plugin_ref.as_str(), entry.decision_tree) {
        ("", Some(tree)) => {
            let tree = node(cx, *tree, &format!("{path}.decisionTree."), depth + 1)?;
            Ok(Step::Tree(Box::new(tree)))
        }
        ("", None) => Err(BuildError::at(path, "needs a `pluginRef` or a `decisionTree`")),
        (_, Some(_)) => Err(BuildError::at(path, "takes a `pluginRef` or a `decisionTree`, not both")),
        (name, None) => Ok(Step::Filter(cx.filter(&format!("{path}.pluginRef"), name))),
    }
}

#[derive(Debug)]
struct Node {
    current: Step,
    success: Option<Step>,
    failure: Option<Step>,
    either: Option<Step>,
}

#[derive(Debug)]
enum Step {
    Filter(FilterSlot),
    Tree(Box<Node>),
}

impl Step {
    /// Slots of those of `among` that it leaves.
    fn run(&self, call: &Call<'_>, among: &[u32]) -> Vec<u32> {
        let slot = match self {
            Self::Tree(node) => return node.run(call, among),
            Self::Filter(slot) => slot,
        };
        let Some(filter) = slot.get().filter(|_| !among.is_empty()) else { return among.to_vec() };
        let mut keep = Mask::full(among.len());
        filter.narrow(&call.among(among), &mut keep);
        let kept = among.iter().enumerate().filter(|(position, _)| keep.contains(*position));
        kept.map(|(_, slot)| *slot).collect()
    }
}

impl Node {
    fn run(&self, call: &Call<'_>, among: &[u32]) -> Vec<u32> {
        let left = self.current.run(call, among);
        let (next, from) =
            if left.is_empty() { (&self.failure, among) } else { (&self.success, left.as_slice()) };
        match next.as_ref().or(self.either.as_ref()) {
            Some(next) => next.run(call, from),
            None => left,
        }
    }
}

impl Filter for Node {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        let left = self.run(call, call.slots());
        // Both are in ascending order.
        let mut left = left.iter().peekable();
        keep.retain(call.slots(), |slot| left.next_if(|next| *next == slot).is_some());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, Pod, pod, request};
    use crate::plugins::former_filters::{least, lora_affinity, low_queue};

    /// Names of the endpoints that the tree leaves.
    fn kept(params: Value, pods: impl IntoIterator<Item = Pod>) -> String {
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        for reference in &built.filters {
            let plugin = match reference.name.as_str() {
                "low" => &low_queue::TYPE,
                "least" => &least::QUEUE,
                "kv" => &least::KV_CACHE,
                _ => &lora_affinity::TYPE,
            };
            let params = (reference.name == "low").then(|| json!({"threshold": 5}));
            reference.slot.fill(fleet.build(plugin, params).unwrap().roles.filter.unwrap());
        }
        fleet.kept(&built.roles, &request("m")).concat()
    }

    #[test]
    fn the_tree_goes_on_with_those_that_are_left_or_with_all_if_nobody_is() {
        let tree = || {
            json!({
                "current": {"pluginRef": "low"},
                "nextOnSuccess": {"decisionTree": {
                    "current": {"pluginRef": "lora"},
                    "nextOnSuccess": {"pluginRef": "least"},
                    "nextOnFailure": {"pluginRef": "kv"},
                }},
                "nextOnFailure": {"pluginRef": "least"},
            })
        };
        let lora = |name| pod(name).lora(&["m"], &[], 1);
        // Short queues; two have the adapter, and the shorter queue wins.
        let pods = [lora("a").waiting(5), lora("b").waiting(1), pod("c").waiting(0), pod("d").waiting(9)];
        assert_eq!(kept(tree(), pods), "b");
        // Nobody has the adapter: the emptiest cache among the short queues.
        let pods = [pod("a").waiting(1).kv(0.9), pod("b").waiting(2).kv(0.1), pod("c").waiting(9).kv(0.0)];
        assert_eq!(kept(tree(), pods), "b");
        // No short queue: the shortest of all.
        assert_eq!(kept(tree(), [pod("a").waiting(90), pod("b").waiting(60)]), "b");
        assert_eq!(kept(tree(), []), "");
    }

    #[test]
    fn without_a_next_node_the_result_is_what_the_filter_leaves_and_either_stands_for_both() {
        let low = json!({"current": {"pluginRef": "low"}});
        assert_eq!(kept(low, [pod("a").waiting(9)]), "");
        let either =
            json!({"current": {"pluginRef": "low"}, "nextOnSuccessOrFailure": {"pluginRef": "least"}});
        assert_eq!(kept(either.clone(), [pod("a").waiting(9), pod("b").waiting(8)]), "b");
        assert_eq!(kept(either, [pod("a").waiting(1), pod("b").waiting(0)]), "b");
    }

    #[test]
    fn nodes_without_a_filter_or_with_two_are_refused_by_path() {
        for (params, path) in [
            (json!({}), "current"),
            (json!({"current": {}}), "current"),
            (json!({"current": {"decisionTree": {}}}), "current.decisionTree.current"),
            (
                json!({"current": {"pluginRef": "a", "decisionTree": {"current": {"pluginRef": "b"}}}}),
                "current",
            ),
        ] {
            assert_eq!(Fleet::new([]).build(&TYPE, Some(params)).unwrap_err().path, path);
        }
    }
}
