//! Series of output that was lost. The queues count for themselves; the scrape reads them.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, Opts, Registry};

use super::family::Definition;

const DROPPED: Definition<2> = Definition::new(
    "pointsman_log_lines_dropped_total",
    "Lines that were not written, by stream (stderr has the log) and reason: its queue was full, or the stream refused the write.",
    ["stream", "reason"],
);

/// How many lines were lost so far for want of room, and by failed writes.
type Read = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

/// Queues whose losses are exported.
#[derive(Clone)]
pub(super) struct LineFamilies {
    counters: IntCounterVec,
    streams: Arc<Mutex<Vec<(&'static str, Read)>>>,
}

impl LineFamilies {
    #[allow(
        clippy::expect_used,
        reason = "only a name that is no metric name, or one used twice, can fail here"
    )]
    pub(super) fn register(registry: &Registry) -> Self {
        let options = Opts::new(DROPPED.name(), DROPPED.help());
        let counters = IntCounterVec::new(options, &DROPPED.labels()).expect("metric names are valid");
        let families = Self { counters, streams: Arc::default() };
        registry.register(Box::new(families.clone())).expect("metric names are unique");
        families
    }

    pub(super) fn watch(&self, stream: &'static str, read: Read) {
        self.streams.lock().push((stream, read));
    }
}

impl Collector for LineFamilies {
    fn desc(&self) -> Vec<&Desc> {
        self.counters.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Held while counters catch up, so that two scrapes at once do not both add the difference.
        let streams = self.streams.lock();
        for (stream, read) in streams.iter() {
            let (full, failed) = read();
            for (reason, lost) in [("queue_full", full), ("write_failed", failed)] {
                let counter = self.counters.with_label_values(&[*stream, reason]);
                counter.inc_by(lost.saturating_sub(counter.get()));
            }
        }
        drop(streams);
        self.counters.collect()
    }
}
