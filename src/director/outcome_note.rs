//! What a capture says of the end of a request.

use std::time::Instant;

use crate::capture::Exact;
use crate::capture::lines::{OutcomeLine, UsageLine};
use crate::scheduling::EndedCall;

/// What was seen of a response, beside what hooks are told.
pub(super) struct Seen {
    /// Number of the request in the process.
    pub(super) n: u64,
    /// How it ended.
    pub(super) ended: &'static str,
    /// HTTP status; 0 if no headers were seen.
    pub(super) status: u16,
    /// When the request came.
    pub(super) received: Instant,
    /// Bytes of the response body.
    pub(super) bytes: u64,
}

impl Seen {
    /// The line of a response that ended like this.
    pub(super) fn line(&self, call: &EndedCall<'_>, now_ns: u64) -> OutcomeLine {
        let ms = |at: Instant| Exact(at.saturating_duration_since(self.received).as_secs_f64() * 1e3);
        OutcomeLine {
            n: self.n,
            now_ns,
            ended: self.ended.to_owned(),
            status: self.status,
            endpoint: call.endpoint.id().to_string(),
            streamed: call.streamed,
            succeeded: call.succeeded,
            ttft_ms: call.first_byte.map(ms),
            duration_ms: ms(call.now),
            bytes: self.bytes,
            chunks: call.chunks,
            usage: call.usage.map(UsageLine::from),
        }
    }
}
