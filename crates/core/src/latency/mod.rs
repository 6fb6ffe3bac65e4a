//! Predicting latencies in the process: how long an endpoint takes to the first token of an answer, and from token to
//! token.
//!
//! Each endpoint has a model of its own. An endpoint that answered too few requests borrows the model of its type (a
//! label that names the hardware), and one of an unknown type that of the pool. The models learn from the answers that
//! pass by, one sample each, and forget within minutes: see [`Regression`].
//!
//! A model that predicts worse than the plain mean says nothing until it is better again.

mod features;
mod judge;
mod model;
mod prediction;
mod regression;

pub use features::Situation;
pub use model::{Latencies, LatencyKind, Place, Standing};
pub use prediction::{LatencyPrediction, Objective};
pub use regression::Regression;
