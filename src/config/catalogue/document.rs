//! The form of an `EndpointPickerConfig` but for the parameters of its plugins, as types of which the JSON Schema is
//! made. `schema.rs`, `data_layer.rs` and `flow_control.rs` read the document; a test says when they differ from this.
#![expect(dead_code, reason = "the types only describe")]

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Configuration of the endpoint picker.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EndpointPickerConfig {
    /// Version of the document.
    #[schemars(extend("enum" = ["llm-d.ai/v1alpha1", "llm-d.ai/v1"]))]
    api_version: Option<String>,
    /// Always `EndpointPickerConfig`.
    #[schemars(extend("enum" = ["EndpointPickerConfig"]))]
    kind: Option<String>,
    /// Features as `NAME`, `NAME=true` or `NAME=false`; the last of several counts.
    feature_gates: Option<Vec<FeatureGate>>,
    /// Plugin instances.
    plugins: Option<Vec<Plugin>>,
    /// Profiles, of which the profile handler runs one or several for each request.
    scheduling_profiles: Option<Vec<SchedulingProfile>>,
    /// How requests are read.
    request_handler: Option<RequestHandler>,
    /// What is fetched from the model servers, and where endpoints come from.
    data_layer: Option<DataLayer>,
    /// How requests wait while the pool is full or empty; needs the feature gate `flowControl`.
    flow_control: Option<FlowControl>,
    /// Deprecated: use `requestHandler.parsers`.
    #[schemars(extend("deprecated" = true))]
    parser: Option<Reference>,
    /// Deprecated: use `flowControl.saturationDetector`.
    #[schemars(extend("deprecated" = true))]
    saturation_detector: Option<SaturationDetector>,
}

/// A feature gate.
struct FeatureGate;

impl JsonSchema for FeatureGate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FeatureGate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let gates = crate::config::gates::FeatureGates::default().listed();
        let names = gates.iter().filter_map(|gate| gate.split_once('=')).map(|(name, _)| name);
        let values: Vec<String> = names
            .flat_map(|name| [name.to_owned(), format!("{name}=true"), format!("{name}=false")])
            .collect();
        json_schema!({"type": "string", "enum": values})
    }
}

/// An instance of a plugin type.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plugin {
    /// Plugin type; `pointsman plugins` lists them.
    r#type: String,
    /// Name of the instance, by which others refer to it; the type if it is absent.
    name: Option<String>,
    /// Parameters of the type.
    parameters: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A profile.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SchedulingProfile {
    /// Name of the profile; unique.
    name: String,
    /// Filters, scorers and the picker of the profile; filters run in this order.
    plugins: Option<Vec<ProfilePlugin>>,
}

/// A plugin of a profile.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProfilePlugin {
    /// Name of a filter, scorer or picker.
    plugin_ref: String,
    /// Weight of a scorer; 1 if it is absent.
    weight: Option<f64>,
}

/// A reference to a plugin.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Reference {
    /// Name of the plugin.
    plugin_ref: String,
}

/// How requests are read.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RequestHandler {
    /// Parsers; without any, all APIs are read. A parser type needs no row in `plugins`.
    parsers: Option<Vec<Reference>>,
    /// Has no effect: model servers are not told the priority of a request.
    propagate_priority: Option<bool>,
}

/// What is fetched from the model servers, and where endpoints come from.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DataLayer {
    /// Add the default metrics source and extractor if no metrics source is listed; true if it is absent.
    inject_defaults: Option<bool>,
    /// Data sources and who reads what they fetch.
    sources: Option<Vec<Source>>,
    /// Where endpoints come from instead of Kubernetes.
    discovery: Option<Discovery>,
    /// Has no effect: `--peers` or `--peer-service` says where the other replicas are.
    peer_discovery: Option<Reference>,
    /// Has no effect: replicas tell each other what they do where `--peers` or `--peer-service` names them.
    cross_replica_syncer_plugin_ref: Option<String>,
    /// Has no effect: replicas tell each other within 5 ms.
    cross_replica_sync_interval: Option<GoDuration>,
    /// Has no effect: a peer that does not read for 3 s is let go.
    cross_replica_publish_timeout: Option<GoDuration>,
    /// The same three fields in the form of `llm-d.ai/v1`.
    cross_replica: Option<CrossReplica>,
}

