//! The catalogue itself.

use super::PluginType;
use super::{
    admitters, deciders, discovery, filters, flow_control, flow_namers, former_filters, parsers, pickers,
    producers, profiles, reporters, response_headers, scorers, screeners, sources, topology,
};

/// Every plugin type: by role, alphabetical within a role.
pub static REGISTRY: Registry = &[
    // Filters.
    &filters::by_label::TYPE,
    &filters::label_selector::BY_LABEL_SELECTOR,
    &filters::by_role::DECODE,
    &filters::by_role::ENCODE,
    &filters::endpoint_attribute::TYPE,
    &filters::header_based_testing::TYPE,
    &filters::label_selector::TYPE,
    &filters::by_role::PREFILL,
    &filters::prefix_cache_affinity::TYPE,
    &scorers::session_affinity::FILTER,
    &scorers::session_affinity::MULTICLUSTER_FILTER,
    &filters::slo_headroom_tier::TYPE,
    &topology::filter::TYPE,
    &filters::utilization::TYPE,
    // Filters of the first releases.
    &former_filters::decision_tree::TYPE,
    &former_filters::least::KV_CACHE,
    &former_filters::least::QUEUE,
    &former_filters::lora_affinity::TYPE,
    &former_filters::low_queue::TYPE,
    // Scorers.
    &scorers::active_request::TYPE,
    &scorers::context_length_aware::TYPE,
    &scorers::endpoint_attribute::TYPE,
    &scorers::header_label_affinity::TYPE,
    &scorers::kv_block_cost::TYPE,
    &scorers::kv_cache_utilization::TYPE,
    &scorers::lmetric::TYPE,
    &scorers::latency::TYPE,
    &scorers::load_aware::TYPE,
    &scorers::lora_affinity::TYPE,
    &scorers::mm_embeddings_cache::TYPE,
    &scorers::multicluster_load::KV_CACHE,
    &scorers::multicluster_load::QUEUE,
    &scorers::prefix_cache::MULTICLUSTER,
    &scorers::no_hit_lru::TYPE,
    &scorers::outstanding_requests::TYPE,
    &scorers::prefill_wait::TYPE,
    &scorers::prefix_cache::TYPE,
    &scorers::prefix_home::TYPE,
    &scorers::queue::TYPE,
    &scorers::running_requests_size::TYPE,
    &scorers::session_affinity::TYPE,
    &scorers::token_load::TYPE,
    &topology::scorer::TYPE,
    // Plugins of the way to the scheduler.
    &admitters::latency_slo::TYPE,
    &admitters::probabilistic::TYPE,
    &screeners::rollout::TYPE,
    &flow_namers::agent_identity::TYPE,
    // Pickers.
    &pickers::max_score::TYPE,
    &pickers::random::TYPE,
    &pickers::weighted_random::TYPE,
    // Profile handlers.
    &profiles::data_parallel::TYPE,
    &profiles::disagg::TYPE,
    &profiles::by_header::TYPE,
    &profiles::pd::TYPE,
    &profiles::single::TYPE,
    // Deciders.
    &deciders::always::TYPE,
    &deciders::multimodal::TYPE,
    &deciders::prefix_based::TYPE,
    // Routing headers.
    &profiles::disagg_headers::PREFILL_HEADER_HANDLER,
    &profiles::disagg_headers::TYPE,
    // Data producers.
    &producers::approx_prefix_cache::TYPE,
    &producers::burst_prefix_cache::TYPE,
    &producers::inflight_load::TYPE,
    &producers::mm_embeddings_cache::TYPE,
    &producers::approx_prefix_cache::MULTICLUSTER,
    &producers::p2p_source::TYPE,
    &producers::precise_prefix_cache::TYPE,
    &producers::precise_prefix_cache::SCORER,
    &producers::predicted_latency::TYPE,
    &producers::session_id::TYPE,
    &topology::extractor::TYPE,
    // Plugins that act on responses.
    &reporters::request_attribute::TYPE,
    &response_headers::served_verifier::TYPE,
    &producers::token_producer::TYPE,
    &producers::token_producer::TOKENIZER,
    // Parsers.
    &parsers::ANTHROPIC,
    &parsers::OPENAI,
    &parsers::PASSTHROUGH,
    &parsers::SGLANG_HTTP,
    &parsers::VERTEX_AI,
    &parsers::VLLM_GRPC,
    &parsers::VLLM_HTTP,
    // Data sources and extractors.
    &sources::CORE_METRICS_EXTRACTOR,
    &sources::DCGM_DATA_SOURCE,
    &sources::DCGM_EXTRACTOR,
    &sources::ENDPOINT_NOTIFICATION_SOURCE,
    &sources::K8S_NOTIFICATION_SOURCE,
    &sources::METRICS_DATA_SOURCE,
    &sources::MODELS_DATA_EXTRACTOR,
    &sources::MODELS_DATA_SOURCE,
    &sources::MULTICLUSTER_METRICS_DATA_SOURCE,
    &sources::MULTICLUSTER_METRICS_EXTRACTOR,
    // Endpoint discovery.
    &discovery::FILE_DISCOVERY,
    &discovery::MULTICLUSTER_FILE_DISCOVERY,
    // Saturation detectors.
    &flow_control::concurrency_detector::TYPE,
    &flow_control::utilization_detector::TYPE,
    // Ordering policies.
    &flow_control::ordering::EDF,
    &flow_control::ordering::FCFS,
    &flow_control::ordering::SLO_DEADLINE,
    // Fairness policies.
    &flow_control::fairness::GLOBAL_STRICT,
    &flow_control::program_aware::TYPE,
    &flow_control::fairness::ROUND_ROBIN,
    // Usage limit policies.
    &flow_control::usage_limits::PRIORITY_HOLDBACK,
    &flow_control::usage_limits::SOFT_REFLECTIVE_CEILING,
    &flow_control::usage_limits::STATIC,
];

