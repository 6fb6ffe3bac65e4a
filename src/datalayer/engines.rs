//! The table of engines: the series that carries each figure. A new engine is one new row.

use std::collections::BTreeMap;

use crate::pool::{AttributeKey, Labels};

/// Pod label that names the engine, unless the configuration renames it.
pub const ENGINE_LABEL: &str = "llm-d.ai/engine-type";
/// Older spelling of [`ENGINE_LABEL`]; read when the pod lacks the current one.
pub const LEGACY_ENGINE_LABEL: &str = "inference.networking.k8s.io/engine-type";
/// Engine of pods that do not say which one they run.
pub const DEFAULT_ENGINE: &str = "vllm";

/// A series: a metric name and labels that must match, by equality.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricSpec {
    /// Metric name.
    pub name: String,
    /// Label names and values.
    pub labels: Vec<(String, String)>,
}

impl MetricSpec {
    /// A series without label conditions.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), labels: Vec::new() }
    }

    /// The same series with one more condition.
    #[must_use]
    pub fn with_label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Further queues whose requests wait beside those of this series, each under the names that versions of the engine
    /// give it.
    pub fn queues(&self) -> &'static [&'static [&'static str]] {
        QUEUES.iter().find(|(name, _)| *name == self.name).map(|&(_, queues)| queues).unwrap_or_default()
    }

    /// Name under which older versions of the engine publish the same figure; looked at when the current one is absent.
    pub fn former_name(&self) -> Option<&'static str> {
        FORMER_NAMES.iter().find(|(name, _)| *name == self.name).map(|&(_, former)| former)
    }
}

/// Name → the queues in which requests wait beside that one, each under its names.
///
/// A server of SGLang that serves one stage has queues in front of the waiting requests. The load that its scheduler
/// reports of itself (`get_loads`) adds them up as waiting: of a prefill server the bootstrap queue (named `prealloc`
/// before), of a decode server those for memory and for the transfer. Requests in the inflight queue of a prefill server have been computed, and wait for nothing but the network. The gauges are defined in
/// `sglang/srt/observability/metrics_collector.py`; they are 0 on servers that serve both stages.
const QUEUES: &[(&str, &[&[&str]])] = &[(
    "sglang:num_queue_reqs",
    &[
        &["sglang:num_prefill_bootstrap_queue_reqs", "sglang:num_prefill_prealloc_queue_reqs"],
        &["sglang:num_decode_prealloc_queue_reqs"],
        &["sglang:num_decode_transfer_queue_reqs"],
    ],
)];

/// Current name → name before it was renamed.
const FORMER_NAMES: &[(&str, &str)] = &[("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")];

/// The series of one engine; `None` disables a figure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineSpecs {
    /// Waiting requests.
    pub waiting: Option<MetricSpec>,
    /// Running requests.
    pub running: Option<MetricSpec>,
    /// KV-cache usage, 0..=1.
    pub kv_usage: Option<MetricSpec>,
    /// LoRA adapters, in labels.
    pub lora: Option<MetricSpec>,
    /// Cache geometry, in labels.
    pub cache_info: Option<MetricSpec>,
    /// Label of `cache_info` that holds the block size.
    pub block_size_label: String,
    /// Label of `cache_info` that holds the number of blocks.
    pub num_blocks_label: String,
    /// Block size, as a value.
    pub block_size: Option<MetricSpec>,
    /// Number of blocks, as a value.
    pub num_blocks: Option<MetricSpec>,
    /// Series that become attributes of the endpoint.
    pub custom: Vec<(AttributeKey, MetricSpec)>,
    /// Series that become attributes where the page has them; a page without them lacks nothing.
    pub optional: Vec<(AttributeKey, MetricSpec)>,
}

impl EngineSpecs {
    /// True if no figure is read.
    pub fn is_empty(&self) -> bool {
        let Self { waiting, running, kv_usage, lora, cache_info, block_size, num_blocks, .. } = self;
        let figures = [waiting, running, kv_usage, lora, cache_info, block_size, num_blocks];
        self.custom.is_empty() && self.optional.is_empty() && figures.iter().all(|spec| spec.is_none())
    }
}

/// All engines, and how a pod says which one it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineTable {
    /// Pod label that names the engine.
    pub label: String,
    /// Engine of pods without (or with an unknown) label value.
    pub default_engine: String,
    /// Engines by name.
    pub engines: BTreeMap<String, EngineSpecs>,
}

impl EngineTable {
    /// The engines known without configuration, with vLLM as the default.
    pub fn builtin() -> Self {
        let engines = ROWS.iter().map(|(name, specs)| ((*name).to_owned(), specs())).collect();
        Self { label: ENGINE_LABEL.to_owned(), default_engine: DEFAULT_ENGINE.to_owned(), engines }
    }

    /// Name of the engine that a pod with these labels runs. An unknown value counts as none. `None` only if the
    /// default engine is unknown too, which configuration refuses.
    pub fn engine_for(&self, labels: &Labels) -> Option<&str> {
        let named = labels.get(&self.label).or_else(|| labels.get(LEGACY_ENGINE_LABEL));
        let known = named.and_then(|name| self.engines.get_key_value(name));
        known.or_else(|| self.engines.get_key_value(&self.default_engine)).map(|(name, _)| name.as_str())
    }

