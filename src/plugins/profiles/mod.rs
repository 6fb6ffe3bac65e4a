//! Profile handlers: one file a plugin, and what they write into request headers.
//!
//! `stages` runs the profiles of disaggregated serving in rounds; `disagg` and `pd` are two ways to configure it. `routing_headers` writes for
//! the routing sidecar what was decided.

pub mod by_header;
pub mod data_parallel;
pub mod disagg;
pub mod disagg_headers;
pub mod pd;
pub(in crate::plugins) mod routing_headers;
pub mod single;
mod stages;
