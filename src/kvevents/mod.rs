//! Cache events that engines publish. This module receives them, decodes them, orders them, and applies them to the
//! index.
//!
//! [`EventListener`] follows the pool and has a task for each engine. [`Sequence`] finds gaps, and [`Decoder`] reads
//! batches. `zmtp` speaks the protocol over any stream of bytes.

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
pub use lives::series_of_life;
pub use sequence::{Sequence, Step};
pub use settings::EventSettings;
