//! `decode-filter`: keeps endpoints that can generate tokens, by the pod label `llm-d.ai/role`.
//!
//! A pod without the label can do everything. Takes no parameters.

use std::sync::Arc;

use super::by_label::ByRole;
use crate::plugins::{PluginType, Roles, Stability};

/// Registry row. Its metrics carry the type it is made of, as the reference's do.
pub static TYPE: PluginType = PluginType::new("decode-filter", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().filter(Arc::new(ByRole { roles: ROLES, allows_no_role: true })))
})
.reported_as("by-label")
.about(
    "Keeps endpoints that generate tokens, by the pod label llm-d.ai/role; a pod without the label \
         stays.",
    "Use it in the decode profile of a pool with prefill or encode servers. It costs one look-up of a \
         label for each endpoint.",
);

/// `both` is an old spelling of `prefill-decode`.
const ROLES: &[&str] = &["decode", "prefill-decode", "both", "encode-prefill-decode"];
