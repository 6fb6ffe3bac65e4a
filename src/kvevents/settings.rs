//! How events are listened for.

use std::net::SocketAddr;

/// How events are listened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSettings {
    /// Start of the topics that are asked for.
    pub topic: String,
    /// Port on which engines publish; those of a pod with several ports have the ports behind it. `None`: engines are
    /// not connected to.
    pub publisher_port: Option<u16>,
    /// Port on which engines repeat what was missed, counted up likewise; `None` if they do not.
    pub replay_port: Option<u16>,
    /// Address on which engines connect to us; `None` if they do not.
    pub listen: Option<SocketAddr>,
}
