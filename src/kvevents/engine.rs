//! The events of one engine, which are applied message by message.

use std::sync::Arc;

use super::ages::Ages;
use super::zmtp::Frames;
use super::{Decoder, NoBatch, PassedOver, Sequence, Step};
use crate::metrics::KvEventMetrics;
use crate::prefix::precise::{KvEvent, PreciseIndex, Taken};

/// A message of an engine: its number and its batch of events.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: Vec<u8>,
    pub(super) number: u64,
    pub(super) payload: Vec<u8>,
}

impl Message {
    /// Reads a message from its three frames: the topic, the number in eight bytes, and the payload.
    pub(super) fn of(frames: Frames) -> Option<Self> {
        let [topic, number, payload]: [Vec<u8>; 3] = frames.try_into().ok()?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        Some(Self { topic, number, payload })
    }
}

/// What the caller has to do after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// The caller does nothing: the message was applied, or was received before.
    Nothing,
    /// The caller asks for a replay and then applies this message. The messages from this number on are missing.
    Missing(u64),
}

/// One engine whose events are received.
#[derive(Debug)]
pub(super) struct Engine {
    index: Arc<PreciseIndex>,
    metrics: KvEventMetrics,
    /// The incarnation of the engine's endpoint.
    incarnation: u64,
    /// The address of the engine, for labels.
    pub(super) name: Box<str>,
    sequence: Sequence,
    decoder: Decoder,
    ages: Ages,
}

impl Engine {
    pub(super) fn new(
        index: Arc<PreciseIndex>,
        metrics: KvEventMetrics,
        incarnation: u64,
        name: &str,
        ages: Ages,
    ) -> Self {
        let (sequence, decoder) = (Sequence::default(), Decoder::default());
        Self { index, metrics, incarnation, name: name.into(), sequence, decoder, ages }
    }

    /// Handles a received message. Its events are applied unless messages before it are missing.
    pub(super) fn hear(&mut self, message: &Message) -> Follows {
        self.metrics.message(&self.name);
        self.ages.heard(&self.name);
        match self.sequence.hear(message.number) {
            Step::Repeated => return Follows::Nothing,
            Step::Next => {}
            Step::Gap(from) => return Follows::Missing(from),
            Step::Restart => {
                self.metrics.gap("restarted");
                self.metrics.rebuilt("restarted");
                self.begin_anew();
                self.sequence.hear(message.number);
                if message.number > 0 {
                    return Follows::Missing(0);
                }
            }
        }
        self.take(&message.payload);
        Follows::Nothing
    }

    /// Handles a message that the engine repeats. Returns false if another message should have come next.
    pub(super) fn repeated(&mut self, expected: u64, number: u64, payload: &[u8]) -> bool {
        if number != expected {
            return false;
        }
        self.take(payload);
        self.sequence.replayed(number);
        true
    }

    /// Notes that messages are lost for this reason. The index forgets the engine's blocks and learns them again.
    pub(super) fn forget(&mut self, reason: &'static str) {
        self.metrics.gap("forgotten");
        self.metrics.rebuilt(reason);
        self.index.forget(self.incarnation);
    }

    /// Forgets all that is known of the engine, which starts anew.
    pub(super) fn begin_anew(&mut self) {
        self.index.forget(self.incarnation);
        self.ages.renewed(&self.name);
        self.sequence.reset();
        self.decoder = Decoder::default();
    }

    /// The number of the message that should come next.
    pub(super) fn expected(&self) -> u64 {
        self.sequence.expected()
    }

    /// The number of the last message that was received or repeated.
    pub(super) fn last(&self) -> Option<u64> {
        self.sequence.last()
    }

    /// Applies the events of a batch.
    pub(super) fn take(&mut self, payload: &[u8]) {
        let Self { index, metrics, incarnation, decoder, .. } = self;
        let passed_over = decoder.batch(payload, |event| {
            let outcome = match (index.apply(*incarnation, event), event) {
                (Taken::Whole, KvEvent::Stored(_)) => "stored",
                (Taken::Whole, KvEvent::Removed { .. }) => "removed",
                (Taken::Whole, KvEvent::Cleared) => "cleared",
                (Taken::UnknownParent, _) => "unknown_parent",
                (Taken::Malformed, _) => "malformed",
                (Taken::UnknownEndpoint, _) => "unknown_endpoint",
            };
            metrics.events(outcome, 1);
        });
        match passed_over {
            Ok(PassedOver { unreadable, of_other_layers, too_many }) => {
                self.metrics.events("unreadable", unreadable.into());
                self.metrics.events("other_layers", of_other_layers.into());
                if too_many {
                    self.forget("gap");
                }
            }
            Err(NoBatch) => self.metrics.error(&self.name, "decode"),
        }
    }
}
