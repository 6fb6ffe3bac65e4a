//! Admitters: one file a plugin.

pub mod latency_slo;
pub mod probabilistic;
