//! Receives the cache events. There is a task for each engine that this process connects to, and one for the address
//! that engines connect to.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::EventSettings;
use super::ages::Ages;
use super::engine::{Engine, Follows, Message};
use super::lives::Lives;
use super::replay::replay;
use super::zmtp::{Connection, Kind, Room, timed_out};
use crate::metrics::KvEventMetrics;
use crate::pool::{Endpoint, EndpointId, Pool, Snapshot};
use crate::prefix::precise::PreciseIndex;

/// The longest time for setting up a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The pause before a connection is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// When an engine has been without a connection for this long, the index forgets its blocks.
const DEAF: Duration = Duration::from_secs(15);
/// The most engines that repeat messages at the same time.
const REPLAYS: usize = 8;
/// The most engines that may connect to this process.
const MAX_GUESTS: usize = 1024;
/// If the events of an engine showed within this time that it restarted, the engine is not forgotten again when its
/// metrics page shows the same.
const RECENT: Duration = Duration::from_secs(30);
/// The time between two calls of `look`.
const LOOK: Duration = Duration::from_millis(500);

/// A function that is called twice a second while events are received.
pub type Tick = Box<dyn Fn(&Arc<Snapshot>, std::time::Instant) + Send + Sync>;

/// Receives the cache events of the engines of a pool.
pub struct EventListener {
    settings: EventSettings,
    index: Arc<PreciseIndex>,
    metrics: KvEventMetrics,
    connected: AtomicUsize,
    replays: Semaphore,
    /// The memory for large messages of engines that this process connects to.
    room: Room,
    /// The memory for large messages of clients that connect to this process. It is separate, so that a stranger cannot
    /// use up the memory for engines.
    guest_room: Room,
    ages: Ages,
    lives: Mutex<Lives>,
    tick: Tick,
}

impl std::fmt::Debug for EventListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventListener").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Counts a connection until this value is dropped.
struct Connected<'l>(&'l EventListener);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        let before = self.0.connected.fetch_sub(1, Relaxed);
        self.0.metrics.set_subscribers(before.saturating_sub(1));
    }
}

impl EventListener {
    /// Makes a listener that applies events to `index` and notes their times in `ages`.
    pub fn new(
        settings: EventSettings,
        index: Arc<PreciseIndex>,
        metrics: KvEventMetrics,
        ages: Ages,
        tick: Tick,
    ) -> Self {
        metrics.listens();
        let (connected, replays) = (AtomicUsize::new(0), Semaphore::new(REPLAYS));
        let (room, guest_room) = (Room::default(), Room::default());
        let lives = Mutex::default();
        Self { settings, index, metrics, connected, replays, room, guest_room, ages, lives, tick }
    }

    /// Does the work that is due twice a second.
    fn look(&self, pool: &Pool) {
        let now = std::time::Instant::now();
        self.index.expire(now);
        let snapshot = pool.snapshot();
        let mut lives = self.lives.lock();
        for endpoint in snapshot.endpoints() {
            let renewed = self.ages.renewed_within(endpoint.target(), RECENT, now);
            if let Some(reason) = lives.look(endpoint, renewed) {
                tracing::debug!(endpoint = %endpoint.id(), reason, "what the engine caches is learned anew");
                self.metrics.rebuilt(reason);
                self.index.forget(endpoint.incarnation());
            }
        }
        drop(lives);
        (self.tick)(&snapshot, now);
        for (name, age) in self.ages.all(now) {
            self.metrics.age(&name, age.as_secs_f64());
        }
    }

    fn engine(&self, endpoint: &Endpoint) -> Engine {
        let (index, metrics) = (Arc::clone(&self.index), self.metrics.clone());
        Engine::new(index, metrics, endpoint.incarnation(), endpoint.target(), self.ages.clone())
    }

