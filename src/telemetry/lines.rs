//! Lines on their way to a stream that may not take them: a bounded queue, and a thread that writes.
//!
//! A thread that logs puts a line into memory and goes on. Only the thread of the queue waits for the stream, so a
//! reader that stalls, or a disk that is full, costs lines and nothing else. Lost lines are counted, and the stream is
//! told their number once it takes lines again.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait; as many may be on their way to the stream.
const BYTES: usize = 1 << 20;

/// Lines that may wait.
const LINES: usize = 16_384;

/// Largest line; longer ones are cut.
const LINE_BYTES: usize = 64 << 10;

/// Share of the bounds that is kept for warnings and errors, as a divisor: a flood of lesser lines leaves a quarter to
/// them.
const URGENT_SHARE: usize = 4;

/// Buffers above this are given back once they are empty.
const KEPT_BYTES: usize = 64 << 10;

/// Pause before a stream that is busy for now is tried again.
const BUSY: Duration = Duration::from_millis(10);

/// A queue of lines. Clones share it. The thread ends with the process.
#[derive(Clone, Debug)]
pub struct LineQueue {
    shared: Arc<Shared>,
}

/// How many lines a queue has lost since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Lines that found the queue full.
    pub full: u64,
    /// Lines that the stream refused.
    pub failed: u64,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Lines came.
    filled: Condvar,
    /// Everything was written.
    emptied: Condvar,
    full: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    lines: usize,
    /// Lines that were lost since the stream was last told.
    lost: u64,
    writing: bool,
}

impl LineQueue {
    /// A queue in front of standard error. `notice` makes the line that tells of a number of lost lines, or an empty
    /// text.
    pub(super) fn stderr(notice: impl Fn(u64) -> String + Send + 'static) -> io::Result<Self> {
        // A descriptor of its own: whoever waits on it holds no lock of the standard library's.
        let stream = io::stderr().as_fd().try_clone_to_owned()?;
        Self::start("log", std::fs::File::from(stream), notice)
    }

    /// A queue in front of standard output.
    pub fn stdout() -> io::Result<Self> {
        let stream = io::stdout().as_fd().try_clone_to_owned()?;
        Self::start("output", std::fs::File::from(stream), |_| String::new())
    }

    /// A queue in front of `stream`, written by a thread called `name`.
    pub(super) fn start(
        name: &str,
        stream: impl Write + Send + 'static,
        notice: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            full: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let mut writer = Writer { shared: Arc::clone(&shared), stream, notice, inside_line: false };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared })
    }

    /// Puts a line into the queue; one without a line feed gets one. Never waits for the stream. Lines that are not
    /// urgent leave a quarter of the queue to those that are.
    pub fn push(&self, line: &[u8], urgent: bool) {
        let line = cut(line.strip_suffix(b"\n").unwrap_or(line));
        let kept = |bound: usize| if urgent { bound } else { bound - bound / URGENT_SHARE };
        let mut waiting = self.shared.waiting.lock();
        if waiting.text.len() + line.len() >= kept(BYTES) || waiting.lines >= kept(LINES) {
            waiting.lost += 1;
            self.shared.full.fetch_add(1, Relaxed);
            return;
        }
        waiting.text.extend_from_slice(line);
        waiting.text.push(b'\n');
        waiting.lines += 1;
        drop(waiting);
        self.shared.filled.notify_one();
    }

    /// How many lines were lost.
    pub fn dropped(&self) -> Dropped {
        Dropped { full: self.shared.full.load(Relaxed), failed: self.shared.failed.load(Relaxed) }
    }

    /// Waits until everything is written, but no longer than `patience`. True if everything was.
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut waiting = self.shared.waiting.lock();
        while waiting.writing || waiting.lines > 0 || waiting.lost > 0 {
            if self.shared.emptied.wait_until(&mut waiting, deadline).timed_out() {
                return false;
            }
        }
        true
    }
}

/// The part of a line that is written.
fn cut(line: &[u8]) -> &[u8] {
    if line.len() <= LINE_BYTES {
        return line;
    }
    // Not inside a character of UTF-8.
    let end = (LINE_BYTES - 3..=LINE_BYTES).rev().find(|&end| line[end] & 0xC0 != 0x80).unwrap_or(LINE_BYTES);
    &line[..end]
}

struct Writer<W, N> {
    shared: Arc<Shared>,
    stream: W,
    notice: N,
    /// The last line that the stream took is not whole.
    inside_line: bool,
}

impl<W: Write, N: Fn(u64) -> String> Writer<W, N> {
    fn run(&mut self) {
        let mut text = Vec::new();
        loop {
            let lost = self.take(&mut text);
            if lost > 0 {
                text.extend_from_slice((self.notice)(lost).as_bytes());
            }
            let refused = self.write(&text);
            self.shared.failed.fetch_add(refused, Relaxed);
            text.clear();
            if text.capacity() > KEPT_BYTES {
                text = Vec::new();
            }
            let mut waiting = self.shared.waiting.lock();
            waiting.writing = false;
            // A stream that refuses is told with the next line that it may take.
            if waiting.lines == 0 && waiting.lost == 0 {
                self.shared.emptied.notify_all();
            }
        }
    }

    /// Takes what waits, as soon as something does, and the number of lines that were lost.
    fn take(&self, text: &mut Vec<u8>) -> u64 {
        let mut waiting = self.shared.waiting.lock();
        while waiting.lines == 0 && waiting.lost == 0 {
            self.shared.filled.wait(&mut waiting);
        }
        std::mem::swap(&mut waiting.text, text);
        waiting.lines = 0;
        waiting.writing = true;
        std::mem::take(&mut waiting.lost)
    }

