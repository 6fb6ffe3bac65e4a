//! Profile handlers: one file a plugin, and the plugin that writes what they decided.
//!
//! `stages` runs the profiles of disaggregated serving in rounds; `disagg` and `pd` are two ways to configure it.

pub mod by_header;
pub mod data_parallel;
pub mod disagg;
pub mod disagg_headers;
pub mod pd;
pub mod single;
mod stages;
