//! The pages for operators: metrics, debug pages and the log level over HTTP, health over gRPC.

mod access;
mod capturing;
mod debug;
mod dry_runs;
mod health;
mod list;
mod page;
mod page_sources;
mod pages;
mod reloading;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod words;

pub use access::{Access, AccessVerdict, Answer, Caller};
pub use capturing::{CaptureSwitch, Switch, SwitchError};
pub use debug::PluginState;
pub use dry_runs::{DryRunner, Trying};
pub use health::{HealthService, HealthState, LEADER_SERVICE};
pub use list::{HealthRpc, ListRequest, ListResponse};
pub use page::Feed;
pub use page_sources::{BandRow, FlowRow, PageSources, Queues};
pub use reloading::{Reloaded, Reloading};
pub use server::{serve, serve_health, serve_people};
pub use state::{AdminState, LogLevelFrom};
