//! `pointsman simulate`: the program's own decisions in virtual time, over request traces.
//!
//! The parser, producers, filters, scorers, pickers, flow control and the ledger of load are the objects that `serve`
//! builds from an `EndpointPickerConfig`. Only the servers, the clients and the clock are simulated. The readings of
//! the servers are as old as the data layer's schedule makes them.
//!
//! - `workload`: the requests, and the faults of servers; `traces` and `generate` make them
//! - `body`: requests and responses as bytes
//! - `picker`: one replica of the picker; `server`: one simulated server; `queue`: the planned events
//! - `world`: the loop; `record`: its records
//! - `figures`: the results of a run; `compare`: configurations over several seeds
//! - `experiment`: all runs; `report`, `plot`, `html`: how they are shown

mod body;
mod compare;
mod experiment;
mod figures;
mod generate;
mod html;
mod picker;
mod plot;
mod queue;
mod record;
mod report;
mod server;
mod traces;
mod workload;
mod world;

#[cfg(test)]
mod tests;

pub use compare::{Compared, Ratio};
pub use experiment::{Experiment, MakeBrain, Policy, Step};
pub use figures::{Figures, MEASURES, Measure, Objective, Times};
pub use generate::{GENERATORS, Generator};
pub use picker::Brain;
pub use report::{Plot, Report, Scenario};
pub use traces::read as read_trace;
pub use workload::{Condition, Event, Request, STRANGERS_PROMPT, Start, Workload};
pub use world::Progress;

/// Writes the report as one HTML page without other files.
pub fn html(report: &Report) -> String {
    html::page(report)
}
