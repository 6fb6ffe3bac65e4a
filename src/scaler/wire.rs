//! The messages of `externalscaler`, as `proto/externalscaler.proto` has them.

use std::collections::HashMap;

/// The trigger that asks.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ScaledObjectRef {
    /// Name of the ScaledObject.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// The trigger's metadata.
    #[prost(map = "string, string", tag = "3")]
    pub scaler_metadata: HashMap<String, String>,
}

/// Whether there is a reason to run.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct IsActiveResponse {
    /// True if there is.
    #[prost(bool, tag = "1")]
    pub result: bool,
}

/// The metrics that a trigger selects.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetMetricSpecResponse {
    /// One for each.
    #[prost(message, repeated, tag = "1")]
    pub metric_specs: Vec<MetricSpec>,
}

/// A metric and its target.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetricSpec {
    /// Name, under which the value is asked for later.
    #[prost(string, tag = "1")]
    pub metric_name: String,
    /// The target rounded up, for KEDA before it knew fractions.
    #[prost(int64, tag = "2")]
    pub target_size: i64,
    /// The target.
    #[prost(double, tag = "3")]
    pub target_size_float: f64,
}

/// Asks for a value.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetMetricsRequest {
    /// The trigger that asks.
    #[prost(message, optional, tag = "1")]
    pub scaled_object_ref: Option<ScaledObjectRef>,
    /// Name of the metric.
    #[prost(string, tag = "2")]
    pub metric_name: String,
}

/// Values of the metrics asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetMetricsResponse {
    /// One for each.
    #[prost(message, repeated, tag = "1")]
    pub metric_values: Vec<MetricValue>,
}

/// A metric and its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetricValue {
    /// Name.
    #[prost(string, tag = "1")]
    pub metric_name: String,
    /// The value rounded up, for KEDA before it knew fractions.
    #[prost(int64, tag = "2")]
    pub metric_value: i64,
    /// The value. KEDA looks at the integer where this is 0.
    #[prost(double, tag = "3")]
    pub metric_value_float: f64,
}
