//! The ext_proc service: the one place that names Envoy's messages.
//!
//! [`Machine`] is the protocol, pure; [`stream`](self) drives one machine with one gRPC stream; [`server`](self)
//! listens.

mod answer;
mod body;
mod codec;
mod early;
mod form;
mod inbound;
mod machine;
mod metadata;
mod mode;
mod refusal;
mod server;
mod service;
mod settings;
mod stream;
mod stream_count;
mod tunnel;
pub mod wire;

pub use codec::{PROCESS_PATH, SERVICE_NAME, client_codec};
pub use machine::{Effect, Effects, Machine, MachineSettings};
pub use mode::{BodyMode, Modes, UnknownMode};
pub use server::serve;
pub use service::ExtProc;
pub use settings::ExtProcSettings;
