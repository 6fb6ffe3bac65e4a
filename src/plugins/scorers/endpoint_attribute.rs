//! `endpoint-attribute-scorer` (alpha): prefers endpoints by a figure of your own.
//!
//! An attribute is a number that a plugin of the data layer writes, as for `endpoint-attribute-filter`; here the
//! parameter is called `attributeKey`. With `fixedRange` a value `v` scores `(v − min) / (max − min)`, clamped to 0..=1;
//! with `adaptiveRange`, the default, `min` and `max` are those of the endpoints in the running, and all score 1 if they
//! are equal. `linear_lower_is_better` takes one minus that. An endpoint without the attribute scores 0; a value that is
//! no number is never taken over.
//!
//! Use it where a figure that the other scorers do not know says how good a server is. It costs two passes over the
//! candidates, with one look-up of the attribute for each.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::attributes::AttributeSource;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("endpoint-attribute-scorer", Stability::Alpha, build)
    .about(
        "Prefers endpoints by a figure of your own.",
        "Use it where a figure that the other scorers do not know says how good a server is. It costs two passes over \
         the candidates, with one look-up of the attribute for each.",
    )
    .with_example("attributeKey: WaitingQueueSize\nalgorithm: {type: linear_lower_is_better}");

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Name of the attribute; required.
    attribute_key: String,
    /// Plugin instance that writes it; by default `core-metrics-extractor`, and none if it is given as "".
    producer: Option<String>,
    /// How the attribute becomes a score; required.
    algorithm: Algorithm,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Algorithm {
    /// `linear_lower_is_better` or `linear_higher_is_better`; required.
    #[serde(rename = "type")]
    kind: String,
    /// The range that is spread over 0..=1; adaptive by default.
    normalization: Normalization,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Normalization {
    /// The range is always the same.
    fixed_range: Option<FixedRange>,
    /// The range is that of the endpoints in the running.
    adaptive_range: Option<AdaptiveRange>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct FixedRange {
    /// Value at its lower end.
    min: f64,
    /// Value at its upper end; above `min`.
    max: f64,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct AdaptiveRange {}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let source =
        AttributeSource::read(cx, "attributeKey", &params.attribute_key, params.producer.as_deref())?;
    let lower_is_better = match params.algorithm.kind.as_str() {
        "linear_lower_is_better" => true,
        "linear_higher_is_better" => false,
        other => {
            let message =
                format!("is {other:?}; expected `linear_lower_is_better` or `linear_higher_is_better`");
            return Err(BuildError::at("algorithm.type", message));
        }
    };
    let Normalization { fixed_range, adaptive_range } = params.algorithm.normalization;
    if fixed_range.is_some() && adaptive_range.is_some() {
        let message = "takes `fixedRange` or `adaptiveRange`, not both";
        return Err(BuildError::at("algorithm.normalization", message));
    }
    if let Some(FixedRange { min, max }) = fixed_range.filter(|range| range.min >= range.max) {
        let message = format!("goes from {min} to {max}; `max` must be above `min`");
        return Err(BuildError::at("algorithm.normalization.fixedRange", message));
    }
    Ok(Roles::default().scorer(Arc::new(EndpointAttribute { source, lower_is_better, fixed_range })))
}

#[derive(Debug)]
struct EndpointAttribute {
    source: AttributeSource,
    lower_is_better: bool,
    /// `None` for that of the endpoints in the running.
    fixed_range: Option<FixedRange>,
}

impl Scorer for EndpointAttribute {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        // NaN stands for an endpoint without the attribute, whose values are finite.
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *score = self.source.value(endpoint, call.now).unwrap_or(f64::NAN);
            (least, most) = (least.min(*score), most.max(*score));
        }
        if let Some(FixedRange { min, max }) = self.fixed_range {
            (least, most) = (min, max);
        }
        // Halves, so that a range of any finite values is finite.
        let range = most / 2.0 - least / 2.0;
        for score in out {
            let place = ((*score / 2.0 - least / 2.0) / range).clamp(0.0, 1.0);
            *score = match (score.is_nan(), range > 0.0) {
                (true, _) => 0.0,
                (false, false) => 1.0,
                (false, true) if self.lower_is_better => 1.0 - place,
                (false, true) => place,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::scheduling::Columns;

    /// Scores of endpoints with these values.
    fn scores(algorithm: &Value, values: &[Option<f64>]) -> Vec<f64> {
        let name = |number: usize| char::from(b'a' + number as u8).to_string();
        let pods = values.iter().enumerate().map(|(number, value)| match value {
            Some(value) => pod(&name(number)).attribute("x", "y", *value),
            None => pod(&name(number)),
        });
        let mut fleet = Fleet::new(pods);
        let params = json!({"attributeKey": "x", "producer": "y", "algorithm": algorithm});
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        fleet.scores(&built.roles, &request("m"), &Columns::new())
    }

    #[test]
    fn values_are_spread_over_the_range_and_endpoints_without_one_score_0() {
        let adaptive = |kind: &str| json!({"type": kind});
        let fixed =
            |kind: &str| json!({"type": kind, "normalization": {"fixedRange": {"min": 0, "max": 10}}});
        let (higher, lower) = ("linear_higher_is_better", "linear_lower_is_better");
        let values = [Some(2.0), None, Some(4.0), Some(7.0)];
        for (algorithm, values, expected) in [
            (adaptive(higher), &values[..], &[0.0, 0.0, 0.4, 1.0][..]),
            (adaptive(lower), &values, &[1.0, 0.0, 0.6, 0.0]),
            (fixed(higher), &values, &[0.2, 0.0, 0.4, 0.7]),
            (fixed(lower), &values, &[0.8, 0.0, 0.6, 0.3]),
            (fixed(higher), &[Some(-5.0), Some(50.0)], &[0.0, 1.0]),
            (adaptive(lower), &[Some(3.0), None, Some(3.0)], &[1.0, 0.0, 1.0]),
            (adaptive(lower), &[Some(3.0)], &[1.0]),
            (adaptive(lower), &[None, None], &[0.0, 0.0]),
            (adaptive(higher), &[Some(f64::NAN), Some(1.0)], &[0.0, 1.0]),
            (adaptive(higher), &[Some(f64::MIN), Some(0.0), Some(f64::MAX)], &[0.0, 0.5, 1.0]),
            (adaptive(higher), &[], &[]),
        ] {
            let scores = scores(&algorithm, values);
            let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
            assert!(
                scores.len() == expected.len() && scores.iter().zip(expected).all(close),
                "{algorithm} {values:?}: {scores:?}"
            );
        }
    }

    #[test]
    fn wrong_parameters_are_refused_by_name() {
        let of = |algorithm: Value| json!({"attributeKey": "x", "algorithm": algorithm});
        let both = json!({"fixedRange": {"min": 0, "max": 1}, "adaptiveRange": {}});
        for (params, path) in [
            (json!({"algorithm": {"type": "linear_lower_is_better"}}), "attributeKey"),
            (of(json!({})), "algorithm.type"),
            (of(json!({"type": "linear"})), "algorithm.type"),
            (of(json!({"type": "linear_lower_is_better", "normalization": both})), "algorithm.normalization"),
            (
                of(
                    json!({"type": "linear_lower_is_better", "normalization": {"fixedRange": {"min": 1, "max": 1}}}),
                ),
                "algorithm.normalization.fixedRange",
            ),
        ] {
            assert_eq!(Fleet::new([]).build(&TYPE, Some(params.clone())).unwrap_err().path, path, "{params}");
        }
    }
}
