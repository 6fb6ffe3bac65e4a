//! Pages of endpoints beside their metrics: lists of models, GPU exporters, the load of other clusters.
//!
//! Each source asks every endpoint once in its interval, a few at a time, over a new connection. What fails costs that
//! endpoint's page and nothing else. Redirects are not followed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::io::ReadBuf;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::tls::TlsClient;
use super::{Event, ResponseReader, SHORTEST_INTERVAL, ScrapeError, SourceSpec, TlsError, request};
use crate::pool::{Endpoint, Pool, Snapshot};

/// Time between two rounds of a source that names no interval.
const USUAL_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time for one page.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Endpoints that a source asks at once.
const AT_ONCE: usize = 16;
/// Bytes that are read at once.
const BUFFER: usize = 16 * 1024;

/// What is fetched from every endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageSource {
    /// Plugin type.
    pub kind: &'static str,
    /// How it is asked for.
    pub source: SourceSpec,
    /// The node of the endpoint is asked, where discovery knows it.
    pub at_node: bool,
    /// Largest page, in bytes.
    pub limit: usize,
}

/// Reads pages of one type of source.
pub trait PageExtractor: Send + Sync {
    /// Plugin type.
    fn kind(&self) -> &'static str;
    /// Plugin type of the sources whose pages it reads.
    fn reads(&self) -> &'static str;
    /// Takes what the page of an endpoint says. `Err` says why it is of no use.
    fn extract(&self, endpoint: &Endpoint, page: &[u8]) -> Result<(), String>;
    /// Forgets endpoints that are not in the snapshot.
    fn retain(&self, _snapshot: &Snapshot) {}
}

/// A source and those who read its pages.
#[derive(Clone)]
pub struct PageReading {
    /// The source.
    pub source: PageSource,
    /// Its readers.
    pub extractors: Vec<Arc<dyn PageExtractor>>,
}

impl fmt::Debug for PageReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageReading").field("source", &self.source).finish_non_exhaustive()
    }
}

/// What went wrong with a page.
#[derive(Debug)]
pub enum PageFault<'a> {
    /// It could not be fetched.
    Fetch(&'a ScrapeError),
    /// An extractor of this type could not use it.
    Extract(&'static str, &'a str),
}

/// Hears of the pages that fail: the type of the source, the endpoint, and why.
pub type OnPageFault = Arc<dyn Fn(&'static str, &Endpoint, PageFault<'_>) + Send + Sync>;

/// Fetches the pages of one source.
pub struct Pages {
    pool: Arc<Pool>,
    reading: PageReading,
    tls: Option<TlsClient>,
    on_fault: OnPageFault,
}

impl Pages {
    /// Reads the files of TLS, if the source has any.
    ///
    /// # Errors
    ///
    /// If they cannot be used.
    pub fn new(pool: Arc<Pool>, reading: PageReading, on_fault: OnPageFault) -> Result<Self, TlsError> {
        let spec = &reading.source.source;
        let tls = spec.https.then(|| TlsClient::new(spec, Instant::now())).transpose()?;
        Ok(Self { pool, reading, tls, on_fault })
    }

    /// True if this is what it does: the same source, read by the same extractors.
    pub fn reads(&self, reading: &PageReading) -> bool {
        let (mine, theirs) = (&self.reading.extractors, &reading.extractors);
        self.reading.source == reading.source
            && mine.len() == theirs.len()
            && mine.iter().zip(theirs).all(|(mine, theirs)| Arc::ptr_eq(mine, theirs))
    }

    /// Fetches until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let interval = self.reading.source.source.interval.unwrap_or(USUAL_INTERVAL);
        let mut tick = tokio::time::interval(interval.max(SHORTEST_INTERVAL));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if stop.run_until_cancelled(self.round()).await.is_none() {
                return;
            }
        }
    }

    /// Asks every endpoint once.
    pub async fn round(&self) {
        let snapshot = self.pool.snapshot();
        let asked =
            stream::iter(snapshot.endpoints()).for_each_concurrent(AT_ONCE, |endpoint| self.ask(endpoint));
        asked.await;
        for extractor in &self.reading.extractors {
            extractor.retain(&snapshot);
        }
    }

    async fn ask(&self, endpoint: &Arc<Endpoint>) {
        let kind = self.reading.source.kind;
        let fetched = tokio::time::timeout(TIMEOUT, self.fetch(endpoint)).await;
        match fetched.unwrap_or(Err(ScrapeError::Timeout(TIMEOUT))) {
            Ok(page) => {
                for extractor in &self.reading.extractors {
                    if let Err(why) = extractor.extract(endpoint, &page) {
                        (self.on_fault)(kind, endpoint, PageFault::Extract(extractor.kind(), &why));
                    }
                }
            }
            Err(error) => (self.on_fault)(kind, endpoint, PageFault::Fetch(&error)),
        }
    }

    fn address(&self, endpoint: &Endpoint) -> SocketAddr {
        let PageSource { source, at_node, .. } = &self.reading.source;
        let spec = endpoint.spec();
        let mut address = spec.metrics_address;
        if let Some(node) = spec.node_address.filter(|_| *at_node) {
            address.set_ip(node);
        }
        if let Some(port) = source.port {
            address.set_port(port);
        }
        address
    }

    async fn fetch(&self, endpoint: &Endpoint) -> Result<Vec<u8>, ScrapeError> {
        let PageSource { source, at_node, limit, .. } = &self.reading.source;
        let address = self.address(endpoint);
        let name = endpoint.spec().metrics.host.as_deref().filter(|_| !at_node);
        let host = name.map_or_else(|| address.to_string(), |name| format!("{name}:{}", address.port()));
        let tls = self.tls.as_ref().map(|tls| (tls, name));
        let mut connection = Connection::open(address, tls, TIMEOUT).await?;
        let mut bytes = Vec::new();
        request::get(&source.path, &host, &mut bytes);
        connection.send(&bytes).await.map_err(ScrapeError::Connection)?;
        let (mut reader, mut page, mut buffer) = (ResponseReader::default(), Vec::new(), vec![0; BUFFER]);
        loop {
            let mut room = ReadBuf::new(&mut buffer);
            let read = std::future::poll_fn(|cx| connection.poll_read(cx, &mut room)).await;
            read.map_err(ScrapeError::Connection)?;
            let mut input = room.filled();
            if input.is_empty() {
                return if reader.ends_with_connection() { Ok(page) } else { Err(ScrapeError::Closed) };
            }
            loop {
                match reader.next(&mut input)? {
                    Event::NeedMore => break,
                    Event::Head if reader.head().status != 200 => {
                        return Err(ScrapeError::Status(reader.head().status));
                    }
                    Event::Head if reader.head().encoded => return Err(ScrapeError::Encoded),
                    Event::Head => {}
                    Event::Body(piece) if page.len() + piece.len() > *limit => {
                        return Err(ScrapeError::TooLarge(*limit));
                    }
                    Event::Body(piece) => page.extend_from_slice(piece),
                    Event::End => return Ok(page),
                }
            }
        }
    }
}
