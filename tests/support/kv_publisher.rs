//! An engine that publishes its cache events: a ZMTP publisher for one subscriber at a time, and a port that repeats.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

/// A message: its number and its payload.
type Said = (u64, Vec<u8>);

/// An engine.
pub(crate) struct KvPublisher {
    said: broadcast::Sender<Said>,
    all: Arc<Mutex<Vec<Said>>>,
    next: AtomicU64,
    _tasks: JoinSet<()>,
}

impl KvPublisher {
    /// Publishes at `address`, and repeats at the port behind it.
    pub(crate) async fn start(address: SocketAddr) -> Self {
        let (said, _) = broadcast::channel(1000);
        let all = Arc::<Mutex<Vec<Said>>>::default();
        let mut tasks = JoinSet::new();
        let publisher = TcpListener::bind(address).await.unwrap();
        let repeater = TcpListener::bind(SocketAddr::new(address.ip(), address.port() + 1)).await.unwrap();
        let live = said.clone();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = publisher.accept().await {
                open.spawn(publish(stream, live.subscribe()));
            }
        });
        let kept = Arc::clone(&all);
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = repeater.accept().await {
                open.spawn(repeat(stream, Arc::clone(&kept)));
            }
        });
        Self { said, all, next: AtomicU64::new(0), _tasks: tasks }
    }

    /// Says a batch of events.
    pub(crate) fn say(&self, events: &[Vec<u8>]) {
        let said = (self.next.fetch_add(1, Relaxed), batch(events));
        self.all.lock().push(said.clone());
        let _ = self.said.send(said);
    }

    /// Says a batch that nobody hears.
    pub(crate) fn lose(&self, events: &[Vec<u8>]) {
        self.all.lock().push((self.next.fetch_add(1, Relaxed), batch(events)));
    }

    /// Forgets what could be repeated.
    pub(crate) fn forget(&self) {
        self.all.lock().clear();
    }
}

/// A port that is free on both addresses, and so is the one behind it.
pub(crate) async fn free_ports(addresses: [IpAddr; 2]) -> u16 {
    loop {
        let probe = TcpListener::bind((addresses[0], 0)).await.unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let mut free = port < 60_000;
        for address in addresses {
            for port in [port, port + 1] {
                free &= TcpListener::bind((address, port)).await.is_ok();
            }
        }
        if free {
            return port;
        }
    }
}

fn batch(events: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0x92, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0, 0xdc];
    bytes.extend_from_slice(&(events.len() as u16).to_be_bytes());
    for event in events {
        bytes.extend_from_slice(event);
    }
    bytes
}

/// `BlockStored` as an array.
pub(crate) fn stored(hashes: &[u64], parent: Option<u64>, tokens: &[u32], block_size: u8) -> Vec<u8> {
    let mut bytes = vec![0x95, 0xab];
    bytes.extend_from_slice(b"BlockStored");
    list(hashes, &mut bytes);
    match parent {
        Some(hash) => number(hash, &mut bytes),
        None => bytes.push(0xc0),
    }
    list(&tokens.iter().map(|token| u64::from(*token)).collect::<Vec<_>>(), &mut bytes);
    bytes.extend_from_slice(&[0xcc, block_size]);
    bytes
}

/// `AllBlocksCleared` as an array.
pub(crate) fn cleared() -> Vec<u8> {
    [&[0x91, 0xb0][..], b"AllBlocksCleared"].concat()
}

fn list(numbers: &[u64], bytes: &mut Vec<u8>) {
    bytes.push(0xdc);
    bytes.extend_from_slice(&(numbers.len() as u16).to_be_bytes());
    for each in numbers {
        number(*each, bytes);
    }
}

fn number(number: u64, bytes: &mut Vec<u8>) {
    bytes.push(0xcf);
    bytes.extend_from_slice(&number.to_be_bytes());
}

/// Shakes hands as a peer of this kind. Errors end the task, as a peer that leaves does.
async fn shake_hands(stream: &mut TcpStream, kind: &[u8]) -> std::io::Result<()> {
    let mut greeting = [0; 64];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    stream.write_all(&greeting).await?;
    stream.read_exact(&mut [0; 64]).await?;
    let mut ready = b"\x05READY\x0bSocket-Type\0\0\0".to_vec();
    ready.push(kind.len() as u8);
    ready.extend_from_slice(kind);
    frame(stream, 4, &ready).await?;
    read_frame(stream).await.map(drop)
}

async fn frame(stream: &mut TcpStream, flags: u8, body: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[flags | 2]).await?;
    stream.write_all(&(body.len() as u64).to_be_bytes()).await?;
    stream.write_all(body).await
}

async fn read_frame(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let flags = stream.read_u8().await?;
    let length = if flags & 2 == 0 { u64::from(stream.read_u8().await?) } else { stream.read_u64().await? };
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    Ok((flags, body))
}

async fn publish(mut stream: TcpStream, mut live: broadcast::Receiver<Said>) {
    if shake_hands(&mut stream, b"PUB").await.is_err() || read_frame(&mut stream).await.is_err() {
        return;
    }
    while let Ok((number, payload)) = live.recv().await {
        let topic = frame(&mut stream, 1, b"kv@engine@m").await;
        let sent = topic.and(frame(&mut stream, 1, &number.to_be_bytes()).await);
        if sent.and(frame(&mut stream, 0, &payload).await).is_err() {
            return;
        }
    }
}

async fn repeat(mut stream: TcpStream, all: Arc<Mutex<Vec<Said>>>) {
    if shake_hands(&mut stream, b"ROUTER").await.is_err() {
        return;
    }
    let (Ok(_), Ok((_, start))) = (read_frame(&mut stream).await, read_frame(&mut stream).await) else {
        return;
    };
    let start = u64::from_be_bytes(start.try_into().unwrap());
    let said: Vec<Said> = all.lock().iter().filter(|(number, _)| *number >= start).cloned().collect();
    for (number, payload) in said.into_iter().chain([(u64::MAX, Vec::new())]) {
        let empty = frame(&mut stream, 1, b"").await;
        let sent = empty.and(frame(&mut stream, 1, &number.to_be_bytes()).await);
        if sent.and(frame(&mut stream, 0, &payload).await).is_err() {
            return;
        }
    }
}
