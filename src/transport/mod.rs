//! What every port shares: taking connections, TLS, renewed certificates, and who is connected.

mod accept;
mod certificate;
mod connections;
mod tls;

pub use accept::{accept, accept_tls};
pub use certificate::{Identity, watch_certificate};
pub use connections::{Connections, Counted};
pub use tls::{TlsError, TlsSettings, grpc_tls, metrics_tls};
