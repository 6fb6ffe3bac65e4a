//! `request-attribute-reporter`: a figure about the tokens of a response, for the other filters of the proxy.
//!
//! `expression` is in the Common Expression Language. It sees `usage`, which has `prompt_tokens`, `completion_tokens`,
//! `total_tokens` and, where the response has such a detail, `prompt_tokens_details.cached_tokens`. A number that comes
//! out loses its fraction and goes into the dynamic metadata of the last message, under `key`. Nothing is written if
//! `condition` is not true, if the figure is 0 or −1, or if the expression fails for this response.
//!
//! Use it where a rate limit or an access log of the proxy goes by tokens. It costs one expression for each response,
//! some microseconds. The proxy takes the metadata only if it lets this filter write the namespace.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cel::{Context, Program, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::request::Usage;
use crate::scheduling::{Reported, UsageReporter};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("request-attribute-reporter", Stability::Beta, build)
    .about(
        "Writes a figure about the tokens of a response into the proxy's dynamic metadata.",
        "Use it where a rate limit or an access log of the proxy goes by tokens. It costs one expression \
         for each response.",
    )
    .with_example(
        "attributes:\n- key:\n    namespace: envoy.lb\n    name: x-gateway-inference-request-cost\n  \
         expression: usage.prompt_tokens + usage.completion_tokens",
    );

