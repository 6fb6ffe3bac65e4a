//! The capture's switch, and the bounded queue to its writer. What does not fit is dropped and counted: a slow disk
//! costs the capture, not a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use super::features::HeaderRule;
use super::lines::{ConfigLine, SCHEMA, StartLine};
use super::note::{Load, Note};
use super::settings::{CaptureSettings, Limits};
use super::writer::{Ending, Writer};
use crate::metrics::CaptureMetrics;

/// Notes that wait for the writer, at most.
const QUEUE: usize = 8192;
/// Bytes of those notes, at most.
const QUEUE_BYTES: usize = 64 << 20;
/// How long the end of the process waits for the writer.
const LAST_LINES: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Open {
    queue: SyncSender<(Note, usize)>,
    load: Arc<Load>,
}

/// Writes what decisions were made from, while it is on.
#[derive(Debug)]
pub struct Capture {
    settings: CaptureSettings,
    metrics: CaptureMetrics,
    open: Arc<ArcSwapOption<Open>>,
    running: Mutex<Option<Run>>,
    /// The configuration that decides now.
    config: ArcSwap<ConfigLine>,
    rule: ArcSwap<HeaderRule>,
    pool: String,
    key: u64,
}

#[derive(Debug)]
struct Run {
    name: String,
    since: SystemTime,
    limits: Limits,
    ending: Arc<Mutex<Option<Ending>>>,
    written: Arc<AtomicU64>,
    /// Hears when the writer has ended.
    over: Option<Receiver<()>>,
}

/// How a capture stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// It is being written.
    pub on: bool,
    /// Name of the last capture; empty before the first one.
    pub name: String,
    /// When that began.
    pub since: Option<SystemTime>,
    /// When it ends by itself.
    pub limits: Limits,
    /// Bytes that it wrote.
    pub bytes: u64,
    /// Why it ended, where it did by itself.
    pub ended: Option<String>,
}

impl Capture {
    /// Off. `pool` is the pool's namespace and name.
    pub fn new(settings: CaptureSettings, metrics: CaptureMetrics, pool: String) -> Self {
        Self {
            settings,
            metrics,
            open: Arc::default(),
            running: Mutex::default(),
            config: ArcSwap::default(),
            rule: ArcSwap::default(),
            pool,
            key: fastrand::u64(..),
        }
    }

    /// The folder of its files.
    pub fn folder(&self) -> &std::path::Path {
        &self.settings.folder
    }

    /// True while it is being written.
    pub fn is_on(&self) -> bool {
        self.open.load().is_some()
    }

    /// Which headers are kept.
    pub fn rule(&self) -> Arc<HeaderRule> {
        self.rule.load_full()
    }

    /// This configuration decides from now on.
    pub fn decides(&self, config: ConfigLine) {
        self.rule.store(Arc::new(HeaderRule::new(&config.text, self.key)));
        self.config.store(Arc::new(config.clone()));
        self.note(Note::Config(Box::new(config)));
    }

    /// Switches it on. `first` is the number of the next request. One that is on already goes on under the new limits'
    /// name as a new capture. An error says what is wrong with the folder.
    pub fn start(&self, limits: Limits, first: u64) -> std::io::Result<()> {
        self.stop();
        let mut running = self.running.lock();
        let since = SystemTime::now();
        let micros = since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let name = format!("{}-{:08x}", stamp(since), fastrand::u32(..));
        let start = StartLine {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capture: name.clone(),
            file: 0,
            time_us: micros,
            pool: self.pool.clone(),
            first,
        };
        let (queue, notes) = sync_channel(QUEUE);
        let load = Arc::new(Load::default());
        let (ending, written) = (Arc::new(Mutex::new(None)), Arc::new(AtomicU64::new(0)));
        let writer = Writer::new(
            &self.settings,
            (start, self.config.load().as_ref().clone()),
            self.metrics.clone(),
            (Arc::clone(&load), Arc::clone(&written)),
        )?;
        let deadline = limits.time.map(|time| Instant::now() + time);
        let (open, told) = (Arc::clone(&self.open), Arc::clone(&ending));
        let metrics = self.metrics.clone();
        let opened = Arc::new(Open { queue, load });
        let mine = Arc::downgrade(&opened);
        let (ends, over) = sync_channel(1);
        self.open.store(Some(opened));
        let thread = std::thread::Builder::new().name("capture".to_owned()).spawn(move || {
            let end = writer.run(&notes, deadline, limits.bytes);
            // Another capture may have begun meanwhile.
            let current = open.load_full();
            if current.is_some_and(|current| std::ptr::eq(Arc::as_ptr(&current), mine.as_ptr())) {
                open.store(None);
                metrics.active(false);
            }
            if !matches!(end, Ending::SwitchedOff) {
                tracing::warn!(reason = %end, "the capture has ended");
            }
            *told.lock() = Some(end);
            drop(ends);
        });
        thread.inspect_err(|_| self.open.store(None))?;
        self.metrics.active(true);
        tracing::info!(capture = name, folder = %self.settings.folder.display(), "capture begins");
        *running = Some(Run { name, since, limits, ending, written, over: Some(over) });
        Ok(())
    }

    /// Switches it off, and waits until the last lines are written, but no longer than a few seconds.
    pub fn stop(&self) {
        let mut running = self.running.lock();
        self.open.store(None);
        self.metrics.active(false);
        let Some(over) = running.as_mut().and_then(|run| run.over.take()) else { return };
        // The sender goes when the last line is written.
        let _ = over.recv_timeout(LAST_LINES);
    }

    /// Tells the writer, if there is room.
    pub fn note(&self, note: Note) {
        let open = self.open.load();
        let Some(open) = open.as_ref() else { return };
        let bytes = note.bytes();
        let full = open.load.bytes.fetch_add(bytes, Relaxed) > QUEUE_BYTES;
        let refused = full
            || match open.queue.try_send((note, bytes)) {
                Ok(()) => false,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => true,
            };
        if refused {
            open.load.bytes.fetch_sub(bytes, Relaxed);
            open.load.lost.fetch_add(1, Relaxed);
            self.metrics.dropped();
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let running = self.running.lock();
        let ended = running.as_ref().and_then(|run| run.ending.lock().as_ref().map(ToString::to_string));
        Standing {
            on: self.is_on(),
            name: running.as_ref().map(|run| run.name.clone()).unwrap_or_default(),
            since: running.as_ref().map(|run| run.since),
            limits: running.as_ref().map(|run| run.limits).unwrap_or_default(),
            bytes: running.as_ref().map_or(0, |run| run.written.load(Relaxed)),
            ended,
        }
    }
}

/// The time as names of files have it: `20260131T235900.123Z`.
fn stamp(time: SystemTime) -> String {
    let text = crate::telemetry::rfc3339(time);
    let kept: String = text.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    kept.get(..19).map_or(kept.clone(), |second| format!("{second}Z"))
}
