//! Warnings about requests. Each kind is written at most once a minute, because one cause usually affects thousands of
//! requests.

use std::time::{Duration, Instant};

use super::machine::Note;
use crate::telemetry::Repeat;

/// The shortest time between two warnings of the same kind.
const PERIOD: Duration = Duration::from_mins(1);

/// The warnings of one process.
#[derive(Debug)]
pub(super) struct Notices {
    no_parameters: Repeat,
    prefill_failed: Repeat,
    refused: Repeat,
}

impl Default for Notices {
    fn default() -> Self {
        let repeat = || Repeat::every(PERIOD);
        Self { no_parameters: repeat(), prefill_failed: repeat(), refused: repeat() }
    }
}

impl Notices {
    /// Writes a warning about `note`, unless one of the same kind was written within the last minute.
    pub(super) fn tell(&self, note: &Note) {
        let now = Instant::now();
        match note {
            Note::NoParameters(target) => {
                if let Some(suppressed) = self.no_parameters.due(now) {
                    tracing::warn!(
                        %target,
                        suppressed,
                        "prefill server hands over no cache; does its engine have a kv connector? the prompt is processed twice"
                    );
                }
            }
            Note::PrefillFailed(target, reason, text, retry) => {
                if let Some(suppressed) = self.prefill_failed.due(now) {
                    let (reason, then) = (reason.name(), format!("{retry:?}").to_lowercase());
                    tracing::warn!(%target, reason, text, then, suppressed, "prefill server failed");
                }
            }
        }
    }

    /// Warns that the sidecar refused a request, unless it did so within the last minute.
    pub(super) fn refused(&self, reason: &str, message: &str) {
        if let Some(suppressed) = self.refused.due(Instant::now()) {
            tracing::warn!(reason, message, suppressed, "request refused");
        }
    }
}
