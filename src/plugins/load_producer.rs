//! `inFlightLoadProducerName` of plugins that read this process's own load ledger.

use super::BuildCx;

const NAME: &str = "inflight-load-producer";

/// Warns of the parameter where it names anything but the producer that is always there.
pub(super) fn note_load_producer(cx: &mut BuildCx<'_>, producer: Option<&str>) {
    if let Some(producer) = producer.filter(|producer| *producer != NAME && !producer.is_empty()) {
        cx.warn(format!(
            "inFlightLoadProducerName: {producer:?} has no effect, requests in flight are counted once"
        ));
    }
}
