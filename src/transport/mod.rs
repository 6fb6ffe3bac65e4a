//! The parts that all ports share: accepting connections, TLS, renewed certificates, the settings of TCP, HTTP/1 and
//! HTTP/2, and the list of open connections.
//!
//! A [`Port`] accepts connections without waiting for any of them, and knows whether each is being answered.
//! [`serve_grpc`], [`serve_pages`] and [`serve_http`] speak the protocols on a port. Whatever one client does or omits,
//! it costs other clients no more than the time of a task.

mod certificate;
mod client_tls;
mod connections;
mod http;
mod http1;
mod http2;
mod inbound;
mod io;
mod lazy_timer;
mod peer_tls;
mod port;
mod roster;
mod settings;
mod socket;
mod tcp;
mod tls;
mod tls_settings;
mod unread;
mod writers;

pub use certificate::{Identity, Renewal};
pub use client_tls::{ClientFiles, ClientTls};
pub use connections::Connections;
pub use http::serve_http;
pub use http1::{ClientAddress, LargeBodies, PageBody, serve_pages};
pub use http2::{GrpcService, Http2Settings, serve_grpc, serve_grpc_while};
pub use lazy_timer::LazyTimer;
pub use peer_tls::PeerTls;
pub use port::Port;
pub use roster::ConnectionBounds;
pub use settings::{AMONG_PEERS, FEW_CLIENTS, Keepalive, PROXIES, UNKNOWN_PROXIES};
pub use tcp::prepare_socket;
pub use tls::Tls;
pub use tls_settings::{TlsError, TlsSettings};
pub use unread::must_be_taken_by;
