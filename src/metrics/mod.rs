//! Exported series. Families are made once and handed down as handles; the request path touches atomics only.
//!
//! Each series is defined in one place: the constants at the top of the file of its group. Series of the reference keep
//! their names, labels and buckets, and are written under the legacy name as well; series that only this program has
//! begin with `pointsman_`.

mod answers;
mod bounds;
mod buckets;
mod capture;
mod cardinality;
mod datalayer;
mod disaggregation;
mod discovery;
mod election;
mod encode;
mod encoder_cache;
mod endpoints;
#[cfg(test)]
mod exercise;
mod extproc;
mod families;
mod family;
mod flow;
mod flow_families;
mod flow_sets;
#[cfg(test)]
mod golden;
mod histogram_set;
mod inflight;
mod kubernetes;
mod kv_events;
mod label_sets;
mod labels;
mod latency;
mod lines;
#[cfg(test)]
mod page_doc;
mod peers;
mod pool;
mod ports;
mod prefix;
mod prepare;
mod processing;
mod proof;
mod records;
mod request;
mod request_families;
mod scheduler;
mod shadow;
mod sidecar;
mod sketch;
mod split;
mod state;
#[cfg(test)]
mod tests;
mod timer;

pub use answers::{AnswerMetrics, ResponseEnd, UsageUnread};
pub use bounds::MetricBounds;
pub use capture::CaptureMetrics;
pub use datalayer::DataLayerMetrics;
pub use disaggregation::{DecisionMetrics, StagesRun};
pub use discovery::DiscoveryMetrics;
pub use encode::Format;
pub use encoder_cache::EncoderCacheMetrics;
pub use extproc::{ExtProcMetrics, StreamGuard};
pub use families::Metrics;
pub use flow::FlowMetrics;
pub use flow_sets::QueuedGuard;
pub use inflight::{InflightMetrics, InflightShare};
pub use kubernetes::{KubernetesMetrics, WatchMetrics};
pub use kv_events::KvEventMetrics;
pub use labels::RequestLabels;
pub use latency::{LatencyLabels, LatencyMetrics};
pub use peers::PeerMetrics;
pub use pool::PoolCollector;
pub use ports::{ConnectionEnd, PortMetrics};
pub use prefix::PrefixIndexMetrics;
pub use prepare::{Preparation, PrepareMetrics};
pub use processing::ProcessingMetrics;
pub use proof::ProofMetrics;
pub use records::RecordMetrics;
pub use request::{RequestMetrics, ResponseStats, RunningGuard};
pub use scheduler::SchedulerMetrics;
pub use shadow::{ShadowMetrics, ShadowProfileMetrics};
pub use sidecar::{Direction, PrefillRetry, SIDECAR_OUTCOMES, SidecarInFlight, SidecarMetrics};
pub use split::{SplitMetrics, SplitState};
pub use state::{BoundHit, StateMetrics};
pub use timer::{ExtensionPoint, PluginTimer, TimedParser};