/// A list of plugin types; each has a name of its own.
pub type Registry = &'static [&'static PluginType];

/// The built-in types and `own` ones, for a program that brings plugins of its own to [`crate::cli::run_with`]. The
/// list lives as long as the program, so call this once.
///
/// # Errors
///
/// A name that two types have.
pub fn registry_with(own: &[&'static PluginType]) -> Result<Registry, String> {
    let mut all: Vec<&'static PluginType> = REGISTRY.to_vec();
    for plugin in own {
        if all.iter().any(|other| other.name == plugin.name) {
            return Err(format!("there is a plugin type {:?} already", plugin.name));
        }
        all.push(plugin);
    }
    Ok(Vec::leak(all))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::plugins::fixture::Fleet;

    #[test]
    fn type_names_are_unique() {
        let mut names = HashSet::new();
        for plugin in REGISTRY {
            assert!(names.insert(plugin.name), "{}", plugin.name);
        }
    }

    #[test]
    fn every_type_says_what_it_does_when_to_use_it_and_what_it_costs() {
        for plugin in REGISTRY {
            let (summary, advice) = (plugin.summary, plugin.advice);
            assert!(summary.ends_with('.') && !summary.contains(". "), "{}: {summary}", plugin.name);
            assert!(
                advice.starts_with("Use ") && advice.contains(". It costs "),
                "{}: {advice}",
                plugin.name
            );
        }
    }

    #[test]
    fn every_type_has_an_example_with_which_it_builds() {
        for plugin in REGISTRY {
            assert!(!plugin.roles().names().is_empty(), "{} has no role", plugin.name);
        }
    }

    #[test]
    fn the_schema_of_parameters_comes_from_their_type() {
        let mut schemas = schemars::SchemaGenerator::default();
        let of = crate::plugins::scorers::load_aware::TYPE.parameters().unwrap();
        let schema = serde_json::to_string(&of(&mut schemas)).unwrap();
        let all = serde_json::to_string(&schemas.definitions()).unwrap();
        assert!(all.contains("threshold"), "{schema} {all}");
        assert!(crate::plugins::scorers::lora_affinity::TYPE.parameters().is_none());
    }

    #[test]
    fn own_types_join_the_built_in_ones_unless_their_name_is_taken() {
        static OWN: PluginType = crate::plugins::scorers::queue::TYPE.renamed("own-scorer");
        let all = registry_with(&[&OWN]).unwrap();
        assert_eq!((all.len(), all.last().unwrap().name), (REGISTRY.len() + 1, "own-scorer"));
        let taken = registry_with(&[&crate::plugins::scorers::queue::TYPE]).unwrap_err();
        assert!(taken.contains("queue-scorer"), "{taken}");
    }

    #[test]
    fn every_type_builds_without_parameters_or_says_what_it_needs() {
        for plugin in REGISTRY {
            match Fleet::new([]).build(plugin, None) {
                Ok(built) => assert!(!built.roles.names().is_empty(), "{} has no role", plugin.name),
                Err(error) => assert!(!error.path.is_empty(), "{}: {error}", plugin.name),
            }
        }
    }
}
