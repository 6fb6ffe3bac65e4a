//! The figures of an endpoint as plain values: what a decision was made from, to be kept or set again.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Load, LoraReading};
use crate::pool::AttributeKey;

/// All figures of one endpoint at one moment. Times are counted from the epoch of its [`Load`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadState {
    /// Requests that are being served, of this process and of its peers.
    pub in_flight: u64,
    /// Estimated tokens of those requests.
    pub in_flight_tokens: u64,
    /// Requests that this process and its peers ever sent.
    pub dispatched: u64,
    /// Waiting requests at the last reading.
    pub waiting: u64,
    /// Running requests at the last reading.
    pub running: u64,
    /// KV-cache usage at the last reading, 0..=1.
    pub kv_usage: f64,
    /// Tokens per KV-cache block; 0 if unknown.
    pub block_size: u32,
    /// KV-cache blocks of the server; 0 if unknown.
    pub num_blocks: u32,
    /// When something was last read; `None` if nothing ever was.
    pub read: Option<Duration>,
    /// The same for waiting requests, running requests and KV-cache usage each.
    pub figures_read: [Option<Duration>; 3],
    /// Requests sent before the last reading was asked for.
    pub dispatched_at_reading: u64,
    /// Requests in flight that the last reading counts.
    pub in_flight_at_reading: u64,
    /// Those of them that this process sent, and of whose answers no byte had come.
    pub prompts_at_reading: u64,
    /// Of the tokens in flight, those of peers.
    pub tokens_elsewhere: u64,
    /// Tokens of the requests that this process sent since the last reading.
    pub tokens_since_reading: u64,
    /// Scrapes in a row that got no answer at all.
    pub unanswered: u32,
    /// LoRA adapters at the last reading.
    pub lora: Arc<LoraReading>,
    /// Further figures, by name.
    pub attributes: Vec<(AttributeKey, f64)>,
}

/// A time as it is stored: nanoseconds plus one, 0 for never.
fn time(stored: u64) -> Option<Duration> {
    stored.checked_sub(1).map(Duration::from_nanos)
}

fn stored(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| (time.as_nanos() as u64).saturating_add(1))
}

impl Load {
    /// All figures now, read one by one.
    pub fn state(&self) -> LoadState {
        LoadState {
            in_flight: self.in_flight(),
            in_flight_tokens: self.in_flight_tokens(),
            dispatched: self.dispatched(),
            waiting: self.waiting(),
            running: self.running(),
            kv_usage: self.kv_usage(),
            block_size: self.block_size(),
            num_blocks: self.num_blocks(),
            read: time(self.updated.load(Relaxed)),
            figures_read: self.read.each_ref().map(|read| time(read.load(Relaxed))),
            dispatched_at_reading: self.dispatched_at_reading.load(Relaxed),
            in_flight_at_reading: self.in_flight_at_reading.load(Relaxed),
            prompts_at_reading: self.prompts_at_reading.load(Relaxed),
            tokens_elsewhere: self.tokens_elsewhere(),
            tokens_since_reading: self.tokens_since_reading(),
            unanswered: self.unanswered.load(Relaxed),
            lora: self.lora.load_full(),
            attributes: self.attributes.listed(),
        }
    }

    /// Takes over all figures. For loads that nobody else changes: those of a list that was made with
    /// [`Snapshot::of`](crate::pool::Snapshot::of).
    pub fn set_state(&self, state: &LoadState) {
        self.in_flight.store(state.in_flight, Relaxed);
        self.in_flight_tokens.store(state.in_flight_tokens.saturating_sub(state.tokens_elsewhere), Relaxed);
        self.dispatched.store(state.dispatched, Relaxed);
        for (share, value) in self.elsewhere.iter().zip([0, state.tokens_elsewhere, 0]) {
            share.store(value, Relaxed);
        }
        self.waiting.store(state.waiting, Relaxed);
        self.running.store(state.running, Relaxed);
        self.kv_usage.store(state.kv_usage.to_bits(), Relaxed);
        self.block_size.store(state.block_size, Relaxed);
        self.num_blocks.store(state.num_blocks, Relaxed);
        self.updated.store(stored(state.read), Relaxed);
        for (figure, read) in self.read.iter().zip(state.figures_read) {
            figure.store(stored(read), Relaxed);
        }
        self.dispatched_at_reading.store(state.dispatched_at_reading, Relaxed);
        self.in_flight_at_reading.store(state.in_flight_at_reading, Relaxed);
        self.prompts_at_reading.store(state.prompts_at_reading, Relaxed);
        for (tokens, value) in self.tokens_sent.iter().zip([state.tokens_since_reading, 0]) {
            tokens.store(value, Relaxed);
        }
        self.unanswered.store(state.unanswered, Relaxed);
        if !Arc::ptr_eq(&self.lora.load(), &state.lora) {
            self.lora.store(Arc::clone(&state.lora));
        }
        self.attributes.become_these(&state.attributes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::pool::{Age, Reading};

    #[test]
    fn figures_that_are_set_again_read_as_before() {
        let epoch = Instant::now();
        let key = |name| AttributeKey::new(name, "p");
        let (live, copy) = (Load::new(epoch), Load::new(epoch));
        live.begin(70);
        live.set_elsewhere(crate::pool::Share { tokens: 30, ..crate::pool::Share::default() }, 0);
        let lora = LoraReading { max_active: 4, active: ["a".to_owned()].into(), ..LoraReading::default() };
        let reading = Reading {
            waiting: Some(3),
            kv_usage: Some(0.1 + 0.2),
            lora: Some(lora),
            attributes: vec![(key("x"), 1.5)],
            ..Reading::default()
        };
        let at = epoch + Duration::from_nanos(1_234_567_891);
        live.record(reading, 0, at);
        copy.set_attribute(&key("gone"), 1.0);
        copy.set_state(&live.state());
        assert_eq!(copy.state(), live.state());
        assert_eq!(copy.age(at + Duration::from_nanos(9)), Age::Since(Duration::from_nanos(9)));
        assert_eq!((copy.attribute(&key("x")), copy.attribute(&key("gone"))), (Some(1.5), None));
        live.end_tokens(70);
        live.end();
        assert_eq!((copy.in_flight(), live.in_flight()), (1, 0), "the copy is its own");
        copy.set_state(&Load::new(epoch).state());
        assert_eq!(copy.age(at), Age::Never);
    }
}
