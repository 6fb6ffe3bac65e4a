//! Logs and traces.
//!
//! Logs are lines on standard error ([`logs`]), and only the thread of a [`LineQueue`] waits for whoever reads them.
//! Traces go to a collector if the environment names one ([`Tracing`]); a [`Span`] of a request that is not sampled is
//! a few words on the stack. [`Repeat`] keeps a warning that repeats from filling the log.

mod events;
mod export;
mod level;
mod line;
mod lines;
pub mod logs;
mod propagation;
mod settings;
mod span;
#[cfg(test)]
mod tests;
mod timestamp;
mod traces;

pub use events::Repeat;
pub use export::TracingError;
pub use level::{LogLevel, UnknownLevel};
pub use line::{LogFormat, acts_on_terminals};
pub use lines::{Dropped, LineQueue};
pub use logs::LogHandle;
pub use propagation::{Injected, PROPAGATED};
pub use span::Span;
pub use timestamp::{rfc3339, unix_seconds, unix_time};
pub use traces::Tracing;
