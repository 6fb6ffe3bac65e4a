//! Exact tokens from a render endpoint: a vLLM server that turns requests into token ids and does nothing else with
//! them.
//!
//! | file | what |
//! |---|---|
//! | `question` | what is asked about a request; pure |
//! | `anthropic` | a body of the Messages API as a chat; pure |
//! | `reply` | token ids from an answer; pure |
//! | `client` | HTTP: connections, time, sizes |
//! | `backend` | these together, as a [`Preparer`](crate::scheduling::Preparer) |
//! | `local` | the same without any server, from the files of the model (feature `tokens`) |
//! | `hub` | the files of the model from a hub (feature `tokens`) |
//! | `chat_message`, `socket` | the same with the tokenizer service of earlier releases, over gRPC |

mod anthropic;
mod backend;
mod chat_message;
mod client;
#[cfg(feature = "tokens")]
mod hub;
#[cfg(test)]
#[cfg(feature = "tokens")]
mod hub_tests;
#[cfg(feature = "tokens")]
mod local;
mod question;
mod reply;
mod socket;

pub use backend::{RenderBackend, RenderSettings};
pub use client::NoAuthorities;
#[cfg(feature = "tokens")]
pub use hub::{HubSettings, is_repository, is_revision};
#[cfg(feature = "tokens")]
pub use local::{LocalBackend, LocalSettings, Source};
pub use socket::{SocketBackend, SocketSettings};
