//! The thread that writes a capture. It turns notes into lines, and lines into compressed frames.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::exact::Exact;
use super::files::Files;
use super::lines::{
    AttributeLine, ConfigLine, EndpointLine, GapLine, Line, LoadLine, LoraLine, PoolLine, StartLine,
};
use super::note::{Load, Note};
use super::settings::CaptureSettings;
use crate::metrics::CaptureMetrics;
use crate::pool::{Endpoint, LoadState, Snapshot};

/// The bytes of lines that are compressed together.
const FRAME: usize = 1 << 20;
/// The longest time for which a line waits to be written.
const FLUSH: Duration = Duration::from_secs(1);
/// The time between two checks of the limits while no note comes.
const LOOK: Duration = Duration::from_millis(100);

/// Why a capture ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The operator turned it off, or the process ended.
    SwitchedOff,
    /// Its time limit has been reached.
    TimeOver,
    /// Its limit of bytes has been reached.
    BytesWritten,
    /// The file system returned an error.
    Disk(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SwitchedOff => f.write_str("switched off"),
            Self::TimeOver => f.write_str("its time is over"),
            Self::BytesWritten => f.write_str("it has as many bytes as it may have"),
            Self::Disk(error) => write!(f, "it cannot be written: {error}"),
        }
    }
}

/// Writes one capture.
#[derive(Debug)]
pub(super) struct Writer {
    files: Files,
    start: StartLine,
    config: ConfigLine,
    metrics: CaptureMetrics,
    load: Arc<Load>,
    written: Arc<AtomicU64>,
    /// The lines that are not compressed yet, and their number.
    pending: Vec<u8>,
    lines: u64,
    since: Instant,
    /// The pool that the present file has, and the figures of its endpoints that the file has.
    pool: Option<Arc<Snapshot>>,
    figures: Vec<Option<LoadState>>,
}

impl Writer {
    /// Makes the writer of a capture that begins with these lines. The last argument is shared with the switch: the
    /// notes that wait, and the bytes that were written.
    pub(super) fn new(
        settings: &CaptureSettings,
        (start, config): (StartLine, ConfigLine),
        metrics: CaptureMetrics,
        (load, written): (Arc<Load>, Arc<AtomicU64>),
    ) -> std::io::Result<Self> {
        let files = Files::new(&settings.folder, &start.capture, settings.disk, settings.file)?;
        Ok(Self {
            files,
            start,
            config,
            metrics,
            load,
            written,
            pending: Vec::new(),
            lines: 0,
            since: Instant::now(),
            pool: None,
            figures: Vec::new(),
        })
    }

    /// Writes until the queue is closed or a limit is reached.
    pub(super) fn run(
        mut self,
        notes: &Receiver<(Note, usize)>,
        deadline: Option<Instant>,
        limit: Option<u64>,
    ) -> Ending {
        loop {
            let ending = match notes.recv_timeout(LOOK) {
                Ok((note, bytes)) => {
                    self.load.bytes.fetch_sub(bytes, Relaxed);
                    self.take(note);
                    None
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Ending::SwitchedOff),
            };
            let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let ending = ending.or(over.then_some(Ending::TimeOver));
            let due = self.pending.len() >= FRAME || self.since.elapsed() >= FLUSH || ending.is_some();
            if due && let Err(error) = self.flush() {
                return Ending::Disk(error.to_string());
            }
            if let Some(ending) = ending {
                return ending;
            }
            if limit.is_some_and(|limit| self.written.load(Relaxed) >= limit) {
                return Ending::BytesWritten;
            }
        }
    }

    fn take(&mut self, note: Note) {
        if self.pending.is_empty() {
            self.since = Instant::now();
            if self.files.at_begin() {
                self.begin_file();
            }
        }
        let lost = self.load.lost.swap(0, Relaxed);
        if lost > 0 {
            self.line(&Line::Gap(GapLine { lines: lost }));
        }
        match note {
            Note::Decision(mut line, snapshot, loads) => {
                self.know(&snapshot);
                line.loads = loads.into_iter().filter_map(|(place, load)| self.news(place, load)).collect();
                self.line(&Line::Decision(line));
            }
            Note::Answer(line) => self.line(&Line::Answer(line)),
            Note::FirstByte(line) => self.line(&Line::FirstByte(line)),
            Note::Outcome(line) => self.line(&Line::Outcome(line)),
            Note::Config(line) => {
                self.config = *line;
                self.line(&Line::Config(self.config.clone()));
            }
        }
    }