    /// Receives events from the endpoints of the pool until `stop` is cancelled.
    pub async fn run(self: Arc<Self>, pool: Arc<Pool>, stop: CancellationToken) {
        let guests = async {
            match self.settings.listen {
                Some(address) => Arc::clone(&self).welcome(address, Arc::clone(&pool)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = Arc::clone(&self).follow(&pool) => {}
            () = guests => {}
        }
    }

    /// Keeps one task for each endpoint of the pool.
    async fn follow(self: Arc<Self>, pool: &Pool) {
        let mut versions = pool.subscribe();
        let mut tasks: HashMap<u64, (EndpointId, CancellationToken)> = HashMap::new();
        let mut running = JoinSet::new();
        let mut look = tokio::time::interval(LOOK);
        loop {
            let snapshot = pool.snapshot();
            self.index.follow(&snapshot);
            let mut before = std::mem::take(&mut tasks);
            for endpoint in snapshot.endpoints() {
                let incarnation = endpoint.incarnation();
                let task = before.remove(&incarnation).unwrap_or_else(|| {
                    let token = CancellationToken::new();
                    if self.settings.publisher_port.is_some() {
                        let (listener, endpoint) = (Arc::clone(&self), Arc::clone(endpoint));
                        let task = async move { listener.subscribe(&endpoint).await };
                        running.spawn(token.clone().run_until_cancelled_owned(task));
                    }
                    (endpoint.id().clone(), token)
                });
                tasks.insert(incarnation, task);
            }
            for (id, token) in before.into_values() {
                token.cancel();
                if snapshot.endpoints().iter().any(|endpoint| *endpoint.id() == id) {
                    self.metrics.rebuilt("replaced");
                }
            }
            self.lives.lock().retain(|incarnation| tasks.contains_key(&incarnation));
            self.ages.retain(|name| snapshot.endpoints().iter().any(|endpoint| endpoint.target() == name));
            self.metrics.prune(&snapshot);
            drop(snapshot);
            loop {
                tokio::select! {
                    changed = versions.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        break;
                    }
                    _ = look.tick() => self.look(pool),
                    Some(_) = running.join_next() => {}
                }
            }
        }
    }

    /// Receives the events of one engine for ever.
    async fn subscribe(&self, endpoint: &Endpoint) {
        let Some(base) = self.settings.publisher_port else { return };
        let rank = u16::try_from(endpoint.spec().rank).unwrap_or(u16::MAX);
        let host = endpoint.spec().address.ip();
        let at = |port: u16| SocketAddr::new(host, port.saturating_add(rank));
        let replay = self.settings.replay_port.map(at);
        let mut engine = self.engine(endpoint);
        let mut connected_before = false;
        let mut heard = Instant::now();
        loop {
            let began = Instant::now();
            let error = match self.open(at(base)).await {
                Ok(connection) => {
                    if std::mem::replace(&mut connected_before, true) {
                        self.metrics.reconnected(&engine.name);
                    }
                    let counted = self.counted();
                    let error = self.hear(&mut engine, connection, replay).await;
                    drop(counted);
                    heard = Instant::now();
                    self.metrics.error(&engine.name, "receive");
                    error
                }
                Err(error) => {
                    self.metrics.error(&engine.name, "connect");
                    error
                }
            };
            tracing::debug!(endpoint = %endpoint.id(), %error, "cache events are not heard");
            if engine.last().is_some() && heard.elapsed() > DEAF {
                engine.forget("silent");
                engine.begin_anew();
            }
            tokio::time::sleep_until(began.max(heard) + PAUSE.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        }
    }

    fn counted(&self) -> Connected<'_> {
        self.metrics.set_subscribers(self.connected.fetch_add(1, Relaxed) + 1);
        Connected(self)
    }

    async fn open(&self, address: SocketAddr) -> io::Result<Connection<TcpStream>> {
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| timed_out("connection"))??;
        self.shake_hands(stream, &self.room).await
    }

    async fn shake_hands(&self, stream: TcpStream, room: &Room) -> io::Result<Connection<TcpStream>> {
        // An engine may send nothing for hours, so the probes of TCP have to notice an engine that is gone.
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(CONNECT);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let mut connection = Connection::open(stream, Kind::Subscriber, room.clone()).await?;
        connection.subscribe(&self.settings.topic).await?;
        Ok(connection)
    }

    /// Receives messages until the connection ends. Returns the reason why it ended.
    async fn hear(
        &self,
        engine: &mut Engine,
        mut connection: Connection<TcpStream>,
        replay: Option<SocketAddr>,
    ) -> io::Error {
        // The engine may have published messages before this process subscribed.
        if let Some(address) = replay {
            self.catch_up(engine, address, engine.expected(), None).await;
        }
        loop {
            let frames = match connection.hear().await {
                Ok(frames) => frames,
                Err(error) => return error,
            };
            let Some(message) = Message::of(frames) else {
                self.metrics.error(&engine.name, "decode");
                continue;
            };
            self.take_in(engine, &message, replay).await;
        }
    }

    /// Applies a message, after the messages before it that were missed.
    async fn take_in(&self, engine: &mut Engine, message: &Message, replay: Option<SocketAddr>) {
        if let Follows::Missing(from) = engine.hear(message) {
            self.fill(engine, replay, from, message.number).await;
            engine.take(&message.payload);
        }
    }

    /// Handles the messages from `from` up to, but without, `until`, which are missing. The engine repeats them, or
    /// else the index forgets the engine's blocks.
    async fn fill(&self, engine: &mut Engine, replay: Option<SocketAddr>, from: u64, until: u64) {
        if let Some(address) = replay
            && self.catch_up(engine, address, from, until.checked_sub(1)).await
        {
            return;
        }
        // Before the first message the index knows nothing of the engine that could be wrong.
        if from > 0 {
            engine.forget("gap");
        }
    }

    /// Asks the engine to repeat the messages from `from` to `to`. Returns true if it repeated all of them.
    async fn catch_up(&self, engine: &mut Engine, address: SocketAddr, from: u64, to: Option<u64>) -> bool {
        let Ok(_place) = self.replays.acquire().await else { return false };
        match replay(engine, address, from, to, self.room.clone()).await {
            Ok(()) => {
                self.metrics.gap("replayed");
                true
            }
            Err(error) => {
                self.metrics.error(&engine.name, "replay");
                tracing::debug!(endpoint = %engine.name, from, %error, "cache events were not repeated");
                false
            }
        }
    }

