//! What the controller exchanges with other replicas of the process.

use std::sync::Arc;

use super::{Controller, now};
use crate::flow::gate::Rivals;
use crate::flow::limit::Queued;

impl Controller {
    /// Sets the requests that wait at other replicas; see [`Gate::set_elsewhere`](crate::flow::Gate::set_elsewhere).
    pub fn set_elsewhere(&self, waiting: impl IntoIterator<Item = (i32, Queued)>) {
        self.state.lock().gate.set_elsewhere(waiting);
    }

    /// Sets the other replicas; see [`Gate::set_rivals`](crate::flow::Gate::set_rivals).
    pub fn set_rivals(&self, rivals: Rivals) {
        self.state.lock().gate.set_rivals(rivals);
    }

    /// Returns the service of each program since the last call; see
    /// [`Gate::take_services`](crate::flow::Gate::take_services).
    pub fn take_services(&self) -> Vec<(Arc<str>, u64)> {
        self.state.lock().gate.take_services()
    }

    /// Requests that were released since the last call; see [`Gate::take_turns`](crate::flow::Gate::take_turns).
    pub fn take_turns(&self) -> Vec<(Arc<str>, u64)> {
        self.state.lock().gate.take_turns()
    }

    /// Other replicas have released so many requests of these flows; see
    /// [`Gate::turns_elsewhere`](crate::flow::Gate::turns_elsewhere).
    pub fn turns_elsewhere(&self, turns: &[(Arc<str>, u64)]) {
        let mut state = self.state.lock();
        for (fairness_id, count) in turns {
            state.gate.turns_elsewhere(fairness_id, *count, now());
        }
    }

    /// Adds the service that other replicas gave to programs; see
    /// [`Gate::served_elsewhere`](crate::flow::Gate::served_elsewhere).
    pub fn served_elsewhere(&self, services: &[(Arc<str>, u64)]) {
        let mut state = self.state.lock();
        for (fairness_id, tokens) in services {
            state.gate.served_elsewhere(fairness_id, *tokens, now());
        }
    }
}
