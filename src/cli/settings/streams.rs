//! What the flags say of ext_proc's streams.

use std::sync::Arc;
use std::time::Duration;

use crate::cli::{ServeFlags, fit};
use crate::director::BodyBudget;
use crate::extproc::{ExtProcSettings, MachineSettings, Modes};
use crate::metrics::Metrics;

/// Bounds and modes of the ext_proc service.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct StreamSettings {
    modes: Modes,
    body_limit: u64,
    buffered_bodies: u64,
    max_streams: u64,
    idle_timeout: Duration,
    max_receive_bytes: usize,
    max_send_bytes: usize,
}

impl StreamSettings {
    /// Reads the flags.
    pub(super) fn new(flags: &ServeFlags) -> Self {
        let defaults = ExtProcSettings::default();
        Self {
            modes: Modes {
                request: flags.request_body_mode,
                response: flags.response_body_mode,
                early_body: false,
            },
            body_limit: flags.max_request_body,
            buffered_bodies: flags.max_buffered_bodies,
            max_streams: flags.max_concurrent_streams,
            idle_timeout: flags.stream_idle_timeout,
            max_receive_bytes: flags.grpc_max_recv_msg_size.0.unwrap_or_else(|| {
                // A proxy that buffers sends the whole body in one message; what the body bound allows must fit.
                let whole_body = usize::try_from(flags.max_request_body).unwrap_or(usize::MAX);
                defaults.max_receive_bytes.max(whole_body.saturating_add(fit::MESSAGE_FRAME))
            }),
            max_send_bytes: flags.grpc_max_send_msg_size.0.unwrap_or(defaults.max_send_bytes),
        }
    }

    /// The settings of a service whose bodies these metrics count.
    pub(in crate::cli) fn service(&self, metrics: &Metrics) -> ExtProcSettings {
        let budget = BodyBudget::new(self.buffered_bodies).with_metrics(metrics.extproc());
        ExtProcSettings {
            machine: MachineSettings {
                modes: self.modes,
                body_limit: self.body_limit,
                budget: Arc::new(budget),
            },
            max_streams: self.max_streams,
            stream_idle_timeout: self.idle_timeout,
            max_receive_bytes: self.max_receive_bytes,
            max_send_bytes: self.max_send_bytes,
        }
    }
}
