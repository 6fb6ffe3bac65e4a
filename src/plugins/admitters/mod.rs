//! Admitters: one file a plugin.

pub mod probabilistic;
