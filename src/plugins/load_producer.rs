//! `inFlightLoadProducerName` of plugins that read this process's own load ledger.

use super::BuildCx;

/// Warns of the parameter where it names anything but the producer that is always there.
pub(super) fn note_load_producer(cx: &mut BuildCx<'_>, producer: Option<&str>) {
    if let Some(producer) = producer.filter(|producer| *producer != "inflight-load-producer") {
        cx.warn(format!(
            "inFlightLoadProducerName: {producer:?} has no effect, requests in flight are always counted"
        ));
    }
}
