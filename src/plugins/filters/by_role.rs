//! `decode-filter`, `encode-filter` and `prefill-filter`: keep endpoints by the pod label `llm-d.ai/role`.
//!
//! A pod without the label can do everything that `decode-filter` asks for, and neither encodes nor processes prompts
//! for others. The filters take no parameters. Their metrics carry the type they are made of, as the reference's do.

use std::sync::Arc;

use crate::plugins::{PluginType, Roles, Stability};
use crate::pool::{DECODE_ROLES, ENCODE_ROLES, PREFILL_ROLES, ROLE_LABEL};
use crate::scheduling::{Call, Filter, Mask};

/// Registry row of the filter for servers that generate tokens.
pub static DECODE: PluginType = PluginType::new("decode-filter", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().filter(Arc::new(ByRole {
        name: "decode",
        roles: DECODE_ROLES,
        allows_no_role: true,
    })))
})
.reported_as("by-label")
.about(
    "Keeps endpoints that generate tokens, by the pod label llm-d.ai/role; a pod without the label \
         stays.",
    "Use it in the decode profile of a pool with prefill or encode servers. It costs one look-up of a \
         label for each endpoint.",
);

/// Registry row of the filter for servers that encode media for others.
pub static ENCODE: PluginType = PluginType::new("encode-filter", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().filter(Arc::new(ByRole {
        name: "encode",
        roles: ENCODE_ROLES,
        allows_no_role: false,
    })))
})
.reported_as("by-label")
.about(
    "Keeps endpoints that encode media for others, by the pod label llm-d.ai/role.",
    "Use it in the encode profile of a pool whose encoders run on servers of their own. It costs one \
         look-up of a label for each endpoint.",
);

/// Registry row of the filter for servers that process prompts for others.
pub static PREFILL: PluginType = PluginType::new("prefill-filter", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().filter(Arc::new(ByRole {
        name: "prefill",
        roles: PREFILL_ROLES,
        allows_no_role: false,
    })))
})
.reported_as("by-label")
.about(
    "Keeps endpoints that process prompts for others, by the pod label llm-d.ai/role.",
    "Use it in the prefill profile of a pool with prefill servers. It costs one look-up of a label for \
         each endpoint.",
);

/// Keeps endpoints whose role is listed; what the three role filters are made of.
#[derive(Debug)]
struct ByRole {
    /// What it keeps endpoints for.
    name: &'static str,
    /// Roles to keep.
    roles: &'static [&'static str],
    /// Keep pods that name no role. An empty role is a role.
    allows_no_role: bool,
}

impl Filter for ByRole {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        keep.retain(call.endpoints(), |endpoint| match endpoint.label(ROLE_LABEL) {
            Some(role) => self.roles.contains(&role),
            None => self.allows_no_role,
        });
    }

    fn role(&self) -> Option<&'static str> {
        Some(self.name)
    }
}
