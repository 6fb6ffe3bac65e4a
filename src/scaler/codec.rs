//! How messages travel: names of the service and its methods.

/// Full name of the gRPC service.
pub const SERVICE_NAME: &str = "externalscaler.ExternalScaler";
/// Path of `IsActive`.
pub const IS_ACTIVE_PATH: &str = "/externalscaler.ExternalScaler/IsActive";
/// Path of `StreamIsActive`.
pub const STREAM_IS_ACTIVE_PATH: &str = "/externalscaler.ExternalScaler/StreamIsActive";
/// Path of `GetMetricSpec`.
pub const GET_METRIC_SPEC_PATH: &str = "/externalscaler.ExternalScaler/GetMetricSpec";
/// Path of `GetMetrics`.
pub const GET_METRICS_PATH: &str = "/externalscaler.ExternalScaler/GetMetrics";

/// Largest message taken, in bytes. A trigger's metadata is a handful of short strings.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 << 10;
