//! `endpoint-attribute-filter` (alpha): keeps the endpoints whose attribute compares with a value as it should.
//!
//! An attribute is a number that a plugin of the data layer writes: `customMetrics` of `core-metrics-extractor`, or an
//! extractor of another source, which `producer` then names. `KVCacheUsagePercent`, `WaitingQueueSize` and
//! `RunningRequestsSize` are known of every endpoint. `onMissing` says what becomes of endpoints without the attribute;
//! a value that is no number is never taken over. If nobody is left, `fallbackOnEmpty` keeps all.
//!
//! Use it where a figure of your own says that a server cannot take requests. It costs one look-up of the attribute for
//! each endpoint.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::attributes::AttributeSource;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("endpoint-attribute-filter", Stability::Alpha, build)
    .about(
        "Keeps the endpoints whose attribute compares with a value as it should.",
        "Use it where a figure of your own says that a server cannot take requests. It costs one look-up of the \
         attribute for each endpoint.",
    )
    .with_example(
        "attribute: WaitingQueueSize\nalgorithm: {type: threshold, threshold: {operator: LessThan, value: 10}}",
    );

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Name of the attribute; required.
    attribute: String,
    /// Plugin instance that writes it; by default `core-metrics-extractor`, and none if it is given as "".
    producer: Option<String>,
    /// Whether endpoints without the attribute stay.
    on_missing: OnMissing,
    /// Keep all endpoints if none is left.
    fallback_on_empty: bool,
    /// How the attribute is judged; required.
    algorithm: Algorithm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
