//! Flow control: requests wait here while the pool is full or empty. They leave in the order of their importance as
//! soon as the pool has room.
//!
//! [`Gate`] is the pure core. Its input is arrivals, completions, cancellations, the load of the pool and the time. Its
//! output is decisions and the time of the next wake-up. [`Controller`] is the shell around the gate, with the waiting
//! tasks and one timer. [`settings`] holds the settings of both, [`saturation`] computes how full a pool is, and
//! [`usage_limit`] computes how full it may be for each band.

mod accounts;
mod arrival;
mod band;
mod contest;
mod depths;
pub mod detector;
mod evict;
mod fairness;
mod flows;
mod gate;
mod ledger;
mod limit;
mod observer;
mod ordering;
mod outcome;
mod programs;
mod queue;
pub mod saturation;
mod sessions;
pub mod settings;
mod shell;
#[cfg(test)]
mod tests;
pub mod usage_limit;

pub use arrival::Arrival;
pub use band::{BandUsage, FlowWait};
pub use gate::{Gate, Load, Rivals};
pub use limit::Queued;
pub use observer::{Observer, Silent};
pub use ordering::slo_ttft;
pub use outcome::{DropReason, GateDecision, Outcome, QueueBound, Rejection};
pub use queue::Ticket;
pub use saturation::{Fill, Unplaced};
pub use settings::{DEFAULT_FLOW, FlowSettings};
pub use shell::{Controller, Permit};
