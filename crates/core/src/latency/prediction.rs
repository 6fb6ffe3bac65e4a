//! What is predicted for one endpoint and one request.

/// Latencies that a request asks for, in milliseconds; 0 where it asks for none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Objective {
    /// Time to the first token.
    pub first: f64,
    /// Time between two tokens.
    pub between: f64,
}

/// One cell of the column that the producer of predictions writes. All times are in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencyPrediction {
    /// Time to the first token.
    pub first: f64,
    /// Time between two tokens; 0 where it is not predicted.
    pub between: f64,
    /// The objective less the prediction: negative where the objective will be missed, and without an objective.
    pub first_headroom: f64,
    /// The same for the time between tokens; 0 where that is not predicted.
    pub between_headroom: f64,
    /// The time to the first token is within the objective.
    pub first_valid: bool,
    /// The time between tokens is within the objective, or is not predicted.
    pub between_valid: bool,
    /// Requests in flight at the endpoint.
    pub dispatched: u64,
}

impl LatencyPrediction {
    /// Both latencies keep the objective.
    pub fn is_valid(&self) -> bool {
        self.first_valid && self.between_valid
    }
}
