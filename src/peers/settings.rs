//! The identity of a replica among its peers.

use crate::transport::PeerTls;

/// The identity of this replica among its peers.
#[derive(Clone, Debug)]
pub struct PeersSettings {
    /// The pool, as `NAMESPACE/NAME`. Only replicas of one pool tell each other anything.
    pub pool: String,
    /// Name of this replica, for people.
    pub name: String,
    /// TLS among replicas; `None` for plaintext.
    pub tls: Option<PeerTls>,
}
