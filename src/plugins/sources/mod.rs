//! Reading model servers: where metrics pages come from, and which figures they hold.

mod core_metrics;
mod metrics;

pub use core_metrics::TYPE as CORE_METRICS_EXTRACTOR;
pub use metrics::TYPE as METRICS_DATA_SOURCE;
