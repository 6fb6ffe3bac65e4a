//! The index of what engines say that they hold.
//!
//! An engine tells of each block that it stores or removes ([`KvEvent`]), by a hash of its own. The hash is only a name
//! here: beside it come the tokens of the block, of which the index makes a key of its own ([`BlockKeys`]), chained to
//! the key of the block before. A request's tokens give the same keys, so that the index ([`PreciseIndex`]) can say how
//! many blocks from its beginning on each endpoint holds.
//!
//! The index would rather know too little than too much: what follows an event that was missed is taken in only where
//! its parent is known, and an engine whose events have a gap is forgotten and learned again.

mod adapters;
mod blocks;
mod checks;
mod event;
mod index;
mod keys;
mod lookup;
mod tiers;
mod watch;

pub use checks::{EngineRow, Marks};
pub use event::{Extra, KvEvent, StoredBlocks, Taken};
pub use index::PreciseIndex;
pub use keys::{BlockKeys, PromptKeys};
pub use lookup::HeldPrefix;
pub use tiers::{Tier, TierWeights};
pub use watch::{Difference, Watch};

#[cfg(test)]
mod any_events;
#[cfg(test)]
mod tests;
