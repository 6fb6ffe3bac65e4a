//! Several replicas as one: each tells the others what it has under way, and counts what they have.
//!
//! Pure are `Own`, what this replica does and how far each follower has come, and
//! `Fleet`, what the peers do. Around them, `service.rs` tells followers, `link.rs` follows one peer,
//! `names.rs` finds peers by DNS, and [`Peers`] joins it all: it looks at the pool every few milliseconds, writes the
//! sums of all peers into the load of each endpoint, and hands assignments to the indexes.

mod codec;
mod connect;
mod fleet;
mod link;
mod names;
mod own;
mod page;
mod replica;
mod sample;
mod service;
mod services;
mod settings;
mod shared;
mod state_file;
mod status;
mod wire;

#[cfg(test)]
mod tests;

pub use names::{PeerName, resolve};
pub use replica::Peers;
pub use settings::PeersSettings;
