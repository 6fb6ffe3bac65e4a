//! Reads what the other replicas wrote.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Pipeline, Value, pipe};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::connect::{Connection, Ended};
use super::followed::{Followed, Step};
use super::settings::{EXPIRES, Keys, Member, RedisSettings};
use super::standing::{READS, connection_is};
use crate::peers::codec;
use crate::peers::shared::Shared;
use crate::peers::status::Standing;

/// Replicas that are read, at most.
const MEMBERS: usize = 32;
/// Time between two looks at who there is.
const LOOK: Duration = Duration::from_millis(250);
/// Longest time for which the server waits for something new.
const WAIT: Duration = Duration::from_millis(200);
/// Time after which a peer that says nothing counts as gone. A look and a turn of the watch come on top.
const SILENCE: Duration = Duration::from_millis(2200);
/// Time for which a peer that says what no peer says is not read.
const REFUSAL: Duration = Duration::from_secs(5);
/// Entries that are read at once of each log, at first and at most.
const ENTRIES: (usize, usize) = (4, 128);
/// Bytes of a reply up to which more entries are asked for the next time.
const LARGE: usize = 2 << 20;

/// Reads for as long as it runs.
pub(super) struct Reader<'s> {
    settings: &'s RedisSettings,
    keys: &'s Keys,
    shared: &'s Arc<Shared>,
    peers: Mutex<BTreeMap<Member, Followed>>,
}

impl<'s> Reader<'s> {
    pub(super) fn new(settings: &'s RedisSettings, keys: &'s Keys, shared: &'s Arc<Shared>) -> Self {
        Self { settings, keys, shared, peers: Mutex::default() }
    }

