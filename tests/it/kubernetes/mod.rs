//! On Kubernetes, against a real API server.

mod definitions;
mod election;
mod manifests;
mod metrics_access;
mod outage;
mod rights;
mod serving;
mod size;
