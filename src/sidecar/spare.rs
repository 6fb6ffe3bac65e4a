//! How often the local engine may process a prompt in place of a failed prefill server. Without this bound, an outage
//! of the prefill servers would overload the decode servers too.

use std::time::Instant;

use parking_lot::Mutex;

/// A token bucket (<https://en.wikipedia.org/wiki/Token_bucket>) of prompts that the local engine may process.
#[derive(Debug)]
pub(super) struct Spare {
    per_second: f64,
    bucket: Mutex<Option<(f64, Instant)>>,
}

impl Spare {
    /// Allows `per_second` prompts each second, and bursts of as many.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), bucket: Mutex::new(None) }
    }

    /// Takes one prompt out of the bucket. Returns false if the bucket is empty.
    pub(super) fn take(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock();
        let (left, since) = bucket.unwrap_or((self.per_second, now));
        let grown = left + self.per_second * now.saturating_duration_since(since).as_secs_f64();
        let left = grown.min(self.per_second);
        let taken = left >= 1.0;
        *bucket = Some((if taken { left - 1.0 } else { left }, now));
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_holds_as_many_requests_as_were_granted() {
        let spare = Spare::new(3);
        let start = Instant::now();
        let taken = |at: u64| (0..10).filter(|_| spare.take(start + Duration::from_millis(at))).count();
        assert_eq!(taken(0), 3);
        assert_eq!(taken(100), 0);
        assert_eq!(taken(700), 2);
        assert_eq!(taken(60_000), 3);
        assert!(!Spare::new(0).take(start));
    }
}
