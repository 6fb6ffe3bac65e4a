//! Filters: one file a plugin.

pub mod by_label;
pub mod by_role;
pub mod endpoint_attribute;
pub mod header_based_testing;
pub mod label_selector;
pub mod prefix_cache_affinity;
pub mod slo_headroom_tier;
pub mod utilization;
