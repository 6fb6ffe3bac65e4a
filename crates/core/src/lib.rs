//! The decision core of Pointsman: which model server gets a request, and when.
//!
//! Everything here is pure: bytes, values and an explicit `now` go in, values come out. No protocol, no cluster, no
//! exporter is known here, so that ten thousand requests in virtual time are a unit test. Reading order, from what
//! knows nothing to what knows everything: [`pool`] (endpoints and their load), [`request`] (what is asked), [`prefix`]
//! (which endpoint holds which blocks of prompts), [`latency`] (how long an endpoint will take), [`scheduling`] (the cycle and the traits of its plugins) and
//! [`flow`] (which request waits, and which goes next).
//!
//! `examples/decide.rs` is a whole program: a pool, two scorers, a picker and ten decisions.

pub mod clock;

pub mod pool;

pub mod request;

pub mod prefix;

pub mod latency;

pub mod scheduling;

pub mod flow;
