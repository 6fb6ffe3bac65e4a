//! The state that serving followers and following peers share: this replica's own state, the state of the peers, and
//! the places that the totals are written to.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::fleet::{Effects, Fault, Fleet, LinkId};
use super::own::{Cursor, EndpointKey, Own};
use super::sample::Sample;
use super::settings::PeersSettings;
use super::state_file;
use super::status::{ServerStatus, Standing, Statuses};
use super::wire::{BandRow, Update};
use crate::flow::Controller;
use crate::metrics::PeerMetrics;
use crate::pool::{Endpoint, Pool};
use crate::prefix::{Journal, SharedIndex};
use crate::transport::PeerTls;

/// The time between two readings of this replica's requests in flight. Changes between two readings are reported
/// together.
const LOOK: Duration = Duration::from_millis(5);
/// The time between two updates of the gauges.
const REFRESH: Duration = Duration::from_secs(1);
/// The most bytes of assignments that are kept for followers.
const JOURNAL_BYTES: usize = 32 << 20;

/// The state that serving followers and following peers share.
pub(super) struct Shared {
    pub(super) settings: PeersSettings,
    pub(super) metrics: PeerMetrics,
    /// The number of streams to followers.
    pub(super) followers: Arc<AtomicUsize>,
    /// The server that connects replicas, if one does.
    pub(super) server: Mutex<Option<ServerStatus>>,
    pub(super) closing: CancellationToken,
    epoch: u64,
    pool: Arc<Pool>,
    pub(super) own: Mutex<Own>,
    journal: Arc<Journal>,
    indexes: HashMap<String, Arc<dyn SharedIndex>>,
    pub(super) merged: Mutex<Merged>,
    pub(super) statuses: Mutex<Statuses>,
    links: AtomicU64,
    changed: watch::Sender<u64>,
    /// Notified when the first follower connects.
    wanted: Notify,
    /// The queues of flow control, if there are any. Requests of the peers may end, which makes room in the queues.
    queues: Option<Arc<Controller>>,
}

/// The state of the peers, and the places that the totals are written to.
pub(super) struct Merged {
    pub(super) fleet: Fleet,
    /// The version of the snapshot that the endpoints belong to.
    seen: Option<u64>,
    endpoints: HashMap<EndpointKey, Arc<Endpoint>>,
    /// The number of requests that this replica had ever sent at the last reading.
    sent: u64,
    sample: Sample,
}

impl Shared {
    /// Makes the shared state; see [`Peers::new`](super::Peers::new).
    pub(super) fn new(
        settings: PeersSettings,
        pool: &Arc<Pool>,
        indexes: &[Arc<dyn SharedIndex>],
        metrics: PeerMetrics,
        queues: Option<Arc<Controller>>,
    ) -> Self {
        // The number is never 0, which means "no epoch" on the wire.
        let epoch = fastrand::u64(1..);
        let journal = Arc::new(Journal::new(JOURNAL_BYTES));
        for (index, number) in indexes.iter().zip(0..) {
            index.share(&journal, number);
        }
        let names = indexes.iter().map(|index| index.name().to_owned()).collect();
        metrics.show(0, 0, 0);
        Self {
            own: Mutex::new(Own::new(epoch, &settings.name, names)),
            settings,
            metrics,
            followers: Arc::default(),
            server: Mutex::default(),
            closing: CancellationToken::new(),
            epoch,
            pool: Arc::clone(pool),
            journal,
            indexes: indexes.iter().map(|index| (index.name().to_owned(), Arc::clone(index))).collect(),
            merged: Mutex::new(Merged {
                fleet: Fleet::new(epoch),
                seen: None,
                endpoints: HashMap::new(),
                sent: 0,
                sample: Sample::default(),
            }),
            statuses: Mutex::default(),
            links: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            wanted: Notify::new(),
            queues,
        }
    }

