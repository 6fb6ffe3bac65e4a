//! `header-label-affinity-scorer` (alpha): prefers endpoints whose pod label has the value of a request header.
//!
//! Such an endpoint scores 1, all others 0; a request without the header, or with an empty one, scores 0 everywhere.
//!
//! Use it where a client or the gateway says which kind of server suits a request best. It costs one look-up of a label
//! for each endpoint.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::document::is_label_key;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("header-label-affinity-scorer", Stability::Alpha, build)
    .about(
        "Prefers endpoints whose pod label has the value of a request header.",
        "Use it where a client or the gateway says which kind of server suits a request best. It costs one look-up of \
         a label for each endpoint.",
    )
    .with_example("headerName: x-tier\nlabelKey: example.com/tier");

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Request header; required.
    header_name: String,
    /// Pod label; required.
    label_key: String,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { header_name, label_key } = cx.params()?;
    let header = header_name.trim().to_ascii_lowercase();
    if header.is_empty() {
        return Err(BuildError::at("headerName", "must name a request header"));
    }
    if !is_label_key(&label_key) {
        return Err(BuildError::at("labelKey", format!("is {label_key:?}, which is no label key")));
    }
    Ok(Roles::default().scorer(Arc::new(HeaderLabelAffinity { header, label_key })))
}

#[derive(Debug)]
struct HeaderLabelAffinity {
    /// Lower case.
    header: String,
    label_key: String,
}

impl Scorer for HeaderLabelAffinity {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let value = call.request.headers.get(&self.header).filter(|value| !value.is_empty());
        let Some(value) = value else { return };
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *score =
                f64::from(endpoint.label(&self.label_key).is_some_and(|label| *value == label.as_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::scheduling::Columns;

    #[test]
    fn the_endpoints_with_the_headers_value_score_and_without_a_value_nobody_does() {
        let mut fleet = Fleet::new([pod("a").label("tier", "gold"), pod("b").label("tier", ""), pod("c")]);
        let built = fleet.build(&TYPE, Some(json!({"headerName": " X-Tier", "LabelKey": "tier"}))).unwrap();
        let scores =
            |value: &str| fleet.scores(&built.roles, &request("m").header("x-tier", value), &Columns::new());
        assert_eq!(scores("gold"), [1.0, 0.0, 0.0]);
        assert_eq!(scores("Gold"), [0.0; 3]);
        assert_eq!(scores(""), [0.0; 3]);
        assert_eq!(fleet.scores(&built.roles, &request("m"), &Columns::new()), [0.0; 3]);
        let mut none = Fleet::new([]);
        let built = none.build(&TYPE, Some(json!({"headerName": "h", "labelKey": "l"}))).unwrap();
        assert!(none.scores(&built.roles, &request("m"), &Columns::new()).is_empty());
    }

    #[test]
    fn both_names_are_required() {
        for (params, path) in [
            (json!({"labelKey": "l"}), "headerName"),
            (json!({"headerName": "h"}), "labelKey"),
            (json!({"headerName": "h", "labelKey": "a b"}), "labelKey"),
        ] {
            assert_eq!(Fleet::new([]).build(&TYPE, Some(params)).unwrap_err().path, path);
        }
    }
}
