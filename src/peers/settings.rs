//! The identity of a replica among its peers.

use crate::transport::PeerTls;

/// The identity of this replica among its peers.
#[derive(Clone, Debug)]
pub struct PeersSettings {
    /// The pool, as `NAMESPACE/NAME`. Replicas of different pools exchange nothing.
    pub pool: String,
    /// The name of this replica, for people.
    pub name: String,
    /// The TLS between replicas; `None` for plaintext.
    pub tls: Option<PeerTls>,
}