    /// The number of this process's life.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn tls(&self) -> Option<&PeerTls> {
        self.settings.tls.as_ref()
    }

    pub(super) fn next_link(&self) -> LinkId {
        self.links.fetch_add(1, Relaxed)
    }

    /// Returns a channel that wakes its reader whenever the state may have changed.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads the pool and the queues. Returns true if any figure changed.
    fn observe(&self) -> bool {
        let now = Instant::now();
        let bands = self.queues.as_ref().map(|queues| waiting_in(queues));
        let services = self.queues.as_ref().map(|queues| queues.take_services()).unwrap_or_default();
        let turns = self.queues.as_ref().map(|queues| queues.take_turns()).unwrap_or_default();
        let (changed, sent) = {
            let mut own = self.own.lock();
            let waits = bands.is_some_and(|bands| own.note_waiting(bands, now));
            let serves = own.note_services(services, now) | own.note_turns(turns, now);
            let changed = own.observe(&self.pool, now) || waits || serves;
            (changed, own.dispatched())
        };
        if changed && let Some(queues) = &self.queues {
            let mut merged = self.merged.lock();
            merged.sent = sent;
            queues.set_rivals(merged.fleet.rivals(sent));
        }
        changed
    }

    /// Notes that there is a follower.
    pub(super) fn followed(&self) {
        self.observe();
        self.wanted.notify_one();
    }

    /// The next message for a follower.
    pub(super) fn update(&self, cursor: &mut Cursor) -> Option<Update> {
        self.own.lock().update(cursor, &self.journal, Instant::now())
    }

    /// The last message.
    pub(super) fn farewell(&self, cursor: &mut Cursor) -> Update {
        self.own.lock().farewell(cursor)
    }

    /// A cursor of whoever knows nothing, and shall be told assignments of at most about `bytes`.
    pub(super) fn cursor(&self, bytes: usize) -> Cursor {
        Cursor::from_journal(self.journal.last(bytes))
    }

    /// This replica and what waits and runs here, for people.
    pub(super) fn requests(&self) -> u64 {
        self.own.lock().requests()
    }

    /// A message that says nothing new.
    pub(super) fn sign_of_life(&self, cursor: &mut Cursor) -> Update {
        self.own.lock().sign_of_life(cursor)
    }

    /// Reads this replica's requests in flight for as long as there is a follower.
    pub(super) async fn look(&self) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut written = 0;
        loop {
            if self.followers.load(Relaxed) == 0 {
                self.wanted.notified().await;
            }
            tick.tick().await;
            let changed = self.observe();
            let end = self.journal.end();
            if changed || end != written {
                written = end;
                self.changed.send_modify(|looks| *looks = looks.wrapping_add(1));
            }
        }
    }

    /// Writes the totals into endpoints that are added to the pool.
    pub(super) async fn follow_pool(&self) {
        let mut changes = self.pool.subscribe();
        loop {
            changes.borrow_and_update();
            self.settle(&mut self.merged.lock(), Effects::default());
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Takes in a message of `peer`.
    pub(super) fn take(&self, link: LinkId, peer: &str, update: Update) -> Result<(), Fault> {
        let bytes = update.encoded_len();
        self.metrics.received(bytes, update.snapshot);
        self.metrics.assignments("missed", update.missed);
        let waited = Duration::from_micros(update.waited_micros.min(60_000_000));
        self.statuses.lock().heard(peer, bytes, waited, Instant::now());
        let mut effects = Effects::default();
        let mut merged = self.merged.lock();
        let taken = merged.fleet.apply(link, update, &mut effects);
        self.settle(&mut merged, effects);
        taken
    }

    /// Removes a link whose connection ended, and with it the share of its peer.
    pub(super) fn end(&self, link: LinkId) {
        let mut effects = Effects::default();
        let mut merged = self.merged.lock();
        merged.fleet.end(link, &mut effects);
        self.settle(&mut merged, effects);
    }

    /// Writes the changes to the places where they are read.
    fn settle(&self, merged: &mut Merged, effects: Effects) {
        let snapshot = self.pool.snapshot();
        let moved = merged.seen != Some(snapshot.version());
        if moved {
            merged.seen = Some(snapshot.version());
            let keyed = snapshot.endpoints().iter();
            merged.endpoints = keyed
                .map(|endpoint| ((endpoint.id().clone(), endpoint.spec().address), Arc::clone(endpoint)))
                .collect();
            self.indexes.values().for_each(|index| index.follow(&snapshot));
            for (key, endpoint) in &merged.endpoints {
                let sent = effects.endpoints.get(key).copied().unwrap_or(0);
                endpoint.load().set_elsewhere(merged.fleet.total(key), sent);
            }
        } else {
            for (key, sent) in &effects.endpoints {
                if let Some(endpoint) = merged.endpoints.get(key) {
                    endpoint.load().set_elsewhere(merged.fleet.total(key), *sent);
                }
            }
        }
        let (mut taken, mut unknown) = (0, effects.unknown);
        for heard in effects.heard {
            match (self.indexes.get(&heard.index), merged.endpoints.get(&heard.endpoint)) {
                (Some(index), Some(endpoint)) => {
                    index.heard(endpoint, &heard.blocks);
                    merged.sample.offer(&heard);
                    taken += 1;
                }
                _ => unknown += 1,
            }
        }
        self.metrics.assignments("taken", taken);
        self.metrics.assignments("unknown", unknown);
        let Some(queues) = &self.queues else { return };
        if effects.waiting {
            queues.set_elsewhere(merged.fleet.waiting());
        }
        if !effects.services.is_empty() {
            queues.served_elsewhere(&effects.services);
        }
        if !effects.turns.is_empty() {
            queues.turns_elsewhere(&effects.turns);
        }
        queues.set_rivals(merged.fleet.rivals(merged.sent));
        if moved || effects.waiting || !effects.endpoints.is_empty() {
            queues.notify_load();
        }
    }

    /// Returns the knowledge of this replica as the content of a file.
    pub(super) fn save(&self) -> Vec<u8> {
        let mut own = self.own.lock();
        own.observe(&self.pool, Instant::now());
        state_file::write(&own, &self.journal)
    }

    /// Takes over the content of such a file.
    pub(super) fn restore(&self, bytes: &[u8]) -> Result<u64, String> {
        let heard = state_file::read(bytes)?.heard;
        let count = heard.len() as u64;
        self.settle(&mut self.merged.lock(), Effects { heard, ..Effects::default() });
        Ok(count)
    }

    /// These are the peers from now on.
    pub(super) fn told(&self, peers: &BTreeSet<String>) {
        let now = Instant::now();
        let mut statuses = self.statuses.lock();
        statuses.told = true;
        statuses.by_peer.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            statuses.begin(peer, now);
        }
    }

    /// How this replica stands to `peer`.
    pub(super) fn stands(&self, peer: &str, standing: Standing, error: Option<String>) {
        self.statuses.lock().stands(peer, standing, error, Instant::now());
    }

    /// Keeps the gauges up to date.
    pub(super) async fn refresh(&self) {
        let mut tick = tokio::time::interval(REFRESH);
        loop {
            tick.tick().await;
            self.show(Instant::now());
        }
    }

    fn show(&self, now: Instant) {
        let statuses = self.statuses.lock();
        let merged = self.merged.lock();
        let (mut following, mut missing, mut shown) = (0, 0, BTreeSet::new());
        for (peer, status) in &statuses.by_peer {
            match status.standing {
                Standing::Following(link) => {
                    following += 1;
                    let requests =
                        merged.fleet.links().get(&link).map_or(0, super::fleet::PeerState::requests);
                    self.metrics.peer(peer, status.lag(now).unwrap_or_default(), requests);
                    shown.insert(peer.clone());
                }
                Standing::Begins | Standing::Missing(_) => missing += 1,
                Standing::Alias(_) => {}
            }
        }
        if let Some(divergence) =
            merged.sample.missing(&self.indexes, &merged.endpoints, &self.pool.snapshot())
        {
            self.metrics.divergence(divergence);
        }
        self.metrics.retain(&shown);
        self.metrics.show(following, missing, self.followers.load(Relaxed));
    }
}

/// The bands in which requests wait.
fn waiting_in(queues: &Controller) -> Vec<BandRow> {
    if queues.queued().requests == 0 {
        return Vec::new();
    }
    let bands = queues.bands().into_iter().filter(|band| band.queued.requests > 0);
    bands
        .map(|band| BandRow {
            priority: band.priority,
            requests: band.queued.requests,
            bytes: band.queued.bytes,
            tokens: band.queued.tokens,
        })
        .collect()
}
