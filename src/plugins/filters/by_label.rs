//! `by-label` (deprecated): keeps endpoints whose pod label has one of the listed values.
//!
//! An absent label reads as the empty value, so listing `""` admits pods without it too, as `allowsNoLabel` does. Cost:
//! one label look-up an endpoint. Consumes nothing but what discovery knows.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("by-label", Stability::Beta, build)
    .superseded_by("label-selector-filter", "v0.9.0")
    .about(
        "Keeps endpoints whose pod label has one of the listed values.",
        "Use label-selector-filter instead, which can say the same and more. It costs one look-up of a \
         label for each endpoint.",
    )
    .with_example("label: llm-d.ai/role\nvalidValues: [decode, both]");

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Label key; required.
    label: String,
    /// Values to keep; required unless `allowsNoLabel`.
    valid_values: Vec<String>,
    /// Keep pods that lack the label.
    allows_no_label: bool,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { label, valid_values, allows_no_label } = cx.params()?;
    if label.is_empty() {
        return Err(BuildError::at("label", "must name a pod label"));
    }
    if valid_values.is_empty() && !allows_no_label {
        return Err(BuildError::at("validValues", "must list a value unless allowsNoLabel is true"));
    }
    Ok(Roles::default().filter(Arc::new(ByLabel { label, valid_values, allows_no_label })))
}

#[derive(Debug)]
struct ByLabel {
    label: String,
    valid_values: Vec<String>,
    allows_no_label: bool,
}

impl Filter for ByLabel {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        keep.retain(call.endpoints(), |endpoint| {
            let value = endpoint.label(&self.label);
            (value.is_none() && self.allows_no_label)
                || self.valid_values.iter().any(|valid| valid == value.unwrap_or_default())
        });
    }
}
