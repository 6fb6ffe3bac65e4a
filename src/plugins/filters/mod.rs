//! Filters: one file a plugin.

pub mod by_label;
pub mod decode;
pub mod encode;
pub mod endpoint_attribute;
pub mod header_based_testing;
pub mod label_selector;
pub mod prefill;
pub mod prefix_cache_affinity;
pub mod utilization;
