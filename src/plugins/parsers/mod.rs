//! Parsers: which request bodies are understood. The reading itself is [`crate::request`]'s; these rows make it
//! configurable.

mod kinds;

pub use kinds::{ANTHROPIC, OPENAI, PASSTHROUGH, SGLANG_HTTP, VERTEX_AI, VLLM_GRPC, VLLM_HTTP};
