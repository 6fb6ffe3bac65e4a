//! Pauses between attempts to connect to the server.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::connect::Ended;

/// First pause; it doubles with each further attempt.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause while the server does not answer.
const OUTAGE: Duration = Duration::from_secs(1);
/// Pause where somebody has to change something.
const REFUSAL: Duration = Duration::from_secs(5);
/// A connection that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(1);

/// How often the server could not be reached.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Waits, or until told to stop.
    pub(super) async fn wait(&mut self, ended: &Ended, lasted: Duration, stop: &CancellationToken) {
        self.attempts = if lasted >= GOOD { 0 } else { self.attempts.saturating_add(1) };
        let pause = self.pause(ended.reason).mul_f64(1.0 - 0.3 * fastrand::f64());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }

    fn pause(&self, reason: &str) -> Duration {
        match reason {
            "password" => REFUSAL,
            _ => FIRST.saturating_mul(1 << self.attempts.saturating_sub(1).min(10)).min(OUTAGE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_bound_and_begin_anew_after_a_good_connection() {
        let (mut backoff, stop) = (Backoff::default(), CancellationToken::new());
        let ended = Ended::new("unreachable", "nobody listens");
        for longest in [50, 100, 200, 400, 800, 1000, 1000] {
            let before = tokio::time::Instant::now();
            backoff.wait(&ended, Duration::ZERO, &stop).await;
            let took = before.elapsed().as_millis();
            assert!((longest * 7 / 10..=longest + 1).contains(&took), "{took} of {longest}");
        }
        let before = tokio::time::Instant::now();
        backoff.wait(&ended, Duration::from_mins(1), &stop).await;
        assert!(before.elapsed() <= Duration::from_millis(51));
        assert_eq!(backoff.pause("password"), Duration::from_secs(5));
    }
}
