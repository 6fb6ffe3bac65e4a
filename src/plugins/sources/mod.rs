//! Reading model servers: where metrics pages come from, and which figures they hold.

mod core_metrics;
mod endpoint_notification;
mod metrics;

pub use core_metrics::TYPE as CORE_METRICS_EXTRACTOR;
pub use endpoint_notification::TYPE as ENDPOINT_NOTIFICATION_SOURCE;
pub use metrics::TYPE as METRICS_DATA_SOURCE;
