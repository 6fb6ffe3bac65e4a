//! The way of one request through the servers of its stages, as a pure machine: events come in, calls go out. It neither
//! waits nor looks at the clock, and knows no connection.

mod chunks;
mod concurrent;
mod encode;
mod moriio;
mod prefill;
mod request;
mod state;
#[cfg(test)]
mod tests;
mod types;

pub(super) use request::Machine;
pub(super) use types::{
    Ask, Call, Calls, Destination, Event, Leg, LegFailure, LegRequest, Note, Peek, Rewrite, Shared,
};
