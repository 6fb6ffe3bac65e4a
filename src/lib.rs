//! Pointsman: an endpoint picker for LLM inference pools.
//!
//! Reading order, from what knows nothing to what knows everything: [`pool`] (endpoints and their load), [`metrics`] and [`telemetry`] (what is
//! exported), [`document`] (files that people write), [`request`] (what is asked), [`prefix`] (who holds which blocks), [`scheduling`] (the cycle
//! and its traits), [`flow`] (who waits, and who goes next), [`datalayer`] (reading model servers), [`plugins`] (the catalogue), [`config`] (what was written becomes what runs),
//! [`director`] (the way of a request), [`transport`] (what every port shares), [`extproc`] (the proxy's protocol), [`kubernetes`] (its API), [`discovery`], [`admin`], [`scaler`]
//! (what an autoscaler asks), [`sim`] (a simulated model server) and
//! [`cli`], the wiring. `docs/architecture.md` tells how they work together.

pub mod pool;

pub mod document;
pub mod metrics;
pub mod telemetry;

pub mod datalayer;
pub mod flow;
pub mod prefix;
pub mod request;
pub mod scheduling;

pub mod plugins;

pub mod config;
pub mod director;

pub mod transport;

pub mod admin;
pub mod discovery;
pub mod extproc;
pub mod kubernetes;
pub mod scaler;
pub mod sim;

pub mod cli;