/// Namespace of a key that names none.
const NAMESPACE: &str = "envoy.lb";
/// Longest expression, in bytes; the parser recurses.
const MAX_EXPRESSION: usize = 2048;
/// Deepest nesting of an expression, for the same reason.
const MAX_NESTING: usize = 32;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// The figure; exactly one.
    attributes: Vec<Attribute>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Attribute {
    /// Where the figure goes; required.
    key: Key,
    /// The figure, in the Common Expression Language over `usage`; required.
    expression: String,
    /// Nothing is written unless this expression is true; empty for always.
    condition: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Key {
    /// Namespace of the metadata; empty means `envoy.lb`.
    namespace: String,
    /// Key within it; required.
    name: String,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let count = params.attributes.len();
    let Ok([attribute]) = <[Attribute; 1]>::try_from(params.attributes) else {
        return Err(BuildError::at("attributes", format!("lists {count}, expected exactly one")));
    };
    if attribute.key.name.is_empty() {
        return Err(BuildError::at("attributes[0].key.name", "is required: the key of the figure"));
    }
    if attribute.expression.trim().is_empty() {
        return Err(BuildError::at("attributes[0].expression", "is required: an expression over `usage`"));
    }
    let condition = match attribute.condition.trim() {
        "" => None,
        text => Some(compile("attributes[0].condition", text)?),
    };
    let namespace = if attribute.key.namespace.is_empty() { NAMESPACE } else { &attribute.key.namespace };
    let reporter = Reporter {
        namespace: namespace.into(),
        name: attribute.key.name.into(),
        expression: compile("attributes[0].expression", attribute.expression.trim())?,
        condition,
    };
    Ok(Roles { reporter: Some(Arc::new(reporter)), ..Roles::default() })
}

fn compile(at: &str, text: &str) -> Result<Program, BuildError> {
    let mut depth = 0_usize;
    let deepest = text.bytes().fold(0, |deepest, byte| {
        match byte {
            b'(' | b'[' | b'{' | b'?' | b'!' | b'-' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest.max(depth)
    });
    if text.len() > MAX_EXPRESSION || deepest > MAX_NESTING {
        let message =
            format!("is too long or too deep: at most {MAX_EXPRESSION} bytes and {MAX_NESTING} levels");
        return Err(BuildError::at(at, message));
    }
    let program = Program::compile(text).map_err(|error| {
        let error = error.to_string();
        let first = error.lines().next().unwrap_or_default();
        BuildError::at(at, format!("is no expression of the Common Expression Language: {first}"))
    })?;
    let references = program.references();
    if let Some(other) = references.variables().iter().find(|name| **name != "usage") {
        return Err(BuildError::at(at, format!("reads `{other}`; there is only `usage`")));
    }
    Ok(program)
}

struct Reporter {
    namespace: Arc<str>,
    name: Arc<str>,
    expression: Program,
    condition: Option<Program>,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl UsageReporter for Reporter {
    fn report(&self, usage: &Usage) -> Option<Reported> {
        // JSON numbers are doubles in the language; expressions with whole numbers work on whole ones.
        let number = |count: u64| Value::Float(count as f64);
        let whole = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
        let value = self.figure(usage, number).or_else(|| self.figure(usage, whole))?;
        let value = value.trunc();
        let nothing = value == 0.0 || (value + 1.0).abs() < 0.5;
        (value.is_finite() && !nothing).then(|| Reported {
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(&self.name),
            value,
        })
    }
}

impl Reporter {
    /// The figure with counts as `number` makes them; `None` if the expression fails or the condition does not hold.
    fn figure(&self, usage: &Usage, number: fn(u64) -> Value) -> Option<f64> {
        let mut context = Context::default();
        context.add_variable_from_value("usage", usage_value(usage, number));
        if let Some(condition) = &self.condition
            && !matches!(condition.execute(&context), Ok(Value::Bool(true)))
        {
            return None;
        }
        match self.expression.execute(&context).ok()? {
            Value::Float(value) => Some(value),
            Value::Int(value) => Some(value as f64),
            Value::UInt(value) => Some(value as f64),
            _ => None,
        }
    }
}

fn usage_value(usage: &Usage, number: fn(u64) -> Value) -> Value {
    let mut fields: HashMap<String, Value> = HashMap::new();
    for (name, count) in [
        ("prompt_tokens", usage.prompt_tokens),
        ("completion_tokens", usage.completion_tokens),
        ("total_tokens", usage.total_tokens),
    ] {
        fields.insert(name.to_owned(), number(count));
    }
    if let Some(cached) = usage.cached_tokens {
        let details = HashMap::from([("cached_tokens".to_owned(), number(cached))]);
        fields.insert("prompt_tokens_details".to_owned(), details.into());
    }
    fields.into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::metrics::Metrics;

    fn reporter(expression: &str, condition: &str) -> Result<Arc<dyn UsageReporter>, BuildError> {
        let attribute = json!({"key": {"name": "cost"}, "expression": expression, "condition": condition});
        with(&json!({"attributes": [attribute]}))
    }

    fn with(params: &Json) -> Result<Arc<dyn UsageReporter>, BuildError> {
        let (metrics, mut columns) = (Arc::new(Metrics::new()), Vec::new());
        build(&mut BuildCx::new("r", Some(params), &metrics, &mut columns, 0))
            .map(|roles| roles.reporter.unwrap())
    }

    const USAGE: Usage =
        Usage { prompt_tokens: 100, completion_tokens: 7, total_tokens: 107, cached_tokens: Some(64) };

    #[test]
    fn the_figure_is_computed_from_the_usage() {
        let cases: &[(&str, &str, Option<f64>)] = &[
            ("usage.total_tokens", "", Some(107.0)),
            ("usage.prompt_tokens + usage.completion_tokens * 4.0", "", Some(128.0)),
            ("usage.prompt_tokens + usage.completion_tokens * 4", "", Some(128.0)),
            ("usage.prompt_tokens / 3.0", "", Some(33.0)),
            ("usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens", "", Some(36.0)),
            ("has(usage.prompt_tokens_details) ? 5 : 6", "", Some(5.0)),
            ("usage.total_tokens", "usage.total_tokens > 100.0", Some(107.0)),
            ("usage.total_tokens", "usage.total_tokens > 1000.0", None),
            ("usage.total_tokens", "usage.total_tokens", None),
            ("usage.total_tokens - 107.0", "", None),
            ("usage.total_tokens - 108.0", "", None),
            ("-2.9", "", Some(-2.0)),
            ("usage.nothing", "", None),
            ("'text'", "", None),
            ("1.0 / 0.0", "", None),
        ];
        for (expression, condition, expected) in cases {
            let figure = reporter(expression, condition).unwrap().report(&USAGE);
            assert_eq!(figure.as_ref().map(|it| it.value), *expected, "{expression} if {condition}");
            if let Some(Reported { namespace, name, .. }) = figure {
                assert_eq!((&*namespace, &*name), ("envoy.lb", "cost"));
            }
        }
    }

    #[test]
    fn a_detail_that_the_response_lacks_gives_nothing() {
        let usage = Usage { cached_tokens: None, ..USAGE };
        let cached = reporter("usage.prompt_tokens_details.cached_tokens", "").unwrap();
        assert_eq!(cached.report(&usage), None);
        let guarded = reporter("has(usage.prompt_tokens_details) ? 1.0 : 9.0", "").unwrap();
        assert_eq!(guarded.report(&usage).map(|it| it.value), Some(9.0));
        let empty = reporter("usage.total_tokens", "").unwrap();
        assert_eq!(empty.report(&Usage::default()), None, "0 is not written");
    }

    #[test]
    fn faults_name_their_parameter() {
        let (key, good) = (json!({"name": "a"}), "usage.total_tokens");
        let cases = [
            (json!({}), "attributes"),
            (json!({"attributes": []}), "attributes"),
            (json!({"attributes": [{}, {}]}), "attributes"),
            (json!({"attributes": [{"expression": good}]}), "attributes[0].key.name"),
            (json!({"attributes": [{"key": key, "expression": " "}]}), "attributes[0].expression"),
            (json!({"attributes": [{"key": key, "expression": "usage."}]}), "attributes[0].expression"),
            (json!({"attributes": [{"key": key, "expression": "other.x"}]}), "attributes[0].expression"),
            (json!({"attributes": [{"key": key, "expression": "(".repeat(40)}]}), "attributes[0].expression"),
            (
                json!({"attributes": [{"key": key, "expression": good, "condition": "]"}]}),
                "attributes[0].condition",
            ),
        ];
        for (params, path) in cases {
            assert_eq!(with(&params).err().unwrap().path, path, "{params}");
        }
    }
}
