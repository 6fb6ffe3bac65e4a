//! Prediction of latencies in the process: the time to the first token of an answer, and the time between tokens.
//!
//! Each endpoint has a model of its own. An endpoint that answered too few requests uses the model of its type, which a
//! label with the name of the hardware gives. If the type has no model either, the endpoint uses the model of the pool.
//! The models learn one sample from each answer, and forget within minutes: see [`Regression`].
//!
//! A model that predicts worse than the plain mean gives no predictions until it is better again.

mod features;
mod judge;
mod model;
mod prediction;
mod regression;

pub use features::Situation;
pub use model::{Latencies, LatencyKind, Place, Standing};
pub use prediction::{LatencyPrediction, Objective};
pub use regression::Regression;
