//! Older flags that still do what they did: they change the plan that the configuration made.

use crate::config::Plan;
use crate::datalayer::{EngineSpecs, MetricSpec};

use super::older_flags::OlderFlag;

/// Makes this engine the one of pods that do not say theirs; an empty name changes nothing. `Err` names the engines
/// that there are.
pub(super) fn set_default_engine(name: &str, plan: &mut Plan) -> anyhow::Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    if !plan.engines.engines.contains_key(name) {
        let mut known: Vec<&str> = plan.engines.engines.keys().map(String::as_str).collect();
        known.sort_unstable();
        anyhow::bail!("--default-engine: got {name:?}, expected one of {}", known.join(", "));
    }
    name.clone_into(&mut plan.engines.default_engine);
    Ok(())
}

/// Applies the values of older flags. `Err` names every one that cannot be used.
pub(super) fn apply(older: &[(OlderFlag, String)], plan: &mut Plan) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    for (flag, value) in older {
        if let Err(problem) = apply_one(flag.name, value, plan) {
            problems.push(format!("--{}: {problem}", flag.name));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn apply_one(name: &str, value: &str, plan: &mut Plan) -> Result<(), String> {
    match name {
        "total-queued-requests-metric" => set(plan, value, |engine| &mut engine.waiting),
        "total-running-requests-metric" => set(plan, value, |engine| &mut engine.running),
        "kv-cache-usage-percentage-metric" => set(plan, value, |engine| &mut engine.kv_usage),
        "lora-info-metric" => set(plan, value, |engine| &mut engine.lora),
        "cache-info-metric" => set(plan, value, |engine| &mut engine.cache_info),
        "engine-label-key" => {
            value.clone_into(&mut plan.engines.label);
            Ok(())
        }
        "model-server-metrics-port" => {
            let port =
                value.parse().map_err(|_| format!("got {value:?}, expected a port from 0 to 65535"))?;
            source(plan)?.port = (port != 0).then_some(port);
            Ok(())
        }
        "model-server-metrics-path" => {
            source(plan)?.path = format!("/{}", value.trim_start_matches('/'));
            Ok(())
        }
        "model-server-metrics-scheme" => {
            source(plan)?.https = match value {
                "http" => false,
                "https" => true,
                _ => return Err(format!("got {value:?}, expected http or https")),
            };
            Ok(())
        }
        "model-server-metrics-https-insecure-skip-verify" => {
            source(plan)?.insecure_skip_verify =
                value.parse().map_err(|_| format!("got {value:?}, expected true or false"))?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn source(plan: &mut Plan) -> Result<&mut crate::datalayer::SourceSpec, String> {
    plan.metrics_source.as_mut().ok_or_else(|| "no metrics are read with this configuration".to_owned())
}

/// Sets one series of the default engine; an empty value switches the figure off.
fn set(
    plan: &mut Plan,
    value: &str,
    field: impl Fn(&mut EngineSpecs) -> &mut Option<MetricSpec>,
) -> Result<(), String> {
    let spec = MetricSpec::parse(value)?;
    let default = plan.engines.default_engine.clone();
    if let Some(engine) = plan.engines.engines.get_mut(&default) {
        *field(engine) = spec;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{self, ConfigSource, LoadOptions};
    use crate::metrics::Metrics;

    fn plan(text: &str) -> Plan {
        config::load(&ConfigSource::Text(text.to_owned()), &LoadOptions::new(Arc::new(Metrics::new())))
            .unwrap()
    }

    #[test]
    fn the_default_engine_of_the_command_line_counts_and_series_are_set_for_it() {
        let mut plan = plan("plugins: [{type: core-metrics-extractor, parameters: {defaultEngine: tgi}}]");
        set_default_engine("", &mut plan).unwrap();
        assert_eq!(plan.engines.default_engine, "tgi");
        set_default_engine("sglang", &mut plan).unwrap();
        assert_eq!(plan.engines.default_engine, "sglang");
        apply_one("total-queued-requests-metric", "mine", &mut plan).unwrap();
        assert_eq!(plan.engines.engines["sglang"].waiting, MetricSpec::parse("mine").unwrap());
    }

    #[test]
    fn an_engine_that_nobody_knows_is_refused_with_those_that_are_known() {
        let mut plan = plan("");
        let error = set_default_engine("lmdeploy", &mut plan).unwrap_err().to_string();
        assert!(
            error.contains("\"lmdeploy\"") && error.contains("sglang") && error.contains("vllm"),
            "{error}"
        );
    }
}