    /// Series to read from a pod with these labels; see [`Self::engine_for`].
    pub fn specs_for(&self, labels: &Labels) -> Option<&EngineSpecs> {
        self.engine_for(labels).and_then(|name| self.engines.get(name))
    }
}

/// Name of an engine, and its series.
type Row = (&'static str, fn() -> EngineSpecs);

/// One row an engine.
const ROWS: &[Row] = &[
    ("vllm", vllm),
    ("sglang", sglang),
    ("trtllm-serve", trtllm_serve),
    ("triton-tensorrt-llm", triton_tensorrt_llm),
    ("triton", triton),
    ("tgi", tgi),
];

fn vllm() -> EngineSpecs {
    EngineSpecs {
        waiting: Some(MetricSpec::named("vllm:num_requests_waiting")),
        running: Some(MetricSpec::named("vllm:num_requests_running")),
        kv_usage: Some(MetricSpec::named("vllm:kv_cache_usage_perc")),
        lora: Some(MetricSpec::named("vllm:lora_requests_info")),
        cache_info: Some(MetricSpec::named("vllm:cache_config_info")),
        block_size_label: "block_size".to_owned(),
        num_blocks_label: "num_gpu_blocks".to_owned(),
        ..EngineSpecs::default()
    }
}

fn sglang() -> EngineSpecs {
    EngineSpecs {
        waiting: Some(MetricSpec::named("sglang:num_queue_reqs")),
        running: Some(MetricSpec::named("sglang:num_running_reqs")),
        kv_usage: Some(MetricSpec::named("sglang:token_usage")),
        cache_info: Some(MetricSpec::named("sglang:cache_config_info")),
        block_size_label: "page_size".to_owned(),
        num_blocks_label: "num_pages".to_owned(),
        ..EngineSpecs::default()
    }
}

fn trtllm_serve() -> EngineSpecs {
    EngineSpecs {
        waiting: Some(MetricSpec::named("trtllm_num_requests_waiting")),
        running: Some(MetricSpec::named("trtllm_num_requests_running")),
        kv_usage: Some(MetricSpec::named("trtllm_kv_cache_utilization")),
        block_size: Some(MetricSpec::named("trtllm_kv_cache_tokens_per_block")),
        num_blocks: Some(MetricSpec::named("trtllm_kv_cache_max_blocks")),
        ..EngineSpecs::default()
    }
}

fn triton_tensorrt_llm() -> EngineSpecs {
    let requests =
        |kind| Some(MetricSpec::named("nv_trt_llm_request_metrics").with_label("request_type", kind));
    let blocks = |kind| {
        Some(MetricSpec::named("nv_trt_llm_kv_cache_block_metrics").with_label("kv_cache_block_type", kind))
    };
    EngineSpecs {
        waiting: requests("waiting"),
        running: requests("scheduled"),
        kv_usage: blocks("fraction"),
        block_size: blocks("tokens_per"),
        num_blocks: blocks("max"),
        ..EngineSpecs::default()
    }
}

/// Plain Triton has no gauge of running requests. `nv_inference_exec_count`, which the reference reads as one, counts
/// executions since the server started: as a load it would only ever grow. So the figure is left out here, and scorers
/// see none.
fn triton() -> EngineSpecs {
    EngineSpecs {
        waiting: Some(MetricSpec::named("nv_inference_pending_request_count")),
        ..EngineSpecs::default()
    }
}

fn tgi() -> EngineSpecs {
    EngineSpecs {
        waiting: Some(MetricSpec::named("tgi_queue_size")),
        running: Some(MetricSpec::named("tgi_batch_current_size")),
        ..EngineSpecs::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(labels: &[(&str, &str)], expected: &str) {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(EngineTable::builtin().engine_for(&labels), Some(expected));
    }

    #[test]
    fn a_pod_without_a_label_runs_the_default_engine() {
        check(&[], "vllm");
    }

    #[test]
    fn the_current_label_wins_over_the_legacy_one() {
        check(&[(ENGINE_LABEL, "sglang"), (LEGACY_ENGINE_LABEL, "triton")], "sglang");
        check(&[(LEGACY_ENGINE_LABEL, "triton")], "triton");
    }

    #[test]
    fn an_unknown_engine_counts_as_the_default() {
        check(&[(ENGINE_LABEL, "brand-new")], "vllm");
    }

    #[test]
    fn a_renamed_label_is_read_instead() {
        let table = EngineTable { label: "engine".to_owned(), ..EngineTable::builtin() };
        let labels = [("engine".to_owned(), "tgi".to_owned())].into();
        assert_eq!(table.engine_for(&labels), Some("tgi"));
    }

    #[test]
    fn every_builtin_engine_has_a_queue() {
        let table = EngineTable::builtin();
        assert_eq!(table.engines.len(), ROWS.len());
        assert!(table.engines.values().all(|specs| specs.waiting.is_some()));
    }

    #[test]
    fn plain_triton_has_no_running_figure_because_it_has_no_such_gauge() {
        assert_eq!(EngineTable::builtin().engines["triton"].running, None);
    }
}
