//! Replicas that reach each other over a server that speaks the protocol of Redis.
//!
//! Each life of a replica has three keys, which expire three seconds after its last word: a stream with what it says
//! (`log.rs`), a hash that tells people who it is, and an entry in the set of all replicas of the pool. Replicas read the
//! streams of all others (`reader.rs`). No command is newer than version 5.0 of Redis, or 6.0 with a user.
//!
//! What the server says may be anything: replies are bounded while they are read (`bounds.rs`), and a message is taken
//! like one of a stream between replicas.

mod backoff;
mod bounds;
mod connect;
mod followed;
mod log;
mod reader;
mod settings;
mod standing;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::reader::Reader;
use self::settings::Keys;
use self::standing::CONNECTIONS;
use self::writer::Writer;
use super::shared::Shared;
use super::status::ServerStatus;
use super::transport::Transport;

pub use self::settings::RedisSettings;

/// Goes over a server.
pub(super) struct Server {
    settings: RedisSettings,
}

impl Server {
    pub(super) fn new(settings: RedisSettings) -> Self {
        Self { settings }
    }
}

impl Transport for Server {
    async fn carry(self, shared: Arc<Shared>, stop: CancellationToken) {
        let settings = &self.settings;
        let keys = Keys::new(settings, &shared.settings.pool);
        *shared.server.lock() = Some(ServerStatus {
            address: settings.address(),
            tls: settings.tls.is_some(),
            connections: Default::default(),
            round_trip: Duration::ZERO,
        });
        for name in CONNECTIONS {
            shared.metrics.server(name, false);
        }
        let writer = Writer { settings, keys: &keys, shared: &shared };
        let reader = Reader::new(settings, &keys, &shared);
        let reading = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = reader.run(&stop) => {}
                () = reader.watch() => {}
            }
        };
        tokio::join!(writer.run(&stop), reading);
    }
}
