//! Counts the open streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::metrics::{ExtProcMetrics, StreamGuard};

/// Counts a stream as long as it lives.
#[derive(Debug)]
pub(super) struct StreamCount {
    open: Arc<AtomicU64>,
    guard: Option<StreamGuard>,
}

impl StreamCount {
    /// Counts a stream that begins, in `open` and in the series. Also says how many were open before it.
    pub(super) fn begin(open: &Arc<AtomicU64>, metrics: &ExtProcMetrics) -> (u64, Self) {
        let before = open.fetch_add(1, Relaxed);
        (before, Self { open: Arc::clone(open), guard: Some(metrics.stream_started(Instant::now())) })
    }

    /// Ends the stream with this code.
    pub(super) fn finish(mut self, code: tonic::Code) {
        if let Some(guard) = self.guard.take() {
            guard.finish(go_name(code));
        }
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

/// Name of a gRPC code as Go's library prints it.
fn go_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "OK",
        tonic::Code::Cancelled => "Canceled",
        tonic::Code::InvalidArgument => "InvalidArgument",
        tonic::Code::DeadlineExceeded => "DeadlineExceeded",
        tonic::Code::ResourceExhausted => "ResourceExhausted",
        tonic::Code::OutOfRange => "OutOfRange",
        tonic::Code::Internal => "Internal",
        tonic::Code::Unavailable => "Unavailable",
        _ => "Unknown",
    }
}
