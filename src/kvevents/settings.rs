//! The settings of the event listener.

use std::net::SocketAddr;

/// The settings of the event listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSettings {
    /// The prefix of the topics that this process subscribes to.
    pub topic: String,
    /// The port on which engines publish. The engine of rank `n` of a pod uses the port `n` above this one. With `None`
    /// this process connects to no engine.
    pub publisher_port: Option<u16>,
    /// The port on which engines repeat missed messages, with the rank added in the same way. `None` if engines do not
    /// repeat messages.
    pub replay_port: Option<u16>,
    /// The address that engines connect to. `None` if engines do not connect to this process.
    pub listen: Option<SocketAddr>,
}
