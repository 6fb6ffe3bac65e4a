//! `core-metrics-extractor`: which series of which engine carry queue length, KV-cache usage, adapters and cache
//! geometry.
//!
//! | parameter | default | meaning |
//! |---|---|---|
//! | `engineLabelKey` | `llm-d.ai/engine-type` | pod label that names the engine |
//! | `defaultEngine` | `vllm` | engine of pods without that label |
//! | `engineConfigs` | none | engines to add; one with the name of a built-in engine replaces it wholly, so that series it leaves out are not read |
//!
//! An engine has a `name`, and series as `name` or `name{label="value"}`: `queuedRequestsSpec`, `runningRequestsSpec`,
//! `kvUsageSpec`, `loraSpec`, `cacheInfoSpec` with `cacheBlockSizeLabelName` and `cacheNumBlocksLabelName`,
//! `cacheBlockSizeSpec`, `cacheNumBlocksSpec`. Each of `customMetrics` (`attributeKey`, `metricSpec`) becomes
//! an attribute of the endpoint, which `endpoint-attribute-filter` and `endpoint-attribute-scorer` read. A figure that
//! a page lacks keeps its last value.

use std::collections::HashSet;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::datalayer::{EngineSpecs, EngineTable, MetricSpec};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::AttributeKey;

/// The row.
pub static TYPE: PluginType = PluginType::new("core-metrics-extractor", Stability::Beta, build).about(
    "Says which series of which engine carry queue length, use of the KV cache, adapters and the size \
         of the cache.",
    "Use it to add an engine, or where an engine's series have other names. It costs nothing beside \
         reading the page, which happens in any case.",
);

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Pod label that names the engine; `llm-d.ai/engine-type` if it is absent.
    engine_label_key: String,
    /// Engine of endpoints without the label, or with an unknown value; `vllm` if it is absent.
    default_engine: String,
    /// Engines to add; one with the name of a built-in engine replaces it wholly, so that series it leaves out are
    /// not read.
    engine_configs: Vec<Engine>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Engine {
    /// Name of the engine, as the label says it; not `default`.
    name: String,
    /// Series of the waiting requests, as `name` or `name{label="value"}`; empty for none.
    queued_requests_spec: String,
    /// Series of the running requests.
    running_requests_spec: String,
    /// Series of the share of the KV cache in use.
    kv_usage_spec: String,
    /// Series whose labels tell of LoRA adapters.
    lora_spec: String,
    /// Series whose labels tell the size of the cache.
    cache_info_spec: String,
    /// Label of that series with the tokens of a block.
    cache_block_size_label_name: String,
    /// Label of that series with the number of blocks.
    cache_num_blocks_label_name: String,
    /// Series of the tokens of a block.
    cache_block_size_spec: String,
    /// Series of the number of blocks.
    cache_num_blocks_spec: String,
    /// Further series. Each becomes an attribute of the engine's endpoints.
    custom_metrics: Vec<CustomMetric>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct CustomMetric {
    /// Name of the attribute.
    attribute_key: String,
    /// Its series.
    metric_spec: String,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let mut table = EngineTable::builtin();
    if !params.engine_label_key.is_empty() {
        table.label = params.engine_label_key;
    }
    if !params.default_engine.is_empty() {
        table.default_engine = params.default_engine;
    }
    let mut names = HashSet::new();
    for (index, engine) in params.engine_configs.into_iter().enumerate() {
        let at = format!("engineConfigs[{index}]");
        match engine.name.as_str() {
            "" => return Err(BuildError::at(format!("{at}.name"), "is required")),
            "default" => {
                return Err(BuildError::at(
                    format!("{at}.name"),
                    "\"default\" is reserved; see `defaultEngine`",
                ));
            }
            name if !names.insert(name.to_owned()) => {
                return Err(BuildError::at(format!("{at}.name"), format!("\"{name}\" is given twice")));
            }
            _ => {}
        }
        let specs = EngineSpecs { custom: custom(cx, &engine.custom_metrics, &at)?, ..specs(&engine, &at)? };
        if specs.is_empty() {
            cx.warn(format!(
                "{at} names no series for the engine \"{}\", so nothing is read from its pods; expected `queuedRequestsSpec`, \
                 `runningRequestsSpec` or `kvUsageSpec`",
                engine.name
            ));
        }
        table.engines.insert(engine.name, specs);
    }
    if !table.engines.contains_key(&table.default_engine) {
        let known: Vec<&str> = table.engines.keys().map(String::as_str).collect();
        let hint = crate::document::hint(&table.default_engine, &known);
        return Err(BuildError::at(
            "defaultEngine",
            format!("unknown engine \"{}\"{hint}", table.default_engine),
        ));
    }
    Ok(Roles { metrics_extractor: Some(table), ..Roles::default() })
}

fn specs(engine: &Engine, at: &str) -> Result<EngineSpecs, BuildError> {
    let spec = |field: &str, text: &str| {
        MetricSpec::parse(text).map_err(|message| BuildError::at(format!("{at}.{field}"), message))
    };
    Ok(EngineSpecs {
        waiting: spec("queuedRequestsSpec", &engine.queued_requests_spec)?,
        running: spec("runningRequestsSpec", &engine.running_requests_spec)?,
        kv_usage: spec("kvUsageSpec", &engine.kv_usage_spec)?,
        lora: spec("loraSpec", &engine.lora_spec)?,
        cache_info: spec("cacheInfoSpec", &engine.cache_info_spec)?,
        block_size_label: engine.cache_block_size_label_name.clone(),
        num_blocks_label: engine.cache_num_blocks_label_name.clone(),
        block_size: spec("cacheBlockSizeSpec", &engine.cache_block_size_spec)?,
        num_blocks: spec("cacheNumBlocksSpec", &engine.cache_num_blocks_spec)?,
        custom: Vec::new(),
        optional: Vec::new(),
    })
}

/// The series that become attributes.
fn custom(
    cx: &mut BuildCx<'_>,
    metrics: &[CustomMetric],
    at: &str,
) -> Result<Vec<(AttributeKey, MetricSpec)>, BuildError> {
    let mut keys = HashSet::new();
    let mut custom = Vec::with_capacity(metrics.len());
    for (index, metric) in metrics.iter().enumerate() {
        let at = format!("{at}.customMetrics[{index}]");
        if metric.attribute_key.is_empty() {
            return Err(BuildError::at(format!("{at}.attributeKey"), "is required"));
        }
        if !keys.insert(&metric.attribute_key) {
            let message = format!("\"{}\" is given twice", metric.attribute_key);
            return Err(BuildError::at(format!("{at}.attributeKey"), message));
        }
        let field = || format!("{at}.metricSpec");
        match MetricSpec::parse(&metric.metric_spec) {
            Ok(Some(spec)) => {
                let key = AttributeKey::new(&metric.attribute_key, TYPE.name);
                cx.writes_attribute(&key);
                custom.push((key, spec));
            }
            Ok(None) => return Err(BuildError::at(field(), "is required")),
            Err(message) => return Err(BuildError::at(field(), message)),
        }
    }
    Ok(custom)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::metrics::Metrics;

    fn table(params: &Value) -> Result<(EngineTable, Vec<String>), BuildError> {
        let (metrics, mut columns) = (Arc::new(Metrics::new()), Vec::new());
        let mut cx = BuildCx::new("e", Some(params), &metrics, &mut columns, 0);
        build(&mut cx).map(|roles| (roles.metrics_extractor.unwrap(), cx.warnings))
    }

    #[test]
    fn an_engine_that_is_left_without_any_series_is_warned_of() {
        for empty in [
            json!({"name": "vllm"}),
            json!({"name": "vllm", "cacheBlockSizeLabelName": "size", "kvUsageSpec": " "}),
        ] {
            let (_, warnings) =
                table(&json!({"engineConfigs": [{"name": "ok", "loraSpec": "l"}, empty]})).unwrap();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(
                warnings[0].contains("engineConfigs[1]") && warnings[0].contains("\"vllm\""),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn without_parameters_the_built_in_engines_are_known() {
        assert_eq!(table(&json!({})).unwrap(), (EngineTable::builtin(), vec![]));
    }

    #[test]
    fn an_engine_of_a_built_in_name_replaces_it_wholly() {
        let params =
            json!({"engineConfigs": [{"name": "vllm", "queuedRequestsSpec": "my:waiting{model=\"a\"}"}]});
        let (table, _) = table(&params).unwrap();
        let vllm = &table.engines["vllm"];
        assert_eq!(vllm.waiting.as_ref().map(|spec| spec.name.as_str()), Some("my:waiting"));
        assert_eq!((vllm.running.is_none(), vllm.kv_usage.is_none()), (true, true));
        assert_eq!(table.engines.len(), EngineTable::builtin().engines.len());
    }

    #[test]
    fn an_added_engine_can_be_the_default() {
        let params = json!({
            "engineLabelKey": "engine", "defaultEngine": "mine",
            "engineConfigs": [{"name": "mine", "kvUsageSpec": "usage"}],
        });
        let (table, _) = table(&params).unwrap();
        assert_eq!((table.label.as_str(), table.default_engine.as_str()), ("engine", "mine"));
    }

    #[test]
    fn faults_name_their_parameter() {
        let cases = [
            (json!({"defaultEngine": "vlm"}), "defaultEngine"),
            (json!({"engineConfigs": [{}]}), "engineConfigs[0].name"),
            (json!({"engineConfigs": [{"name": "default"}]}), "engineConfigs[0].name"),
            (json!({"engineConfigs": [{"name": "a"}, {"name": "a"}]}), "engineConfigs[1].name"),
            (json!({"engineConfigs": [{"name": "a", "kvUsageSpec": "1{"}]}), "engineConfigs[0].kvUsageSpec"),
            (json!({"engineConfigs": [{"name": "a", "kvUsage": ""}]}), "engineConfigs[0].kvUsage"),
            (
                json!({"engineConfigs": [{"name": "a", "customMetrics": [{"attributeKey": "k"}]}]}),
                "engineConfigs[0].customMetrics[0].metricSpec",
            ),
        ];
        for (params, path) in cases {
            assert_eq!(table(&params).unwrap_err().path, path);
        }
    }

    #[test]
    fn custom_metrics_become_attributes_of_the_engines_endpoints() {
        let custom = json!([{"attributeKey": "k", "metricSpec": "m{a=\"b\"}"}]);
        let (table, warnings) =
            table(&json!({"engineConfigs": [{"name": "a", "customMetrics": custom}]})).unwrap();
        let spec = MetricSpec::named("m").with_label("a", "b");
        assert_eq!(table.engines["a"].custom, [(AttributeKey::new("k", "core-metrics-extractor"), spec)]);
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}
