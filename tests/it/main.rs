//! What a user sees, tested against the real program, simulated model servers and a real Envoy, a module for each
//! theme.
//!
//! Envoy comes from `make setup`. Every process gets its ports from the system, and nothing waits but for an
//! observable.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation is how a test fails"
)]
#![allow(clippy::float_cmp, reason = "the numbers compared are counts")]
#![allow(clippy::format_collect, clippy::format_push_string, reason = "short texts, made once")]

#[path = "../support/mod.rs"]
mod support;

mod abuse;
mod architecture;
mod autoscaling;
mod bodies;
mod body_modes;
mod browser;
mod capture;
mod catalogue;
mod check_mends;
mod cli;
mod datalayer;
mod datalayer_python;
mod decisions;
mod deploy;
mod disaggregation;
mod discovery;
mod doctor;
mod drain;
mod ext_proc_direct;
mod faults;
mod field_args;
mod field_configs;
mod field_values;
mod hostile_headers;
mod idle;
mod image_names;
mod in_flight_load;
mod kubernetes;
mod legacy_flags;
mod limits;
mod lost_peers;
mod memory;
mod metrics_flood;
mod metrics_pages;
mod model_bounds;
mod objectives_and_rewrites;
mod other_pages;
mod other_parsers;
mod overload;
mod own_plugins;
mod peers;
mod picking;
mod plugins_before_scheduling;
mod precise_prefix;
mod predicted_latency;
mod prefix_proof;
mod refusals;
mod reload;
mod reload_flow;
mod render_endpoint;
mod resets;
mod response_reports;
mod responses;
mod scale_from_zero;
mod scraping;
mod session_affinity;
mod shadow;
mod sidecar;
mod silent_clients;
mod simulate;
mod stateful;
mod supply_chain;
mod through_envoy;
mod tls;
mod tracing;
mod tunnels;
mod unread_output;
mod unseen_models;
