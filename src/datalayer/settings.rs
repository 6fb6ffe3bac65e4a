//! Settings of scraping.

use std::time::Duration;

use super::exposition::Figures;
use super::{EngineTable, Pace, SourceSpec};

/// Shortest interval between scrapes of one endpoint.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// Settings of scraping.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The place of the pages.
    pub source: SourceSpec,
    /// The series on the pages, by engine.
    pub engines: EngineTable,
    /// Figures that somebody reads; series of others are not looked for, and without any nothing is scraped.
    pub needs: Figures,
    /// Base time between scrapes of one endpoint (`--refresh-metrics-interval`); the source's own interval becomes a
    /// multiple of it.
    pub interval: Duration,
    /// Longest pause between attempts at an endpoint that does not answer.
    pub backoff_cap: Duration,
    /// Limit of one round, from connecting to the last byte.
    pub timeout: Duration,
    /// Limit of connecting, TLS included.
    pub connect_timeout: Duration,
    /// Longest page, in bytes.
    pub body_limit: usize,
    /// True if servers may be asked for the needed series only.
    pub filtered: bool,
    /// Tasks that share the endpoints. One can drive more than a thousand; more of them wake up more often.
    pub workers: usize,
}

impl Default for Settings {
    /// The reference's behaviour: every 50 ms, one second to answer; bodies up to 8 MiB.
    fn default() -> Self {
        Self {
            source: SourceSpec::default(),
            engines: EngineTable::builtin(),
            needs: Figures::ALL,
            interval: SHORTEST_INTERVAL,
            backoff_cap: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            body_limit: 8 * 1024 * 1024,
            filtered: true,
            workers: 1,
        }
    }
}

impl Settings {
    /// Interval and pauses in force. A source interval lowers the base, but never below 50 ms, and counts in whole
    /// multiples of it.
    pub fn pace(&self) -> Pace {
        let own = self.source.interval.filter(|own| !own.is_zero());
        let base = own.map_or(self.interval, |own| own.min(self.interval)).max(SHORTEST_INTERVAL);
        let ticks = own.map_or(1.0, |own| (own.as_secs_f64() / base.as_secs_f64()).round().max(1.0));
        let interval = base.mul_f64(ticks);
        Pace { backoff_cap: self.backoff_cap.max(interval), ..Pace::every(interval) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base_ms: u64, own_ms: Option<u64>, expected_ms: u64) {
        let source = SourceSpec { interval: own_ms.map(Duration::from_millis), ..SourceSpec::default() };
        let settings = Settings { source, interval: Duration::from_millis(base_ms), ..Settings::default() };
        assert_eq!(settings.pace().interval, Duration::from_millis(expected_ms), "{base_ms} {own_ms:?}");
    }

    #[test]
    fn the_interval_is_a_multiple_of_the_base_and_never_below_50_ms() {
        check(50, None, 50);
        check(10, None, 50);
        check(200, None, 200);
        check(50, Some(0), 50);
        check(50, Some(1000), 1000);
        check(50, Some(120), 100);
        check(100, Some(60), 60);
        check(100, Some(20), 50);
    }
}
