//! Series of the capture of decisions.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, Registry};

use super::family::{Definition, Family};

const ACTIVE: Definition<0> =
    Definition::new("pointsman_capture_active", "1 while decisions are captured, 0 otherwise.", []);

const LINES: Definition<1> = Definition::new(
    "pointsman_capture_lines_total",
    "Lines of captures, by what became of them: written, or dropped because the queue to the writer was full.",
    ["result"],
);

const BYTES: Definition<0> =
    Definition::new("pointsman_capture_bytes_total", "Compressed bytes that captures wrote.", []);

const DISK: Definition<0> = Definition::new(
    "pointsman_capture_disk_bytes",
    "Bytes of all files in the folder of captures, at the last write.",
    [],
);

/// Handles of these series. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CaptureMetrics {
    active: Gauge,
    written: IntCounter,
    dropped: IntCounter,
    bytes: IntCounter,
    disk: Gauge,
}

impl CaptureMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let gauge =
            |definition| Family::<GaugeVec, 0>::register(definition, registry).child([]).into_current();
        let lines = Family::<IntCounterVec, 1>::register(LINES, registry);
        Self {
            active: gauge(ACTIVE),
            written: lines.child(["written"]).into_current(),
            dropped: lines.child(["dropped"]).into_current(),
            bytes: Family::<IntCounterVec, 0>::register(BYTES, registry).child([]).into_current(),
            disk: gauge(DISK),
        }
    }

    /// Sets whether decisions are captured.
    pub fn active(&self, active: bool) {
        self.active.set(f64::from(u8::from(active)));
    }

    /// Counts a line that was dropped.
    pub fn dropped(&self) {
        self.dropped.inc();
    }

    /// Counts lines that were written in these bytes, after which all files take `disk` bytes.
    pub fn wrote(&self, lines: u64, bytes: u64, disk: u64) {
        self.written.inc_by(lines);
        self.bytes.inc_by(bytes);
        self.disk.set(disk as f64);
    }
}