    /// Writes whole lines; gives the number of those that the stream did not take.
    fn write(&mut self, text: &[u8]) -> u64 {
        let mut rest = text;
        while !rest.is_empty() {
            let written = if self.inside_line { self.stream.write(b"\n") } else { self.stream.write(rest) };
            match written {
                Ok(0) => return lines(rest),
                Ok(_) if self.inside_line => self.inside_line = false,
                Ok(count) => rest = &rest[count.min(rest.len())..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::park_timeout(BUSY),
                Err(_) => {
                    let taken = text.len() - rest.len();
                    self.inside_line |= taken > 0 && text[taken - 1] != b'\n';
                    return lines(rest);
                }
            }
        }
        0
    }
}

fn lines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// Puts what is written to it into the queue, each write as a line.
#[derive(Debug)]
pub struct LineWriter<'q> {
    queue: &'q LineQueue,
    urgent: bool,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'q> MakeWriter<'q> for LineQueue {
    type Writer = LineWriter<'q>;

    fn make_writer(&'q self) -> LineWriter<'q> {
        LineWriter { queue: self, urgent: false }
    }

    fn make_writer_for(&'q self, event: &Metadata<'_>) -> LineWriter<'q> {
        LineWriter { queue: self, urgent: *event.level() <= Level::WARN }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A stream that takes a write each time it is told to, or fails.
    struct Gate {
        may: Receiver<bool>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.may.recv().unwrap_or(true) {
                return Err(io::Error::from(ErrorKind::StorageFull));
            }
            self.taken.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue() -> (LineQueue, Sender<bool>, Arc<Mutex<Vec<u8>>>) {
        let (open, may) = channel();
        let taken = Arc::default();
        let gate = Gate { may, taken: Arc::clone(&taken) };
        (LineQueue::start("test", gate, |lost| format!("lost {lost}\n")).unwrap(), open, taken)
    }

    /// The thread has taken what waited, and waits for the stream.
    fn until_writing(queue: &LineQueue) {
        while queue.shared.waiting.lock().lines > 0 {
            std::thread::yield_now();
        }
    }

    fn text(taken: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(taken.lock().clone()).unwrap()
    }

    #[test]
    fn a_stream_that_takes_nothing_costs_lines_and_is_told_of_them_later() {
        let (queue, open, taken) = queue();
        queue.push(b"first", false);
        until_writing(&queue);
        let line = vec![b'x'; LINE_BYTES - 1];
        let whole = BYTES / LINE_BYTES;
        for _ in 0..whole + 5 {
            queue.push(&line, true);
        }
        let lost = queue.dropped();
        assert_eq!(lost, Dropped { full: 5, failed: 0 });
        assert!(queue.shared.waiting.lock().text.len() <= BYTES);
        assert!(!queue.flush(Duration::from_millis(1)), "nothing is written yet");
        drop(open);
        assert!(queue.flush(Duration::from_secs(10)));
        let text = text(&taken);
        assert!(text.starts_with("first\nxxx") && text.ends_with("x\nlost 5\n"));
        assert_eq!(text.lines().count(), 2 + whole);
    }

    #[test]
    fn a_flood_of_debug_lines_leaves_room_for_errors() {
        let (queue, open, taken) = queue();
        queue.push(b"first", false);
        until_writing(&queue);
        for _ in 0..2 * LINES {
            queue.push(b"debug", false);
        }
        assert_eq!(queue.shared.waiting.lock().lines, LINES - LINES / URGENT_SHARE);
        queue.push(b"error", true);
        drop(open);
        assert!(queue.flush(Duration::from_secs(10)));
        assert!(text(&taken).contains("debug\nerror\nlost "));
    }

    #[test]
    fn lines_that_the_stream_refuses_are_counted_and_the_next_ones_are_tried() {
        let (queue, open, taken) = queue();
        for may in [false, true] {
            queue.push(b"line", false);
            open.send(may).unwrap();
            assert!(queue.flush(Duration::from_secs(10)));
        }
        assert_eq!(queue.dropped(), Dropped { full: 0, failed: 1 });
        assert_eq!(text(&taken), "line\n");
    }

    #[test]
    fn a_line_of_megabytes_is_cut_between_characters() {
        let line = "é".repeat(1 << 20);
        let odd = format!("x{line}");
        assert_eq!(cut(line.as_bytes()).len(), LINE_BYTES);
        assert_eq!(std::str::from_utf8(cut(odd.as_bytes())).unwrap().len(), LINE_BYTES - 1);
    }

    /// Takes one byte, fails, and takes all from then on.
    struct Halting(Arc<Mutex<(u32, Vec<u8>)>>);

    impl Write for Halting {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.lock();
            state.0 += 1;
            let count = match state.0 {
                1 => 1,
                2 => return Err(io::Error::from(ErrorKind::StorageFull)),
                _ => bytes.len(),
            };
            state.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_broken_off_does_not_run_into_the_next() {
        let taken = Arc::default();
        let queue = LineQueue::start("test", Halting(Arc::clone(&taken)), |_| String::new()).unwrap();
        queue.push(b"first", false);
        assert!(queue.flush(Duration::from_secs(10)));
        queue.push(b"second", false);
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(taken.lock().1, b"f\nsecond\n");
    }
}
