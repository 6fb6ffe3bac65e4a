//! What one process knows of the prompts that an endpoint has not computed yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::pace::{Pace, Sample};

/// A slowness between 1 / `USUAL` and `USUAL` counts as 1: it is chance.
const USUAL: f64 = 1.25;
/// Largest slowness, and its inverse the smallest.
const SLOWEST: f64 = 8.0;
/// Share of a new sample in the slowness.
const STEP: f64 = 0.25;
/// Time in which half of a slowness is forgotten without samples, so that a slow endpoint is tried again.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// No answer in one piece is due.
const NEVER: u64 = u64::MAX;

/// A prompt whose answer comes in one piece. Nothing tells when it is computed, so that an estimate has to.
#[derive(Debug)]
struct Whole {
    number: u64,
    uncached: u64,
    /// Nanoseconds since the beginning.
    due: u64,
}

/// The prompts of one endpoint. The figures are read without a lock.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Uncached tokens that are not computed yet.
    pending: AtomicU64,
    /// Number of the next request.
    next: AtomicU64,
    /// Time of an answer as a multiple of the pool's: the bits of a float.
    slowness: AtomicU64,
    /// Nanoseconds since the beginning at which it was measured.
    measured: AtomicU64,
    wholes: Mutex<VecDeque<Whole>>,
    /// When the first of them is due.
    due: AtomicU64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            pending: AtomicU64::new(0),
            next: AtomicU64::new(0),
            slowness: AtomicU64::new(1_f64.to_bits()),
            measured: AtomicU64::new(0),
            wholes: Mutex::default(),
            due: AtomicU64::new(NEVER),
        }
    }
}

impl Ledger {
    /// Uncached tokens that are not computed at `now`, in nanoseconds since the beginning.
    pub(super) fn pending(&self, now: u64) -> u64 {
        if now >= self.due.load(Relaxed) {
            self.expire(now);
        }
        self.pending.load(Relaxed)
    }

    /// Time that this endpoint takes, as a multiple of what the pool takes.
    pub(super) fn slowness(&self, now: u64) -> f64 {
        let usual = |slowness: f64| (1.0 / USUAL..=USUAL).contains(&slowness);
        let stored = f64::from_bits(self.slowness.load(Relaxed));
        if usual(stored) {
            return 1.0;
        }
        Some(self.remembered(stored, now)).filter(|slowness| !usual(*slowness)).unwrap_or(1.0)
    }

    /// What is left of a slowness.
    fn remembered(&self, slowness: f64, now: u64) -> f64 {
        let idle = now.saturating_sub(self.measured.load(Relaxed)) as f64 / HALF_LIFE.as_nanos() as f64;
        slowness.powf((-idle).exp2())
    }

    fn expire(&self, now: u64) {
        let mut wholes = self.wholes.lock();
        let pending = &self.pending;
        wholes.retain(|whole| {
            let stays = whole.due > now;
            if !stays {
                pending.fetch_sub(whole.uncached, Relaxed);
            }
            stays
        });
        self.note_due(&wholes);
    }

    fn note_due(&self, wholes: &VecDeque<Whole>) {
        self.due.store(wholes.iter().map(|whole| whole.due).min().unwrap_or(NEVER), Relaxed);
    }

    /// Prompts are computed in their order: those before `number` are, too.
    fn computed_before(&self, number: u64) {
        if self.due.load(Relaxed) == NEVER {
            return;
        }
        let mut wholes = self.wholes.lock();
        while let Some(first) = wholes.front().filter(|whole| whole.number < number) {
            self.pending.fetch_sub(first.uncached, Relaxed);
            wholes.pop_front();
        }
        self.note_due(&wholes);
    }

    fn forget(&self, number: u64) {
        let mut wholes = self.wholes.lock();
        if let Some(place) = wholes.iter().position(|whole| whole.number == number)
            && let Some(whole) = wholes.remove(place)
        {
            self.pending.fetch_sub(whole.uncached, Relaxed);
            self.note_due(&wholes);
        }
    }

    /// Learns that an answer took `ratio` times as long as it takes in the pool.
    fn measure(&self, ratio: f64, now: u64) {
        let before = self.remembered(f64::from_bits(self.slowness.load(Relaxed)), now).ln();
        let after = before + STEP * (ratio.clamp(1.0 / SLOWEST, SLOWEST).ln() - before);
        self.slowness.store(after.exp().to_bits(), Relaxed);
        self.measured.store(now, Relaxed);
    }
}

