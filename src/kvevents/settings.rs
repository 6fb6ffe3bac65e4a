//! Settings of the event listener.

use std::net::SocketAddr;

/// Settings of the event listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSettings {
    /// Start of the topics that are asked for.
    pub topic: String,
    /// Port on which engines publish. The engines of a pod with several ports use the following ports. With `None` this
    /// process connects to no engine.
    pub publisher_port: Option<u16>,
    /// Port on which engines repeat missed messages, counted up in the same way; `None` if engines repeat nothing.
    pub replay_port: Option<u16>,
    /// Address on which engines connect to us; `None` if they do not.
    pub listen: Option<SocketAddr>,
}