enum OnMissing {
    /// They stay.
    #[default]
    Pass,
    /// They are left out.
    Fail,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Algorithm {
    /// `threshold`, the only one.
    #[serde(rename = "type")]
    kind: String,
    /// The comparison; required.
    threshold: Option<Threshold>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Threshold {
    /// How the attribute must compare with the value; required.
    operator: Option<Operator>,
    /// The value that it is compared with.
    value: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
enum Operator {
    LessThan,
    LessThanOrEqual,
    GreaterThan,
    GreaterThanOrEqual,
    Equal,
    NotEqual,
}

impl Operator {
    #[expect(clippy::float_cmp, reason = "equality is what the operator of that name asks")]
    fn holds(self, attribute: f64, value: f64) -> bool {
        match self {
            Self::LessThan => attribute < value,
            Self::LessThanOrEqual => attribute <= value,
            Self::GreaterThan => attribute > value,
            Self::GreaterThanOrEqual => attribute >= value,
            Self::Equal => attribute == value,
            Self::NotEqual => attribute != value,
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let source = AttributeSource::read(cx, "attribute", &params.attribute, params.producer.as_deref())?;
    let Algorithm { kind, threshold } = params.algorithm;
    if kind != "threshold" {
        return Err(BuildError::at("algorithm.type", format!("is {kind:?}; expected `threshold`")));
    }
    let missing = || BuildError::at("algorithm.threshold", "is required: an `operator` and a `value`");
    let Threshold { operator, value } = threshold.ok_or_else(missing)?;
    let missing = || BuildError::at("algorithm.threshold.operator", "is required, such as `LessThan`");
    let operator = operator.ok_or_else(missing)?;
    Ok(Roles::default().filter(Arc::new(EndpointAttribute {
        source,
        keeps_missing: params.on_missing == OnMissing::Pass,
        falls_back: params.fallback_on_empty,
        operator,
        value,
    })))
}

#[derive(Debug)]
struct EndpointAttribute {
    source: AttributeSource,
    keeps_missing: bool,
    falls_back: bool,
    operator: Operator,
    value: f64,
}

impl Filter for EndpointAttribute {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        keep.retain(call.endpoints(), |endpoint| {
            let value = self.source.value(endpoint, call.now);
            value.map_or(self.keeps_missing, |value| self.operator.holds(value, self.value))
        });
        if self.falls_back && keep.count() == 0 {
            keep.reset(call.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, Pod, pod, request};

    fn threshold(operator: &str, value: f64) -> Value {
        json!({"type": "threshold", "threshold": {"operator": operator, "value": value}})
    }

    fn kept(params: Value, pods: impl IntoIterator<Item = Pod>) -> String {
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        fleet.kept(&built.roles, &request("m")).concat()
    }

    fn gpus() -> [Pod; 4] {
        let gpu = |name, value| pod(name).attribute("GPU", "dcgm", value);
        [gpu("a", 0.1), gpu("b", 0.9), gpu("c", f64::NAN), pod("d").attribute("GPU", "other", 0.1)]
    }

    #[test]
    fn endpoints_stay_as_the_operator_says_and_those_without_the_attribute_as_the_parameter_says() {
        for (operator, expected) in [
            ("LessThan", "acd"),
            ("LessThanOrEqual", "abcd"),
            ("GreaterThan", "cd"),
            ("GreaterThanOrEqual", "bcd"),
            ("Equal", "bcd"),
            ("NotEqual", "acd"),
        ] {
            let algorithm = threshold(operator, 0.9);
            let params = json!({"attribute": "GPU", "producer": "dcgm", "algorithm": algorithm});
            assert_eq!(kept(params.clone(), gpus()), expected, "{operator}");
            let mut strict = params;
            strict["onMissing"] = "Fail".into();
            assert_eq!(kept(strict, gpus()), expected.trim_end_matches("cd"), "{operator}");
        }
    }

    #[test]
    fn if_nobody_is_left_all_stay_on_request_only() {
        let params = |fallback: bool| {
            json!({"attribute": "GPU", "producer": "dcgm", "onMissing": "Fail", "fallbackOnEmpty": fallback,
                   "ALGORITHM": threshold("LessThan", 0.0)})
        };
        assert_eq!((kept(params(false), gpus()), kept(params(true), gpus())), (String::new(), "abcd".into()));
        assert_eq!(kept(params(true), []), "");
    }

    #[test]
    fn figures_of_every_endpoint_are_known_by_their_names_once_they_were_read() {
        let params = |attribute: &str, value: f64| json!({"attribute": attribute, "onMissing": "Fail", "algorithm": threshold("LessThan", value)});
        let pods =
            || [pod("a"), pod("b").waiting(3).running(7).kv(0.5), pod("c").waiting(0).running(1).kv(0.2)];
        assert_eq!(kept(params("WaitingQueueSize", 3.0), pods()), "c");
        assert_eq!(kept(params("RunningRequestsSize", 8.0), pods()), "bc");
        assert_eq!(kept(params("KVCacheUsagePercent", 0.3), pods()), "c");
    }

    #[test]
    fn the_producer_is_the_extractor_unless_another_or_none_is_named() {
        let read = |params: Value| {
            let mut fleet = Fleet::new([]);
            let built = fleet.build(&TYPE, Some(params)).unwrap();
            (built.attributes_read[0].to_string(), built.warnings.len())
        };
        let algorithm = || threshold("Equal", 0.0);
        let usual = read(json!({"attribute": "x", "algorithm": algorithm()}));
        assert_eq!(usual, ("x of \"core-metrics-extractor\"".to_owned(), 0));
        let nobody = read(json!({"attribute": "a.b/x", "Producer": "", "algorithm": algorithm()}));
        assert_eq!(nobody, ("a.b/x".to_owned(), 0));
        let older = read(json!({"attribute": "GPU/dcgm", "algorithm": algorithm()}));
        assert_eq!(older, ("GPU of \"dcgm\"".to_owned(), 1));
    }

    #[test]
    fn wrong_parameters_are_refused_by_name() {
        for (params, path) in [
            (json!({"algorithm": threshold("Equal", 0.0)}), "attribute"),
            (json!({"attribute": "x"}), "algorithm.type"),
            (json!({"attribute": "x", "algorithm": {"type": "linear"}}), "algorithm.type"),
            (json!({"attribute": "x", "algorithm": {"type": "threshold"}}), "algorithm.threshold"),
            (
                json!({"attribute": "x", "algorithm": {"type": "threshold", "threshold": {}}}),
                "algorithm.threshold.operator",
            ),
            (json!({"attribute": "x", "algorithm": threshold("Less", 0.0)}), "algorithm.threshold.operator"),
            (json!({"attribute": "x", "onMissing": "Keep"}), "onMissing"),
        ] {
            assert_eq!(Fleet::new([]).build(&TYPE, Some(params.clone())).unwrap_err().path, path, "{params}");
        }
    }
}