/// A request that was sent, until its prompt is computed. Dropping it takes its tokens back.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) ledger: Arc<Ledger>,
    pub(super) pace: Arc<Pace>,
    /// Its own uncached tokens.
    pub(super) uncached: u64,
    /// Tokens to compute until its first token: its own and those before it.
    pub(super) work: f64,
    /// Nobody else's requests waited there.
    pub(super) alone: bool,
    pub(super) at: Instant,
    number: u64,
    /// The answer comes in one piece.
    whole: bool,
    over: bool,
}

/// What is known of a request when it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sending {
    /// Its own uncached tokens.
    pub(super) uncached: u64,
    /// Tokens to compute until its first token: its own and those before it.
    pub(super) work: f64,
    /// Nobody else's requests waited there.
    pub(super) alone: bool,
    /// The time.
    pub(super) at: Instant,
    /// Nanoseconds since the beginning at which its prompt is computed, by the estimate, if the answer comes in one
    /// piece.
    pub(super) due: Option<u64>,
}

impl Sent {
    /// Counts a request.
    pub(super) fn new(ledger: Arc<Ledger>, pace: Arc<Pace>, sending: Sending) -> Self {
        let Sending { uncached, work, alone, at, due } = sending;
        let number = ledger.next.fetch_add(1, Relaxed);
        ledger.pending.fetch_add(uncached, Relaxed);
        if let Some(due) = due {
            let mut wholes = ledger.wholes.lock();
            wholes.push_back(Whole { number, uncached, due });
            ledger.note_due(&wholes);
        }
        Self { ledger, pace, uncached, work, alone, at, number, whole: due.is_some(), over: false }
    }

    /// The first bytes of the answer have come, at `nanos` since the beginning. With `learn` the time is a sample.
    pub(super) fn answered(&mut self, now: Instant, nanos: u64, streamed: bool, learn: bool) {
        self.end();
        if !streamed || self.whole {
            return;
        }
        self.ledger.computed_before(self.number);
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64() * 1e3;
        if learn && self.alone {
            let expected = self.pace.expected(self.work);
            self.ledger.measure(elapsed / expected.max(1e-3), nanos);
            self.pace.learn(Sample { tokens: self.work, elapsed });
        }
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if self.whole {
            self.ledger.forget(self.number);
        } else {
            self.ledger.pending.fetch_sub(self.uncached, Relaxed);
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sending(uncached: u64, due: Option<u64>) -> Sending {
        Sending { uncached, work: uncached as f64, alone: true, at: Instant::now(), due }
    }

    fn send(ledger: &Arc<Ledger>, sending: Sending) -> Sent {
        Sent::new(Arc::clone(ledger), Arc::new(Pace::new(1000.0)), sending)
    }

    #[test]
    fn a_prompt_counts_until_its_first_byte_and_one_that_is_dropped_no_more() {
        let ledger = Arc::new(Ledger::default());
        let mut first = send(&ledger, sending(100, None));
        let second = send(&ledger, sending(10, None));
        assert_eq!(ledger.pending(0), 110);
        first.answered(Instant::now(), 1, true, true);
        assert_eq!(ledger.pending(0), 10);
        drop((first, second));
        assert_eq!(ledger.pending(0), 0);
    }

    #[test]
    fn a_prompt_whose_answer_comes_in_one_piece_counts_until_it_is_due_or_a_later_one_is_computed() {
        let ledger = Arc::new(Ledger::default());
        let early = send(&ledger, sending(100, Some(50)));
        let late = send(&ledger, sending(20, Some(90)));
        let mut streamed = send(&ledger, sending(3, None));
        let last = send(&ledger, sending(1, Some(200)));
        assert_eq!(ledger.pending(49), 124);
        assert_eq!(ledger.pending(50), 24);
        streamed.answered(Instant::now(), 60, true, true);
        assert_eq!(ledger.pending(60), 1);
        drop((early, late, streamed));
        assert_eq!(ledger.pending(60), 1);
        drop(last);
        assert_eq!(ledger.pending(1000), 0);
    }

    #[test]
    fn an_endpoint_that_takes_twice_as_long_is_known_after_a_few_samples_and_forgotten_when_idle() {
        let ledger = Ledger::default();
        ledger.measure(1.1, 1);
        assert!((ledger.slowness(1) - 1.0).abs() < 1e-9, "a tenth is chance");
        (0..8).for_each(|_| ledger.measure(2.0, 1));
        let slowness = ledger.slowness(1);
        assert!(slowness > 1.7 && slowness < 2.0, "{slowness}");
        let later = HALF_LIFE.as_nanos() as u64 * 4;
        assert!((ledger.slowness(later) - 1.0).abs() < 1e-9);
    }
}
