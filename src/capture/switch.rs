//! Turns captures on and off, and queues notes for the writer. The queue is bounded. A note that does not fit is
//! dropped and counted, so a slow disk does not slow requests.

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

/// The most notes that wait for the writer.
const QUEUE: usize = 8192;
/// The most bytes that those notes may take.
const QUEUE_BYTES: usize = 64 << 20;
/// The longest wait for the writer when a capture is turned off.
const LAST_LINES: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Open {
    queue: SyncSender<(Note, usize)>,
    load: Arc<Load>,
}

/// Writes a capture while it is on.
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
    /// Disconnected once the writer has ended.
    over: Option<Receiver<()>>,
}

/// The state of the present or the last capture.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// True while the capture is being written.
    pub on: bool,
    /// The name of the last capture; empty before the first one.
    pub name: String,
    /// The time at which it began.
    pub since: Option<SystemTime>,
    /// The limits at which it ends by itself.
    pub limits: Limits,
    /// The bytes that it has written.
    pub bytes: u64,
    /// Why it ended; `None` while it is on.
    pub ended: Option<String>,
}

impl Capture {
    /// Makes a capture that is off. `pool` is the namespace and the name of the pool.
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

    /// The folder of the capture files.
    pub fn folder(&self) -> &std::path::Path {
        &self.settings.folder
    }

    /// True while a capture is being written.
    pub fn is_on(&self) -> bool {
        self.open.load().is_some()
    }

    /// The rule that says which headers are kept.
    pub fn rule(&self) -> Arc<HeaderRule> {
        self.rule.load_full()
    }

    /// Sets the configuration that decides from now on.
    pub fn decides(&self, config: ConfigLine) {
        // Requests that came before end under the former one.
        let texts = format!("{}\n{}", config.text, self.config.load().text);
        self.rule.store(Arc::new(HeaderRule::new(&texts, self.key)));
        self.config.store(Arc::new(config.clone()));
        self.note(Note::Config(Box::new(config)));
    }

    /// Turns the capture on. `first` is the number of the next request. If a capture is on already, it ends, and a new
    /// capture with a new name begins.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written to.
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
        let deadline = limits.time.and_then(|time| Instant::now().checked_add(time));
        let (open, told) = (Arc::clone(&self.open), Arc::clone(&ending));
        let metrics = self.metrics.clone();
        let opened = Arc::new(Open { queue, load });
        let mine = Arc::downgrade(&opened);
        let (ends, over) = sync_channel(1);
        self.open.store(Some(opened));
        let thread = std::thread::Builder::new().name("capture".to_owned()).spawn(move || {
            let end = writer.run(&notes, deadline, limits.bytes);
            // Another capture may have begun in the meantime.
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

    /// Turns the capture off. Waits until the last lines are written, but for at most 5 s.
    pub fn stop(&self) {
        let mut running = self.running.lock();
        self.open.store(None);
        self.metrics.active(false);
        let Some(over) = running.as_mut().and_then(|run| run.over.take()) else { return };
        // The writer drops its sender after the last line, which ends this wait.
        let _ = over.recv_timeout(LAST_LINES);
    }

    /// Sends a note to the writer, if the queue has room.
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

    /// The state of the present or the last capture.
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

/// The time as file names have it, such as `20260131T235900.123Z`.
fn stamp(time: SystemTime) -> String {
    let text = crate::telemetry::rfc3339(time);
    let kept: String = text.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    kept.get(..19).map_or(kept.clone(), |second| format!("{second}Z"))
}
