//! A request's share of an endpoint's load, given back when the stream ends, however it ends.

use std::sync::Arc;

use super::{Endpoint, Load};

/// One request in flight on one endpoint. Dropping it gives the share back, once.
#[derive(Debug)]
#[must_use = "dropping a lease ends the request's share of load"]
pub struct Lease {
    load: Arc<Load>,
    tokens: u64,
}

impl Lease {
    /// Counts a request of about `tokens` tokens on `endpoint`.
    pub fn take(endpoint: &Endpoint, tokens: u64) -> Self {
        endpoint.load().begin(tokens);
        Self { load: Arc::clone(endpoint.load()), tokens }
    }

    /// Gives the tokens back early, when the prompt has been processed; the request still counts.
    pub fn release_tokens(&mut self) {
        self.load.end_tokens(std::mem::take(&mut self.tokens));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release_tokens();
        self.load.end();
    }
}
