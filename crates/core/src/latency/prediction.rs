//! The prediction for one endpoint and one request.

/// The latency objectives of a request, in milliseconds; 0 means no objective.
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
    /// Time between two tokens; 0 if it is not predicted.
    pub between: f64,
    /// The objective minus the prediction. The value is negative if the prediction misses the objective, and if there
    /// is no objective.
    pub first_headroom: f64,
    /// The same for the time between tokens; 0 if that is not predicted.
    pub between_headroom: f64,
    /// True if the time to the first token is within the objective.
    pub first_valid: bool,
    /// True if the time between tokens is within the objective, or if it is not predicted.
    pub between_valid: bool,
    /// Requests in flight at the endpoint.
    pub dispatched: u64,
}

impl LatencyPrediction {
    /// True if both latencies are within their objectives.
    pub fn is_valid(&self) -> bool {
        self.first_valid && self.between_valid
    }
}
