//! What waits, for people.

use super::{Controller, now};
use crate::flow::band::{BandUsage, FlowWait};

impl Controller {
    /// Bands by falling priority.
    pub fn bands(&self) -> Vec<BandUsage> {
        self.state.lock().gate.bands().collect()
    }

    /// The `count` flows whose next request has waited longest, longest first. The lock is held while flows are looked
    /// through.
    pub fn longest_waits(&self, count: usize) -> Vec<FlowWait> {
        self.state.lock().gate.longest_waits(count, now())
    }
}
