//! The data layer against servers on loopback that behave, misbehave, or speak TLS.

mod adoption;
mod connections;
mod pages;
mod server;
mod tls;

pub(crate) use server::{Harness, Told};
