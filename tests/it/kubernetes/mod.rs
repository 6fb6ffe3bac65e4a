//! On Kubernetes, against a real API server.

mod admission;
mod autoscaler;
mod definitions;
mod election;
mod installing;
mod leader_label;
mod manifests;
mod metrics_access;
mod notifications;
mod outage;
mod replicas;
mod rights;
mod serving;
mod size;
mod taking_over;