    /// Accepts connections of engines. The topic of each message names the endpoint of its engine.
    async fn welcome(self: Arc<Self>, address: SocketAddr, pool: Arc<Pool>) {
        let socket = loop {
            match TcpListener::bind(address).await {
                Ok(socket) => break socket,
                Err(error) => {
                    tracing::error!(%address, %error, "cannot listen for cache events (zmqEndpoint)");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        let mut tasks = JoinSet::new();
        let mut guests: VecDeque<(AbortHandle, Arc<AtomicBool>)> = VecDeque::new();
        loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        guests.retain(|(task, _)| !task.is_finished());
                        // If all places are taken, the oldest connection is closed that has not shown that it belongs
                        // to an endpoint of the pool.
                        if guests.len() >= MAX_GUESTS {
                            let stranger = guests.iter().position(|(_, known)| !known.load(Relaxed));
                            let Some((task, _)) = stranger.and_then(|at| guests.remove(at)) else { continue };
                            task.abort();
                        }
                        let known = Arc::new(AtomicBool::new(false));
                        let (listener, pool, shown) = (Arc::clone(&self), Arc::clone(&pool), Arc::clone(&known));
                        let task = tasks.spawn(async move { listener.host(stream, peer, &pool, &shown).await });
                        guests.push_back((task, known));
                    }
                    Err(_) => tokio::time::sleep(CONNECT).await,
                },
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    /// Receives the messages of one client until its connection ends. `known` is set once the client has shown that it
    /// is an endpoint of the pool. It does so by naming the endpoint in its topic, which anybody can do, and by
    /// connecting from the endpoint's address.
    async fn host(&self, stream: TcpStream, peer: SocketAddr, pool: &Pool, known: &AtomicBool) {
        // A client on the host of an endpoint does not wait for memory behind strangers.
        let of_pool = |endpoint: &Arc<Endpoint>| comes_from(peer, endpoint.spec().address);
        let at_home = pool.snapshot().endpoints().iter().any(of_pool);
        let room = if at_home { &self.room } else { &self.guest_room };
        let Ok(mut connection) = self.shake_hands(stream, room).await else { return };
        let _counted = self.counted();
        let mut engine: Option<(Vec<u8>, u64, Engine)> = None;
        while let Ok(frames) = connection.hear().await {
            let Some(message) = Message::of(frames) else { continue };
            let snapshot = pool.snapshot();
            let name = publisher(&message.topic);
            let found = snapshot.endpoints().iter().find(|endpoint| endpoint.target() == name);
            let Some(endpoint) = found else {
                self.metrics.events("unknown_endpoint", 1);
                continue;
            };
            if comes_from(peer, endpoint.spec().address) {
                known.store(true, Relaxed);
            }
            let incarnation = endpoint.incarnation();
            let same = |(topic, before, _): &(Vec<u8>, u64, Engine)| {
                (topic, *before) == (&message.topic, incarnation)
            };
            if !engine.as_ref().is_some_and(same) {
                engine = Some((message.topic.clone(), incarnation, self.engine(endpoint)));
            }
            if let Some((.., engine)) = &mut engine {
                self.take_in(engine, &message, None).await;
            }
        }
        // The engine may now publish events that this process does not receive.
        if let Some((.., mut engine)) = engine {
            engine.forget("silent");
        }
    }
}

/// Returns true if a connection from `peer` comes from the host of an endpoint at `address`. An IPv4 address that is
/// mapped to IPv6 equals the IPv4 address.
fn comes_from(peer: SocketAddr, address: SocketAddr) -> bool {
    peer.ip().to_canonical() == address.ip().to_canonical()
}

/// The publisher that a topic names: the middle part of `kv@PUBLISHER@MODEL`, or the whole topic if it has another
/// form.
fn publisher(topic: &[u8]) -> &str {
    let topic = std::str::from_utf8(topic).unwrap_or_default();
    let mut parts = topic.split('@');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(name), Some(_), None) => name,
        _ => topic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_guest_from_the_address_of_an_endpoint_keeps_its_place() {
        for (peer, address, comes) in [
            ("10.0.0.1:40000", "10.0.0.1:8000", true),
            ("[::ffff:10.0.0.1]:40000", "10.0.0.1:8000", true),
            ("10.0.0.2:8000", "10.0.0.1:8000", false),
        ] {
            assert_eq!(
                comes_from(peer.parse().unwrap(), address.parse().unwrap()),
                comes,
                "{peer} {address}"
            );
        }
    }

    #[test]
    fn a_topic_names_its_publisher() {
        for (topic, name) in [
            (&b"kv@10.0.0.1:8000@m"[..], "10.0.0.1:8000"),
            (b"kv@[fd00::1]:8000@m", "[fd00::1]:8000"),
            (b"10.0.0.1:8000", "10.0.0.1:8000"),
            (b"kv@a@b@c", "kv@a@b@c"),
            (b"\xff", ""),
        ] {
            assert_eq!(publisher(topic), name);
        }
    }
}
