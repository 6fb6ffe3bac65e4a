//! The machine in virtual time, against the servers of a test.

mod both;
mod extras;
mod failures;
mod nixl;
mod serial;
mod support;
