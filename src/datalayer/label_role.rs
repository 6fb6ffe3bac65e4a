//! What the labels of an engine's gauges say: whether two rows that differ in one are two parts of a server's load, or
//! the same figure twice.
//!
//! By metric name, so that engines of the configuration that rename a figure profit as well. The roles follow the
//! engines' own definitions: `vllm/v1/metrics/loggers.py`, `sglang/srt/observability/metrics_collector.py`,
//! `tensorrt_llm/metrics/collector.py`, and Triton's metrics guide with the README of its TensorRT-LLM backend.

use super::MetricSpec;

/// The meaning of a label for the row that carries it. An absent label and an empty value are the same, as in PromQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelRole {
    /// Numbers the parts that share a server's load: counts of rows that differ in it add up, usages are averaged.
    Part,
    /// Names the one model that the server runs. Rows of a second one are left over from another life of the server:
    /// the rows of the model that comes first, or has the latest timestamp, count.
    Model,
    /// Splits a figure that the page also states whole, in the row whose value is empty. The split rows do not count
    /// beside that one; without it they add up.
    Split,
    /// Numbers workers that hold one figure together, each of which repeats it: the highest value counts once. This is
    /// also the role of every label that no table names, so that an unknown label neither hides a part nor counts one
    /// twice.
    Repeat,
}

/// Labels by beginning of the metric name.
const ROLES: &[(&str, &[(&str, LabelRole)])] = &[
    (
        "vllm:",
        &[
            // An engine core is a data-parallel rank with a scheduler of its own.
            ("engine", LabelRole::Part),
            ("engine_index", LabelRole::Part),
            ("model_name", LabelRole::Model),
            // The gauges of load are of the mode `mostrecent`, in which the client library writes one row for all
            // processes. A page with a row for each also has those of processes that are gone, for ever.
            ("pid", LabelRole::Repeat),
        ],
    ),
    (
        "sglang:",
        &[
            // With DP attention the ranks of one server are numbered by `dp_rank`, and the others follow from it.
            ("dp_rank", LabelRole::Part),
            ("model_name", LabelRole::Model),
            // A count is stated whole with `priority=""`, and again for each priority that clients ask for.
            ("priority", LabelRole::Split),
            // Ranks report one scheduler several times: pipeline stages always, all ranks with
            // `--enable-metrics-for-all-schedulers`.
            ("tp_rank", LabelRole::Repeat),
            ("pp_rank", LabelRole::Repeat),
            ("moe_ep_rank", LabelRole::Repeat),
            ("engine_type", LabelRole::Repeat),
            // As with vLLM.
            ("pid", LabelRole::Repeat),
        ],
    ),
    // The server sums its ranks itself and writes one row.
    (
        "trtllm_",
        &[("model_name", LabelRole::Model), ("engine_type", LabelRole::Repeat), ("pid", LabelRole::Repeat)],
    ),
    // Triton serves many models, and versions of each; each has a queue, a batch and a cache of its own.
    ("nv_", &[("model", LabelRole::Part), ("version", LabelRole::Part)]),
];

impl MetricSpec {
    /// Labels that have a role other than [`LabelRole::Repeat`], with their roles.
    pub fn label_roles(&self) -> impl Iterator<Item = (&'static str, LabelRole)> {
        let table = ROLES.iter().find(|(prefix, _)| self.name.starts_with(prefix)).map(|(_, labels)| *labels);
        table.unwrap_or_default().iter().copied().filter(|(_, role)| *role != LabelRole::Repeat)
    }
}
