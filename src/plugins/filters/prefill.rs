//! `prefill-filter`: keeps endpoints that can process prompts for others, by the pod label `llm-d.ai/role`.
//!
//! A pod without the label does not. Takes no parameters.

use std::sync::Arc;

use super::by_label::ByRole;
use crate::plugins::{PluginType, Roles, Stability};

/// Registry row. Its metrics carry the type it is made of, as the reference's do.
pub static TYPE: PluginType = PluginType::new("prefill-filter", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().filter(Arc::new(ByRole { roles: ROLES, allows_no_role: false })))
})
.reported_as("by-label")
.about(
    "Keeps endpoints that process prompts for others, by the pod label llm-d.ai/role.",
    "Use it in the prefill profile of a pool with prefill servers. It costs one look-up of a label for \
         each endpoint.",
);

/// `both` is an old spelling of `prefill-decode`.
const ROLES: &[&str] = &["prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode"];
