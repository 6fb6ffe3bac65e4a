//! The pages for operators: metrics, debug pages and the log level over HTTP, health over gRPC.

mod access;
mod capturing;
mod debug;
mod dry_runs;
mod health;
mod list;
mod pages;
mod reloading;
mod server;
#[cfg(test)]
mod tests;

pub use access::{Access, AccessVerdict, Answer, Caller};
pub use capturing::{CaptureSwitch, Switch, SwitchError};
pub use debug::PluginState;
pub use dry_runs::{DryRunner, Trying};
pub use health::{HealthService, HealthState, LEADER_SERVICE};
pub use list::{HealthRpc, ListRequest, ListResponse};
pub use pages::{AdminState, LogLevelFrom};
pub use reloading::{Reloaded, Reloading};
pub use server::{serve, serve_health};
