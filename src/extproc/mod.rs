//! The ext_proc service: the one place that names Envoy's messages.
//!
//! [`Machine`] is the protocol, pure; [`stream`](self) drives one machine with one gRPC stream; [`server`](self) listens.

mod answer;
mod body;
mod codec;
mod connections;
mod machine;
mod metadata;
mod mode;
mod refusal;
mod server;
mod service;
mod stream;
mod tls;
pub mod wire;

pub use body::BodyBudget;
pub use codec::{PROCESS_PATH, SERVICE_NAME, client_codec};
pub use connections::Connections;
pub use machine::{Effect, Effects, Machine, MachineSettings};
pub use mode::{BodyMode, Modes, UnknownMode};
pub use server::{Listening, ServerError, ServerSettings, accept, serve, watch_certificate};
pub use service::{ExtProc, ExtProcSettings};
pub use tls::{Identity, TlsError, TlsSettings, metrics_tls};
