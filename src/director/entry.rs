//! The steps of a request between admission and the cycle in which plugins may turn it away.

use std::time::Instant;

use fastrand::Rng;

use super::{Director, Reason, Refusal};
use crate::scheduling::{Call, Candidates, Columns, RequestView};

impl Director {
    /// The candidates that the screeners leave.
    pub(super) fn screened(
        &self,
        candidates: Candidates,
        view: RequestView<'_>,
        now: Instant,
        rng: &mut Rng,
    ) -> Result<Candidates, Refusal> {
        let entry = &self.parts.entry;
        if entry.screeners.is_empty() {
            return Ok(candidates);
        }
        let everyone: Vec<u32> = (0..candidates.len() as u32).collect();
        let columns = Columns::new();
        let left = entry.screen(&Call::new(view, now, &candidates, &everyone, &columns), rng);
        let candidates = match left {
            Some(left) => candidates.kept(&left),
            None => candidates,
        };
        if candidates.is_empty() {
            let text = "screeners eliminated all endpoint candidates";
            return Err(Refusal::new(Reason::NoEndpoints, text));
        }
        Ok(candidates)
    }

    /// Asks the admitters whether the request is served now.
    pub(super) fn admit_scheduling(&self, call: &Call<'_>, rng: &mut Rng) -> Result<(), Refusal> {
        self.parts.entry.admit(call, rng).map_err(|(name, reason)| {
            let text = format!("request cannot be admitted: {reason} (by \"{name}\")");
            Refusal::new(Reason::NotAdmitted, text)
        })
    }
}
