//! What other replicas do, as the queues are told it, and what they are told.

use std::sync::Arc;

use super::{Controller, now};
use crate::flow::gate::Rivals;
use crate::flow::limit::Queued;

impl Controller {
    /// From now on this much waits at other replicas; see [`Gate::set_elsewhere`](crate::flow::Gate::set_elsewhere).
    pub fn set_elsewhere(&self, waiting: impl IntoIterator<Item = (i32, Queued)>) {
        self.state.lock().gate.set_elsewhere(waiting);
    }

    /// These are the other replicas from now on; see [`Gate::set_rivals`](crate::flow::Gate::set_rivals).
    pub fn set_rivals(&self, rivals: Rivals) {
        self.state.lock().gate.set_rivals(rivals);
    }

    /// What programs were served since the last call; see [`Gate::take_services`](crate::flow::Gate::take_services).
    pub fn take_services(&self) -> Vec<(Arc<str>, u64)> {
        self.state.lock().gate.take_services()
    }

    /// Other replicas have served these programs; see [`Gate::served_elsewhere`](crate::flow::Gate::served_elsewhere).
    pub fn served_elsewhere(&self, services: &[(Arc<str>, u64)]) {
        let mut state = self.state.lock();
        for (fairness_id, tokens) in services {
            state.gate.served_elsewhere(fairness_id, *tokens, now());
        }
    }
}
