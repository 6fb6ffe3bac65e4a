//! The pod label that says what a model server does in a disaggregated deployment, and its values.

/// The pod label that names the work of a model server.
pub const ROLE_LABEL: &str = "llm-d.ai/role";

/// The values for servers that generate tokens. `both` is an old spelling of `prefill-decode`.
pub const DECODE_ROLES: &[&str] = &["decode", "prefill-decode", "both", "encode-prefill-decode"];

/// The values for servers that encode images, videos and sounds for others.
pub const ENCODE_ROLES: &[&str] = &["encode", "encode-prefill", "encode-prefill-decode"];

/// The values for servers that process prompts for others.
pub const PREFILL_ROLES: &[&str] =
    &["prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode"];
