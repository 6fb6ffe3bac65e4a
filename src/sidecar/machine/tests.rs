//! Tests of the machine in virtual time, against servers that a test plays.

mod both;
mod extras;
mod failures;
mod nixl;
mod serial;
mod support;
