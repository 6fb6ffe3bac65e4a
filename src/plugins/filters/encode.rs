//! `encode-filter`: keeps endpoints that can encode media for others, by the pod label `llm-d.ai/role`.
//!
//! A pod without the label does not. Takes no parameters.

use std::sync::Arc;

use super::by_label::ByRole;
use crate::plugins::{PluginType, Roles, Stability};

/// Registry row. Its metrics carry the type it is made of, as the reference's do.
pub static TYPE: PluginType = PluginType::new("encode-filter", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().filter(Arc::new(ByRole { roles: ROLES, allows_no_role: false })))
})
.reported_as("by-label")
.about(
    "Keeps endpoints that encode media for others, by the pod label llm-d.ai/role.",
    "Use it in the encode profile of a pool whose encoders run on servers of their own. It costs one \
         look-up of a label for each endpoint.",
);

/// Roles that include encoding.
const ROLES: &[&str] = &["encode", "encode-prefill", "encode-prefill-decode"];
