//! What the integration tests stand on: the program, simulated model servers and Envoy as real processes on ports the
//! system chose, and clients that speak to them.

mod chromium;
mod client;
pub(crate) mod cluster;
mod endpoints;
mod envoy;
mod exporter;
mod ext_proc;
pub(crate) mod field;
mod fleet;
mod keda;
pub(crate) mod kv_publisher;
mod line;
pub(crate) mod network;
mod pointsman;
mod poll;
pub(crate) mod process;
mod prometheus;
pub(crate) mod raw_http2;
mod recorded;
mod recorder;
mod redis;
mod scripted;
mod stack;
mod tools;

pub(crate) use chromium::Chromium;
pub(crate) use client::{Client, Reply, chat, lone_request, sse_events};
pub(crate) use endpoints::EndpointsFile;
pub(crate) use envoy::{BodyMode, Envoy};
pub(crate) use exporter::{Exporter, Form};
pub(crate) use ext_proc::{Exchange, Proxy, body, destination, headers, response_headers, sets, trailers};
pub(crate) use fleet::Fleet;
pub(crate) use keda::{Ears, Keda};
pub(crate) use line::{Carries, Line};
pub(crate) use pointsman::{Pointsman, health, program, series_sum};
pub(crate) use poll::{PATIENCE, eventually, holds, within};
pub(crate) use prometheus::{Prometheus, Target};
pub(crate) use recorded::Recorded;
pub(crate) use recorder::Recorder;
pub(crate) use redis::Redis;
pub(crate) use scripted::{End as ScriptEnd, Script, Scripted};
pub(crate) use stack::{SCORERS, Stack, config};
pub(crate) use tools::{documents, helm, render, run, tool};
