//! Prefix-cache indexes: who holds which blocks of which prompt.
//!
//! A prompt becomes a stream of pseudo-tokens ([`block_hashes`]), or of exact tokens where somebody made them
//! ([`token_block_hashes`]); the stream becomes a chain of block hashes
//! ([`BlockHashes`]), and an index says how many of them each endpoint holds ([`ApproxIndex`]: what was sent where, as
//! far as it should still be there; [`precise::PreciseIndex`]: what the engines say that they hold). All indexes of the process share one memory bound
//! ([`PrefixMemory`]). [`proof`] says whether exact tokens equal those of the servers.

mod approx;
mod caches;
mod count;
mod exact;
mod hash;
mod holders;
mod journal;
mod matches;
mod media;
mod memory;
pub mod precise;
pub mod proof;
mod recency;
mod secret;
mod shard;
mod slots;
mod table;
mod tally;
mod text;
mod tokens;
mod told;

pub use approx::{ApproxIndex, HeldBlocks};
pub use count::prompt_tokens;
pub use exact::token_block_hashes;
pub use hash::{BlockHasher, BlockHashes};
pub use journal::{Assignment, Journal, JournalPart, SharedIndex};
pub use matches::PrefixMatch;
pub use media::VideoHints;
pub use memory::{DEFAULT_PREFIX_MEMORY_BYTES, PrefixMemory};
pub use recency::{Recency, RecencyKey};
pub use tokens::{BlockShape, block_hashes};
pub use told::ToldPrompt;
