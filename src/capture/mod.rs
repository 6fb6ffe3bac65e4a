//! Captures: the decisions of a picker with the figures that they were made from, as lines of JSON in compressed files.
//! A capture has the features and hashes of requests without their text, the pool, the figures of its endpoints, the
//! states of random generators, the decisions and the outcomes.
//!
//! - `lines`: the schema, which `docs/capture.md` describes; `exact`: numbers that are read back bit for bit
//! - `features`: what is kept of a request; `runs`: what is kept of the runs of profiles
//! - `switch`: turns captures on and off, with a bounded queue; `writer`: the thread that writes; `files`: the files
//!   and the bound on disk space
//! - `read`: reads a capture line by line

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
