//! Reading model servers: where metrics pages come from, and which figures they hold.

mod access;
mod core_metrics;
mod dcgm;
mod dcgm_extractor;
mod endpoint_notification;
mod k8s_notification;
mod metrics;
mod models;
mod models_extractor;
mod multicluster_metrics;
mod multicluster_metrics_extractor;

pub use core_metrics::TYPE as CORE_METRICS_EXTRACTOR;
pub use dcgm::TYPE as DCGM_DATA_SOURCE;
pub use dcgm_extractor::TYPE as DCGM_EXTRACTOR;
pub use endpoint_notification::TYPE as ENDPOINT_NOTIFICATION_SOURCE;
pub use k8s_notification::TYPE as K8S_NOTIFICATION_SOURCE;
pub use metrics::TYPE as METRICS_DATA_SOURCE;
pub use models::TYPE as MODELS_DATA_SOURCE;
pub use models_extractor::TYPE as MODELS_DATA_EXTRACTOR;
pub use multicluster_metrics::TYPE as MULTICLUSTER_METRICS_DATA_SOURCE;
pub use multicluster_metrics_extractor::TYPE as MULTICLUSTER_METRICS_EXTRACTOR;

#[cfg(test)]
mod tests;
