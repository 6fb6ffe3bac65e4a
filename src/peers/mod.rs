//! Replicas that act as one. Each replica reports its requests in flight to the others, and counts theirs.
//!
//! Two parts are pure: `Own` holds the state of this replica and the progress of each follower, and `Fleet` holds the
//! state of the peers. A `Transport` carries it from one replica to the other. Of the two, `Streams` is a gRPC stream
//! between each pair: `service.rs` serves followers, `link.rs` follows one peer, and `names.rs` finds peers by DNS. The
//! other, `redis/`, goes over a server that speaks the protocol of Redis. [`Peers`] connects the parts. It reads the pool every few milliseconds, writes the sums of all peers
//! into the load of each endpoint, and passes assignments to the indexes.

mod codec;
mod connect;
mod fleet;
mod link;
mod names;
mod own;
mod page;
mod redis;
mod replica;
mod sample;
mod service;
mod services;
mod settings;
mod shared;
mod state_file;
mod status;
mod transport;
mod wire;

#[cfg(test)]
mod tests;

pub use names::{PeerName, resolve};
pub use redis::RedisSettings;
pub use replica::{Peers, Way};
pub use settings::PeersSettings;
