//! KEDA's external scaler: the autoscaler asks Pointsman itself, and is told at once when a request waits for a pool at
//! zero.
//!
//! [`ScalerSource`] is where the numbers come from. [`Trigger`] is what a ScaledObject asks for, read strictly from its
//! metadata. [`Activity`] decides, with an explicit clock, whether the pool has work. [`KedaScaler`] is the gRPC
//! service over them, [`serve`] the listener. [`Role`] says whether this replica's numbers are the pool's at all.

mod activity;
mod codec;
mod connection;
mod milli;
mod role;
mod server;
mod service;
mod shared;
mod source;
mod stream;
mod trigger;
mod unary;
pub mod wire;

pub use activity::{Activity, Look, MAX_REMEMBERED};
pub use codec::{
    GET_METRIC_SPEC_PATH, GET_METRICS_PATH, IS_ACTIVE_PATH, SERVICE_NAME, STREAM_IS_ACTIVE_PATH,
};
pub use role::Role;
pub use server::serve;
pub use service::KedaScaler;
pub use shared::ScalerSettings;
pub use source::ScalerSource;
pub use trigger::{Metric, Trigger, TriggerError};

#[cfg(test)]
mod tests;
