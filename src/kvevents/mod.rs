//! What engines publish about their caches: heard, decoded, put in order, and told to the index.
//!
//! [`EventListener`] follows the pool, with a task for each engine. [`Sequence`] finds gaps, [`Decoder`] reads batches,
//! `zmtp` speaks to whatever stream it is given.

mod ages;
mod decode;
mod engine;
mod listen;
mod lives;
mod msgpack;
mod replay;
mod sequence;
mod settings;
pub mod zmtp;

pub use ages::Ages;
pub use decode::{Decoder, NoBatch, PassedOver};
pub use listen::{EventListener, Tick};
pub use lives::{LifeSeries, series_of_life};
pub use sequence::{Sequence, Step};
pub use settings::EventSettings;
