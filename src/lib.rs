//! Pointsman: an endpoint picker for LLM inference pools.
//!
//! The decision core is a crate of its own, `pointsman-core`: [`pool`] (endpoints and their load), [`request`] (what is
//! asked), [`prefix`] (who holds which blocks), [`scheduling`] (the cycle and its traits) and [`flow`] (who waits, and
//! who goes next). This crate is everything around it. Reading order, from what knows nothing to what knows everything:
//! [`metrics`] and [`telemetry`] (what is exported), [`document`] (files that people write), [`datalayer`] (reading
//! model servers), [`render`] (asking for tokens), [`plugins`] (the catalogue), [`config`] (what was written becomes
//! what runs), [`director`] (the way of a request), [`transport`] (what every port shares), [`peers`] (what replicas
//! tell each other), [`extproc`] (the proxy's protocol), [`kubernetes`] (its API), [`discovery`], [`admin`], [`scaler`]
//! (what an autoscaler asks), [`simulate`] (decisions in virtual time) and [`cli`], the wiring. The simulated model
//! server is the crate `pointsman-sim`. `docs/architecture.md` tells how they work together.

pub use pointsman_core::{clock, flow, latency, pool, prefix, request, scheduling};

pub mod document;
pub mod metrics;
pub mod telemetry;

pub mod datalayer;
pub mod render;

pub mod plugins;

pub mod capture;
pub mod config;
pub mod decisions;
pub mod director;
pub mod doctor;

pub mod transport;

pub mod peers;
pub mod replay;

pub mod admin;
pub mod discovery;
pub mod extproc;
pub mod kubernetes;
pub mod kvevents;
pub mod scaler;
pub mod sidecar;
pub mod simulate;

pub mod cli;

#[cfg(test)]
mod generated;
