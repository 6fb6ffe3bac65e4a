//! `label-selector-filter`: keeps endpoints whose pod labels match a Kubernetes label selector.
//!
//! `matchLabels` and `matchExpressions` (`In`, `NotIn`, `Exists`, `DoesNotExist`) must all hold; no requirement matches
//! every pod. `NotIn` holds for pods without the label. A selector that Kubernetes would not accept is an error at
//! start-up. Cost: one label look-up a requirement and endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::document::{is_label_key, is_label_value};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::scheduling::{Call, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("label-selector-filter", Stability::Beta, build).about(
    "Keeps endpoints whose pod labels match a Kubernetes label selector.",
    "Use it where some endpoints cannot serve a profile's requests, as of another role or hardware. It \
         costs one look-up of a label for each requirement and endpoint.",
);

/// Registry row of the old name.
pub static BY_LABEL_SELECTOR: PluginType = TYPE
    .renamed("by-label-selector")
    .reported_as("by-label-selector")
    .superseded_by("label-selector-filter", "v0.9.0");

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Labels and the values they must have.
    match_labels: BTreeMap<String, String>,
    /// Further requirements.
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Expression {
    /// Label key.
    key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    operator: String,
    /// The values that `In` and `NotIn` compare with; empty for the others.
    values: Vec<String>,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let mut requirements = Vec::new();
    for (key, value) in params.match_labels {
        check_key(&key, || format!("matchLabels.{key}"))?;
        check_value(&value, || format!("matchLabels.{key}"))?;
        requirements.push(Requirement { key, test: Test::In(vec![value]) });
    }
    for (index, expression) in params.match_expressions.into_iter().enumerate() {
        requirements.push(requirement(expression, &format!("matchExpressions[{index}]"))?);
    }
    Ok(Roles::default().filter(Arc::new(LabelSelector { requirements })))
}

fn requirement(expression: Expression, path: &str) -> Result<Requirement, BuildError> {
    let Expression { key, operator, values } = expression;
    check_key(&key, || format!("{path}.key"))?;
    for (index, value) in values.iter().enumerate() {
        check_value(value, || format!("{path}.values[{index}]"))?;
    }
    let listed = !values.is_empty();
    let test = match (operator.as_str(), listed) {
        ("In", true) => Test::In(values),
        ("NotIn", true) => Test::NotIn(values),
        ("Exists", false) => Test::Exists,
        ("DoesNotExist", false) => Test::DoesNotExist,
        ("In" | "NotIn", false) => {
            return Err(BuildError::at(
                format!("{path}.values"),
                format!("{operator} needs at least one value"),
            ));
        }
        ("Exists" | "DoesNotExist", true) => {
            return Err(BuildError::at(format!("{path}.values"), format!("{operator} takes no values")));
        }
        _ => {
            let message = format!("{operator:?} is none of In, NotIn, Exists, DoesNotExist");
            return Err(BuildError::at(format!("{path}.operator"), message));
        }
    };
    Ok(Requirement { key, test })
}

fn check_key(key: &str, path: impl Fn() -> String) -> Result<(), BuildError> {
    if is_label_key(key) { Ok(()) } else { Err(BuildError::at(path(), format!("{key:?} is no label key"))) }
}

fn check_value(value: &str, path: impl Fn() -> String) -> Result<(), BuildError> {
    if is_label_value(value) {
        Ok(())
    } else {
        Err(BuildError::at(path(), format!("{value:?} is no label value")))
    }
}

#[derive(Debug)]
struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Requirement {
    fn holds(&self, endpoint: &Endpoint) -> bool {
        let value = endpoint.label(&self.key);
        let listed = |values: &[String]| value.is_some_and(|value| values.iter().any(|known| known == value));
        match &self.test {
            Test::In(values) => listed(values),
            Test::NotIn(values) => !listed(values),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        }
    }
}

impl Filter for LabelSelector {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        keep.retain(call.endpoints(), |endpoint| {
            self.requirements.iter().all(|requirement| requirement.holds(endpoint))
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::Fleet;

    #[test]
    fn metrics_name_the_old_type_where_the_old_name_is_configured() {
        assert_eq!(
            (TYPE.reports_as, BY_LABEL_SELECTOR.reports_as),
            ("label-selector-filter", "by-label-selector")
        );
    }

    #[test]
    fn a_selector_that_kubernetes_would_refuse_names_the_offending_part() {
        let cases = [
            (json!({"matchLabels": {"a b": "c"}}), "matchLabels.a b"),
            (json!({"matchLabels": {"a": "-c"}}), "matchLabels.a"),
            (json!({"matchLabels": {"Example.com/a": "c"}}), "matchLabels.Example.com/a"),
            (json!({"matchExpressions": [{"key": "", "operator": "Exists"}]}), "matchExpressions[0].key"),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "in", "values": ["x"]}]}),
                "matchExpressions[0].operator",
            ),
            (json!({"matchExpressions": [{"key": "a", "operator": "In"}]}), "matchExpressions[0].values"),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}),
                "matchExpressions[0].values",
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x", "y/z"]}]}),
                "matchExpressions[0].values[1]",
            ),
        ];
        for (params, path) in cases {
            let error = Fleet::new([]).build(&TYPE, Some(params.clone())).map(|_| ()).unwrap_err();
            assert_eq!(error.path, path, "{params}: {error}");
        }
        let accepted = json!({"matchLabels": {"example.com/a_b.C": ""}, "matchExpressions": []});
        assert!(Fleet::new([]).build(&TYPE, Some(accepted)).is_ok());
    }
}
