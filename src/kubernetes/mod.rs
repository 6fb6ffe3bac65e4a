//! The Kubernetes API as a client sees it: how to reach it, what its failures mean, who leads among replicas, and who
//! may read metrics.
//!
//! `discovery/kubernetes/` reads the pool from the API.

mod access;
mod access_cache;
mod access_strangers;
mod client;
mod election;
mod failure;
mod holder;
mod leader_label;
mod lease;
mod owner;
#[cfg(test)]
pub(crate) mod playing;

pub use access::TokenReviews;
pub use client::{ConnectError, Connection};
pub use election::{Election, ElectionSettings, Leadership};
pub use failure::{Failure, told};
pub use leader_label::{LabelSettings, LeaderLabel};
pub use owner::owner_of;
