//! Other settings while requests wait and run.

use std::sync::atomic::Ordering;

use super::{Controller, State};
use crate::flow::settings::FlowSettings;

impl Controller {
    /// These settings are in force from now on. What waits goes on waiting, in its place under the new ones, and has
    /// waited as long as it has; it is not refused even where a new bound is lower. Requests that run already can be
    /// stopped only if they could be when they were released.
    pub fn reconfigure(&self, settings: FlowSettings) {
        self.eviction.store(settings.eviction, Ordering::Relaxed);
        self.act(|state, load, now| {
            let State { gate, waiters, decisions, .. } = state;
            let arrival = |place: usize| waiters.get(place)?.as_ref()?.arrival.as_ref();
            gate.reconfigure(settings, arrival, now, load, decisions);
        });
    }
}
