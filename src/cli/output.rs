//! The lines that the program writes while it serves.

use std::time::{Duration, Instant};

use crate::metrics::Metrics;
use crate::telemetry::{Dropped, LineQueue, LogFormat, logs};

/// Longest time for writing the last lines.
const FLUSH: Duration = Duration::from_secs(1);

/// The queues of both streams. Nothing else writes to the streams. Dropping this waits a moment for the last lines.
pub(super) struct Output {
    /// Standard error.
    pub(super) log: LineQueue,
    /// Standard output.
    pub(super) lines: LineQueue,
}

impl Output {
    /// Starts the threads that write. Log lines have this form.
    pub(super) fn start(format: LogFormat) -> std::io::Result<Self> {
        Ok(Self { log: logs::lines(format)?, lines: LineQueue::stdout()? })
    }

    /// Shows on the metrics page what is lost.
    pub(super) fn export(&self, metrics: &Metrics) {
        for (stream, queue) in [("stderr", &self.log), ("stdout", &self.lines)] {
            let queue = queue.clone();
            metrics.watch_lines(stream, move || {
                let Dropped { full, failed } = queue.dropped();
                (full, failed)
            });
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // What is not read by then is lost: an end that waits for a reader might be none.
        let deadline = Instant::now() + FLUSH;
        for queue in [&self.log, &self.lines] {
            queue.flush(deadline.saturating_duration_since(Instant::now()));
        }
    }
}
