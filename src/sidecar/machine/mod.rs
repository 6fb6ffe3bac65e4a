//! The way of one request through the servers of its stages, as a pure state machine. It takes events and returns the
//! calls to make. It does not wait, does not read the clock, and knows no connections.

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
