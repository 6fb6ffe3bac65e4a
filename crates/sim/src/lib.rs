//! A simulated model server: vLLM's API and metrics page over a model of its batch, cache and queue.
//!
//! - `engine`: the pure model: requests in, tokens out, in virtual time
//! - `profile`: engines that were measured, as plain numbers
//! - `virtual_server`: the engine in virtual time, for callers outside of this crate
//! - `driver`: the engine in real time
//! - `api`: request and response bodies
//! - `metrics_page`: the Prometheus page, as large and as odd as vLLM's
//! - `faults`: switches that break a server while it runs
//! - `control`: `/sim/`, where the switches are flipped and what was received is shown
//! - `service`, `server`: HTTP
//!
//! Every answer names its server in the header `x-sim-server`. Besides vLLM's paths the server has `/echo`, which
//! answers with the body it got, and the paths of the table below. With a role ([`Role`]) the server hands processed
//! prompts over as vLLM's NIXL connector does, simulates the time of a transfer, and knows the members of the other
//! connectors. `GET /query` is the bootstrap server of Mooncake.
//!
//! | path | methods | what |
//! |---|---|---|
//! | `/sim/faults` | GET, POST, DELETE | [`Faults`]; POST changes the named ones, DELETE clears all |
//! | `/sim/fake-metrics` | GET, POST, DELETE | [`FakeMetrics`]; POST replaces them, `null` clears |
//! | `/sim/requests?n=` | GET, DELETE | the last requests ([`Received`]), at most 100 |
//! | `/sim/stats` | GET | [`SimStats`] |

mod api;
mod args;
mod config;
mod control;
mod driver;
mod engine;
mod faults;
mod metrics_page;
mod profile;
mod query;
mod received;
mod reply;
mod server;
mod service;
mod state;
mod stream;
mod virtual_server;
mod wire;

pub use args::SimArgs;
pub use config::{Role, SimConfig};
pub use engine::Glance;
pub use faults::{FakeMetrics, Faults};
pub use profile::EngineProfile;
pub use received::Received;
pub use server::{SimServer, run};
pub use state::SimStats;
pub use virtual_server::{VirtualEvent, VirtualRequest, VirtualServer};

#[cfg(test)]
mod tests;
