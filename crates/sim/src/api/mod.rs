//! The OpenAI-style API: requests and answers.
//!
//! - `ask`: a request body as a prompt and limits
//! - `answer`: JSON bodies and event streams of the four generating dialects
//! - `handoff`: what stages of disaggregated serving tell each other
//! - `tasks`: models, embeddings, tokenization
//! - `error`: error bodies
//! - `json`: texts in JSON bodies
//! - `members`: objects whose members may be repeated

pub(crate) mod answer;
pub(crate) mod ask;
pub(crate) mod error;
pub(crate) mod handoff;
pub(crate) mod json;
mod members;
pub(crate) mod tasks;

#[cfg(test)]
mod tests;
