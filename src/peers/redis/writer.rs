//! Writes what this replica does.

use std::sync::Arc;

use ::redis::{Pipeline, Value, pipe};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::connect::{Connection, Ended};
use super::log::{Batch, Log, SIGN_OF_LIFE};
use super::settings::{EXPIRES, Keys, MEMBERS_EXPIRE, Member, RedisSettings};
use super::standing::{WRITES, connection_is};
use crate::peers::service::Place;
use crate::peers::shared::Shared;
use crate::peers::wire::VERSION;

/// Writes for as long as it is not told to stop.
pub(super) struct Writer<'s> {
    pub(super) settings: &'s RedisSettings,
    pub(super) keys: &'s Keys,
    pub(super) shared: &'s Arc<Shared>,
}

impl Writer<'_> {
    /// Connects again and again.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let mut log = Log::default();
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            let began = Instant::now();
            let ended = tokio::select! {
                opened = Connection::open(self.settings) => match opened {
                    Ok(connection) => self.write(connection, &mut log, stop).await,
                    Err(ended) => Err(ended),
                },
                () = stop.cancelled() => return,
            };
            let Err(ended) = ended else { return };
            connection_is(self.shared, WRITES, Some(&ended));
            backoff.wait(&ended, began.elapsed(), stop).await;
        }
    }

    /// Writes on one connection; `Ok` once it was told to stop.
    async fn write(
        &self,
        mut connection: Connection,
        log: &mut Log,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        let me = self.shared.epoch();
        let mut first = pipe();
        first.cmd("DEL").arg(self.keys.log(me));
        connection.ask(&first).await?;
        let _followed = Place::take(&self.shared.followers, usize::MAX);
        self.shared.followed();
        log.begin(self.shared);
        let mut changed = self.shared.subscribe();
        let mut spoke: Option<Instant> = None;
        loop {
            if stop.is_cancelled() {
                return self.leave(connection, log).await;
            }
            changed.borrow_and_update();
            let due = spoke.is_none_or(|spoke| spoke.elapsed() >= SIGN_OF_LIFE);
            let batch = log.next(self.shared, due);
            if batch.entries.is_empty() {
                let next = spoke.unwrap_or_else(Instant::now) + SIGN_OF_LIFE;
                tokio::select! {
                    _ = changed.changed() => {}
                    () = sleep_until(next) => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
            let asked = Instant::now();
            let replies = connection.ask(&self.commands(&batch, due)).await?;
            self.counts(&batch, asked);
            if spoke.is_none() {
                connection_is(self.shared, WRITES, None);
            }
            if due {
                spoke = Some(asked);
                // The log was evicted, or everything was deleted, or another server took over.
                if !matches!(replies.last(), Some(Value::Int(length)) if u64::try_from(*length).is_ok_and(|length| length >= log.len()))
                {
                    tracing::info!("server has lost what this replica wrote; it is written anew");
                    log.begin(self.shared);
                    spoke = None;
                }
            }
        }
    }

    /// The commands that write a batch, and with `due` all that is said now and then.
    fn commands(&self, batch: &Batch, due: bool) -> Pipeline {
        let me = self.shared.epoch();
        let (key, expires) = (self.keys.log(me), EXPIRES.as_millis() as u64);
        let mut commands = pipe();
        for entry in &batch.entries {
            let id = format!("{}-0", entry.position);
            commands.cmd("XADD").arg(&key).arg(id).arg(entry.field).arg(entry.bytes.as_slice());
        }
        if let Some(count) = batch.keep {
            commands.cmd("XTRIM").arg(&key).arg("MAXLEN").arg(count);
        }
        commands.cmd("PEXPIRE").arg(&key).arg(expires);
        if due {
            let (members, about) = (self.keys.members(), self.keys.about(me));
            let name = &self.shared.settings.name;
            commands.cmd("SADD").arg(&members).arg(Member::text(me, name));
            commands.cmd("PEXPIRE").arg(&members).arg(MEMBERS_EXPIRE.as_millis() as u64);
            commands.cmd("HSET").arg(&about).arg("name").arg(name).arg("version").arg(VERSION);
            commands.cmd("HSET").arg(&about).arg("inFlightRequests").arg(self.shared.requests());
            commands.cmd("PEXPIRE").arg(&about).arg(expires);
            commands.cmd("XLEN").arg(&key);
        }
        commands
    }

    fn counts(&self, batch: &Batch, asked: Instant) {
        for entry in &batch.entries {
            self.shared.metrics.sent(entry.bytes.len(), entry.is_snapshot);
        }
        let took = asked.elapsed();
        self.shared.metrics.round_trip(took);
        if let Some(server) = self.shared.server.lock().as_mut() {
            server.round_trip = took;
        }
    }

    /// Says that this replica ends.
    async fn leave(&self, mut connection: Connection, log: &mut Log) -> Result<(), Ended> {
        let me = self.shared.epoch();
        let mut commands = self.commands(&log.farewell(self.shared), false);
        commands.cmd("SREM").arg(self.keys.members()).arg(Member::text(me, &self.shared.settings.name));
        commands.cmd("DEL").arg(self.keys.about(me));
        // Whoever does not hear it notices the silence.
        let _ = connection.ask(&commands).await;
        Ok(())
    }
}
