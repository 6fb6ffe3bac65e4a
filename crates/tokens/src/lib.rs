//! Exact prompt tokens of a vLLM server, computed in the process.
//!
//! A [`Model`] is loaded from a folder with the files that the server itself reads. From the path and the body of a
//! request it makes the token ids that the server will make, or says why it cannot ([`Unsupported`]). It never guesses,
//! so the caller can fall back to an estimate. The crate does not wait and starts no threads.

mod chat;
mod encoder;
mod files;
mod json;
mod model;
mod profile;
mod request;
mod template;
mod unsupported;

pub use encoder::{EncodeError, Stop};
pub use files::LoadError;
pub use json::{Json, JsonError};
pub use model::{Model, ModelLimits};
pub use profile::ServerProfile;
pub use request::{Api, Prompts};
pub use unsupported::Unsupported;
