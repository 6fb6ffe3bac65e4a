//! Fuzzing on stable Rust. Each target takes seeds, changes them for some seconds, and holds what comes out against
//! invariants: no panic, no endless loop, output and memory bounded by the input, counts back at zero. There is no
//! feedback from coverage; a rough path number says which inputs are worth keeping. `make test` gives each target the
//! same thousand inputs, `make fuzz` for as long as one likes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation is how a test fails"
)]

mod engine;
mod memory;
mod mutate;
mod targets;
