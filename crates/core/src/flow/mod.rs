//! Flow control: requests wait here while the pool is full or empty, and leave in the right order the moment there is
//! room.
//!
//! [`Gate`] is the pure core: arrivals, completions, cancels, a pool's load and now come in, decisions and the next
//! wake-up go out. [`Controller`] is the shell around it, with the waiting tasks and one timer. [`settings`] says what
//! both go by, [`saturation`] how full a pool is, and [`usage_limit`] how full it may be for each band.

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
