//! What decisions were made from, as lines of JSON in compressed files: requests as features and hashes without text,
//! the pool, figures of its endpoints, random states, decisions and outcomes.
//!
//! - `lines`: the schema, which `docs/capture.md` describes; `exact`: numbers that come back bit for bit
//! - `features`: what is kept of a request; `runs`: what is kept of a cycle
//! - `switch`: on, off, and the bounded queue; `writer`: the thread behind it; `files`: rotation and the bound on disk
//! - `read`: a capture, line after line

mod exact;
mod features;
mod files;
pub mod lines;
mod note;
mod read;
mod runs;
mod settings;
mod switch;
#[cfg(test)]
mod tests;
mod writer;

pub use exact::{Chains, Exact};
pub use features::{HeaderRule, features};
pub use note::Note;
pub use read::{ReadError, Reader};
pub use runs::RunNotes;
pub use settings::{CaptureSettings, Limits};
pub use switch::{Capture, Standing};