/// What replicas tell each other.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CrossReplica {
    /// Has no effect: replicas tell each other what they do where `--peers` or `--peer-service` names them.
    syncer_plugin_ref: Option<String>,
    /// Has no effect: replicas tell each other within 5 ms.
    sync_interval: Option<GoDuration>,
    /// Has no effect: a peer that does not read for 3 s is let go.
    publish_timeout: Option<GoDuration>,
    /// Replicas tell each other what they do over this server, instead of by `--peers` or `--peer-service`.
    redis: Option<Redis>,
}

/// A server that speaks the protocol of Redis.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Redis {
    /// `redis://[USER@]HOST[:PORT][/DATABASE]`, or `rediss://…` for TLS; without a password.
    url: String,
    /// File whose first line is the password. It is read at each connection.
    password_file: Option<String>,
    /// What the names of all keys begin with; `pointsman` if it is absent. The names hold the pool too.
    key_prefix: Option<String>,
    /// Authorities that the server's certificate comes from; those of the system if it is absent.
    ca_file: Option<String>,
    /// Certificate that the server is shown.
    cert_file: Option<String>,
    /// Its key.
    key_file: Option<String>,
}

/// A data source and its readers.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Source {
    /// Name of a data source.
    plugin_ref: String,
    /// Extractors that read what the source fetches.
    extractors: Option<Vec<Reference>>,
}

/// Where endpoints come from.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Discovery {
    /// Name of a plugin that finds endpoints, in the form of `llm-d.ai/v1alpha1`.
    plugin_ref: Option<String>,
    /// A plugin that finds endpoints, in the form of `llm-d.ai/v1`.
    endpoints: Option<Reference>,
    /// Has no effect: `--peers` or `--peer-service` says where the other replicas are.
    peers: Option<Reference>,
}

/// How requests wait while the pool is full or empty.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FlowControl {
    /// Bytes of requests that may wait in all; 0 is no limit.
    max_bytes: Option<Quantity>,
    /// Requests that may wait in all; 0 is no limit.
    max_requests: Option<Quantity>,
    /// Longest wait of a request; 0 is for ever.
    #[serde(rename = "defaultRequestTTL")]
    default_request_ttl: Option<GoDuration>,
    /// Longest wait while there are no endpoints; 0 is for ever.
    #[serde(rename = "noEndpointRequestTTL")]
    no_endpoint_request_ttl: Option<GoDuration>,
    /// What priorities without a band of their own get.
    default_priority_band: Option<PriorityBand>,
    /// The same for priorities below 0.
    default_negative_priority_band: Option<PriorityBand>,
    /// Bands of single priorities.
    priority_bands: Option<Vec<PriorityBand>>,
    /// Name of the plugin that says how full the pool may be for each band.
    usage_limit_policy_plugin_ref: Option<String>,
    /// What says how full the pool is.
    saturation_detector: Option<SaturationDetector>,
    /// Stop running requests in favour of more important ones.
    enable_eviction: Option<bool>,
}

/// A priority and its queue.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PriorityBand {
    /// The priority; below 0 requests are sheddable.
    priority: Option<i32>,
    /// Bytes of requests that may wait.
    max_bytes: Option<Quantity>,
    /// Requests that may wait.
    max_requests: Option<Quantity>,
    /// Longest wait of a request of this band; 0 is for ever.
    #[serde(rename = "defaultRequestTTL")]
    default_request_ttl: Option<GoDuration>,
    /// Name of the plugin that chooses among the flows of the band.
    fairness_policy_ref: Option<String>,
    /// Name of the plugin that orders the requests of a flow.
    ordering_policy_ref: Option<String>,
}

/// What says how full the pool is.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SaturationDetector {
    /// Name of a saturation detector.
    plugin_ref: Option<String>,
    /// Waiting requests of a full endpoint, at least 1.
    queue_depth_threshold: Option<u32>,
    /// Share of the KV cache in use of a full endpoint, above 0 and at most 1.
    kv_cache_util_threshold: Option<f64>,
    /// Age from which a reading is not believed.
    metrics_staleness_threshold: Option<GoDuration>,
}

/// A duration as Go writes it.
struct GoDuration;

impl JsonSchema for GoDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration, as 300ms, 1.5s or 1h30m.",
            "type": ["string", "number"],
            "pattern": r"^[-+]?(0|([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$",
        })
    }
}

/// A whole number, with or without a unit.
struct Quantity;

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A whole number, or one with a unit: 500, 10k, 1Gi.",
            "type": ["integer", "string"],
        })
    }
}