    /// Begins a file. The pool and the configuration are written again, so that each file can be read by itself.
    fn begin_file(&mut self) {
        let file = self.files.next_number();
        self.line(&Line::Start(StartLine { file, ..self.start.clone() }));
        self.line(&Line::Config(self.config.clone()));
        if let Some(pool) = self.pool.take() {
            self.know(&pool);
        }
    }

    fn know(&mut self, snapshot: &Arc<Snapshot>) {
        if self.pool.as_ref().is_some_and(|known| known.version() == snapshot.version()) {
            return;
        }
        let endpoints = snapshot.endpoints().iter().map(|endpoint| endpoint_line(endpoint)).collect();
        self.line(&Line::Pool(PoolLine { version: snapshot.version(), endpoints }));
        self.pool = Some(Arc::clone(snapshot));
        self.figures.clear();
        self.figures.resize(snapshot.len(), None);
    }

    /// The figures of the endpoint at this place, if the file does not have them.
    fn news(&mut self, place: u32, load: LoadState) -> Option<LoadLine> {
        let known = self.figures.get_mut(place as usize)?;
        if known.as_ref() == Some(&load) {
            return None;
        }
        let line = load_line(place, &load);
        *known = Some(load);
        Some(line)
    }

    fn line(&mut self, line: &Line) {
        // Writing to memory does not fail, and every line can be written as JSON.
        if serde_json::to_writer(&mut self.pending, line).is_ok() {
            self.pending.push(b'\n');
            self.lines += 1;
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let frame = compress_to_vec(self.pending.as_slice(), CompressionLevel::Fastest);
        self.pending.clear();
        let disk = self.files.append(&frame)?;
        self.written.fetch_add(frame.len() as u64, Relaxed);
        self.metrics.wrote(std::mem::take(&mut self.lines), frame.len() as u64, disk);
        Ok(())
    }
}

fn endpoint_line(endpoint: &Endpoint) -> EndpointLine {
    let spec = endpoint.spec();
    EndpointLine {
        namespace: spec.id.namespace().to_owned(),
        name: spec.id.name().to_owned(),
        pod: spec.pod.to_string(),
        address: spec.address.to_string(),
        labels: spec.labels.as_ref().clone(),
        node: spec.node_address.map(|address| address.to_string()),
        rank: spec.rank,
        incarnation: endpoint.incarnation(),
    }
}

fn load_line(endpoint: u32, load: &LoadState) -> LoadLine {
    let nanos = |time: Duration| time.as_nanos() as u64;
    let lora = &load.lora;
    let has_lora = lora.max_active > 0 || !lora.active.is_empty() || !lora.waiting.is_empty();
    LoadLine {
        endpoint,
        in_flight: load.in_flight,
        in_flight_tokens: load.in_flight_tokens,
        dispatched: load.dispatched,
        waiting: load.waiting,
        running: load.running,
        kv_usage: Exact(load.kv_usage),
        block_size: load.block_size,
        num_blocks: load.num_blocks,
        read_ns: load.read.map(nanos),
        figures_read_ns: load.figures_read.map(|read| read.map(nanos)),
        dispatched_at_reading: load.dispatched_at_reading,
        in_flight_at_reading: load.in_flight_at_reading,
        prompts_at_reading: load.prompts_at_reading,
        tokens_elsewhere: load.tokens_elsewhere,
        tokens_since_reading: load.tokens_since_reading,
        unanswered: load.unanswered,
        lora: has_lora.then(|| LoraLine {
            active: lora.active.iter().cloned().collect(),
            waiting: lora.waiting.iter().cloned().collect(),
            max_active: lora.max_active,
        }),
        attributes: load
            .attributes
            .iter()
            .map(|(key, value)| AttributeLine {
                attribute: key.attribute().to_owned(),
                producer: key.producer().to_owned(),
                value: Exact(*value),
            })
            .collect(),
    }
}
