//! A cluster without machines: a real API server, pods that are simulated servers, and the program as if it ran in a
//! pod.

mod apiserver;
mod namespace;
mod service;
mod stage;
mod traffic;

pub(crate) use apiserver::ApiServer;
pub(crate) use namespace::{LABEL, Namespace, POOL};
pub(crate) use service::{Backend, Service, Wire};
pub(crate) use stage::{CONFIG, Stage, condition, free_port, picker, picker_in, picker_with, simulate};
pub(crate) use traffic::{Gone, Traffic};