    /// Connects again and again.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let ended = match Connection::open(self.settings).await {
                Ok(connection) => self.read(connection).await,
                Err(ended) => ended,
            };
            connection_is(self.shared, READS, Some(&ended));
            backoff.wait(&ended, began.elapsed(), stop).await;
        }
    }

    /// Lets peers go that say nothing, whether the server answers or not.
    pub(super) async fn watch(&self) {
        let mut tick = tokio::time::interval(LOOK);
        loop {
            tick.tick().await;
            let now = Instant::now();
            let mut peers = self.peers.lock();
            for (member, followed) in peers.iter_mut() {
                if followed.link.is_some() && followed.silence(now) > SILENCE {
                    self.end(member, followed, "silent", &format!("no word for {SILENCE:?}"), now);
                }
            }
        }
    }

    /// Reads on one connection until it ends.
    async fn read(&self, mut connection: Connection) -> Ended {
        let mut looked: Option<Instant> = None;
        let mut entries = ENTRIES.0;
        loop {
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
                if let Err(ended) = self.look(&mut connection).await {
                    return ended;
                }
                if looked.is_none() {
                    connection_is(self.shared, READS, None);
                }
                looked = Some(Instant::now());
            }
            let Some((commands, logs)) = self.question(entries) else {
                tokio::time::sleep(WAIT).await;
                continue;
            };
            match connection.ask(&commands).await {
                Ok(mut replies) => {
                    let bytes = self.take(replies.pop().unwrap_or_default(), &logs);
                    entries = if bytes < LARGE { (entries * 2).min(ENTRIES.1) } else { (entries / 2).max(1) };
                }
                Err(ended) => return ended,
            }
        }
    }

    /// Asks who there is, and how long ago each has spoken.
    async fn look(&self, connection: &mut Connection) -> Result<(), Ended> {
        let mut commands = pipe();
        // Never more than that, whatever stands in the set.
        commands.cmd("SRANDMEMBER").arg(self.keys.members()).arg(2 * MEMBERS);
        let listed = list(connection.ask(&commands).await?.pop());
        let me = self.shared.epoch();
        let known: BTreeSet<Member> = self.peers.lock().keys().cloned().collect();
        let read =
            |value: Value| if let Value::BulkString(bytes) = value { Member::read(&bytes) } else { None };
        let found = listed.into_iter().filter_map(read).filter(|member| member.epoch != me);
        let asked: Vec<Member> = found.chain(known).collect::<BTreeSet<_>>().into_iter().collect();
        if asked.is_empty() {
            self.told(BTreeMap::new());
            return Ok(());
        }
        let mut commands = pipe();
        for member in &asked {
            commands.cmd("PTTL").arg(self.keys.log(member.epoch));
        }
        let replies = connection.ask(&commands).await?;
        let mut living = BTreeMap::new();
        let mut gone = pipe();
        for (member, reply) in asked.into_iter().zip(replies) {
            match reply {
                Value::Int(left @ 0..) => {
                    let left = Duration::from_millis(left.unsigned_abs()).min(EXPIRES);
                    living.insert(member, EXPIRES.saturating_sub(left));
                }
                _ => {
                    gone.cmd("SREM").arg(self.keys.members()).arg(member.entry());
                }
            }
        }
        self.told(living);
        if gone.is_empty() { Ok(()) } else { connection.ask(&gone).await.map(|_| ()) }
    }

    /// These have written something, so long ago. One that is heard stays until it is silent: the server may have lost
    /// what it wrote.
    fn told(&self, living: BTreeMap<Member, Duration>) {
        let now = Instant::now();
        let mut peers = self.peers.lock();
        peers.retain(|member, followed| {
            living.contains_key(member) || followed.link.is_some() || followed.silence(now) <= SILENCE
        });
        let mut too_many = Vec::new();
        for (member, ago) in living {
            if peers.len() >= MEMBERS && !peers.contains_key(&member) {
                too_many.push(member.peer);
                continue;
            }
            let heard = now.checked_sub(ago).unwrap_or(now);
            let followed = peers.entry(member).or_insert_with(|| Followed::new(heard));
            followed.heard = followed.heard.max(heard);
        }
        self.shared.told(&peers.keys().map(|member| &member.peer).chain(&too_many).cloned().collect());
        for peer in too_many {
            let error = format!("{MEMBERS} replicas are read already");
            self.shared.stands(&peer, Standing::Missing("full"), Some(error));
        }
    }

    /// The command that reads on, and whose logs it reads; `None` if there are none.
    fn question(&self, entries: usize) -> Option<(Pipeline, HashMap<Vec<u8>, Member>)> {
        let now = Instant::now();
        let peers = self.peers.lock();
        let logs: Vec<(String, u64, &Member)> = peers
            .iter()
            .filter(|(_, followed)| followed.not_before <= now && followed.silence(now) <= SILENCE)
            .map(|(member, followed)| (self.keys.log(member.epoch), followed.position, member))
            .collect();
        if logs.is_empty() {
            return None;
        }
        let mut commands = pipe();
        let command = commands.cmd("XREAD").arg("COUNT").arg(entries);
        command.arg("BLOCK").arg(WAIT.as_millis() as u64).arg("STREAMS");
        for (key, ..) in &logs {
            command.arg(key);
        }
        for (_, position, _) in &logs {
            command.arg(format!("{position}-0"));
        }
        let logs = logs.into_iter().map(|(key, _, member)| (key.into_bytes(), member.clone()));
        Some((commands, logs.collect()))
    }

    /// Takes in what was read; its bytes.
    fn take(&self, reply: Value, logs: &HashMap<Vec<u8>, Member>) -> usize {
        let mut bytes = 0;
        for row in list(Some(reply)) {
            let mut row = list(Some(row)).into_iter();
            let (Some(Value::BulkString(key)), entries) = (row.next(), row.next()) else { continue };
            let Some(member) = logs.get(&key) else { continue };
            for entry in list(entries) {
                let read = entry_of(entry);
                bytes += read.as_ref().map_or(0, |(_, _, message)| message.len());
                let mut peers = self.peers.lock();
                let Some(followed) = peers.get_mut(member) else { break };
                if !self.step(member, followed, read) {
                    break;
                }
            }
        }
        bytes
    }

    /// Takes in an entry. False if the rest of the reply is of no use.
    fn step(&self, member: &Member, followed: &mut Followed, read: Option<(u64, Vec<u8>, Vec<u8>)>) -> bool {
        let now = Instant::now();
        let refuse = |followed: &mut Followed, reason, error: &str| {
            self.end(member, followed, reason, error, now + REFUSAL);
            false
        };
        let Some((position, field, message)) = read else {
            return refuse(followed, "malformed", "an entry is no message");
        };
        let update = match codec::read(&message) {
            Ok(update) if update.epoch == member.epoch || update.version == 0 => update,
            Ok(_) => return refuse(followed, "malformed", "another epoch"),
            Err(status) => return refuse(followed, "malformed", status.message()),
        };
        let update = match followed.take(position, &field, update) {
            Step::Pass => return true,
            Step::Lost => {
                self.end(member, followed, "lost", "an entry of its log is missing", now + LOOK);
                return false;
            }
            Step::Leave => {
                self.end(member, followed, "closed", "the peer has ended", now + REFUSAL);
                return false;
            }
            Step::Begin(update) => {
                if let Some(link) = followed.link.replace(self.shared.next_link()) {
                    self.shared.end(link);
                }
                update
            }
            Step::GoOn(update) => update,
        };
        let Some(link) = followed.link else { return false };
        let begins = update.sequence == 1;
        if let Err(fault) = self.shared.take(link, &member.peer, update) {
            return refuse(followed, fault.name(), fault.text());
        }
        if begins {
            self.shared.stands(&member.peer, Standing::Following(link), None);
            tracing::info!(peer = member.peer, "peer is heard");
        }
        true
    }

    /// The peer is heard no more, and its log is read from the beginning at `again`.
    fn end(
        &self,
        member: &Member,
        followed: &mut Followed,
        reason: &'static str,
        error: &str,
        again: Instant,
    ) {
        let link = followed.begin_anew(again);
        self.shared.metrics.ended(reason);
        self.shared.stands(&member.peer, Standing::Missing(reason), Some(error.to_owned()));
        if let Some(link) = link {
            self.shared.end(link);
            tracing::info!(peer = member.peer, reason, error, "peer is not heard any more");
        }
    }
}

fn list(value: Option<Value>) -> Vec<Value> {
    if let Some(Value::Array(values)) = value { values } else { Vec::new() }
}

/// Position, field and message of an entry.
fn entry_of(entry: Value) -> Option<(u64, Vec<u8>, Vec<u8>)> {
    let mut entry = list(Some(entry)).into_iter();
    let (Some(Value::BulkString(id)), Some(Value::Array(fields))) = (entry.next(), entry.next()) else {
        return None;
    };
    let position = std::str::from_utf8(&id).ok()?.strip_suffix("-0")?.parse().ok()?;
    let mut fields = fields.into_iter();
    match (fields.next(), fields.next(), fields.next()) {
        (Some(Value::BulkString(field)), Some(Value::BulkString(message)), None) => {
            Some((position, field, message))
        }
        _ => None,
    }
}
