//! The readers under test.

#[cfg(feature = "tokens")]
mod chat_templates;
mod documents;
mod ext_proc;
mod grpc_bodies;
mod hints;
mod kv_events;
mod pages;
mod request_bodies;
mod responses;

use std::hash::{DefaultHasher, Hash, Hasher};

/// A number for the path that an input took: the digest of what was observed of it.
fn path(observed: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    observed.hash(&mut hasher);
    hasher.finish()
}

/// The number of bits of `count`: 1 and 2 differ, 1000 and 1001 do not.
fn size_class(count: usize) -> u32 {
    usize::BITS - count.leading_zeros()
}
