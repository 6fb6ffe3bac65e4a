//! Other settings while requests wait.

use std::time::Instant;

use super::{Ceilings, Evictor, Gate, Load, nanos};
use crate::flow::arrival::Arrival;
use crate::flow::outcome::GateDecision;
use crate::flow::settings::FlowSettings;

impl Gate {
    /// These settings are in force from now on. Requests that wait keep their tickets, and the time that they have
    /// waited; bounds do not count for them. `arrival` says what the request at this [`Ticket::index`] came with.
    ///
    /// [`Ticket::index`]: crate::flow::Ticket::index
    pub fn reconfigure<'a>(
        &mut self,
        settings: FlowSettings,
        arrival: impl Fn(usize) -> Option<&'a Arrival>,
        now: Instant,
        load: &dyn Load,
        decisions: &mut Vec<GateDecision>,
    ) {
        let at = self.at(now);
        let epoch = self.epoch;
        let arrivals = |place: u32| {
            let arrival = arrival(place as usize)?;
            Some((arrival, nanos(epoch, arrival.received)))
        };
        self.ledger.resettle(&settings, arrivals, at);
        self.ceilings = Ceilings::new(settings.usage_limit.clone());
        self.written.clear();
        match &mut self.evictor {
            Some(evictor) if settings.eviction => evictor.judged_by(&settings.detector.kind),
            _ => self.evictor = settings.eviction.then(|| Evictor::new(&settings.detector.kind)),
        }
        self.settings = settings;
        self.advance(now, load, decisions);
    }

    /// True if the request still waits.
    pub fn waits(&self, ticket: crate::flow::Ticket) -> bool {
        self.ledger.has(ticket)
    }
}
