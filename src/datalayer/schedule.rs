//! Who is due when. Pure: time comes in, keys come out.
//!
//! Each endpoint has a phase within the interval, so that a thousand of them are asked evenly and not in one burst. A
//! round that is still under way when the next is due makes that next one fall out; nothing piles up. Endpoints that
//! fail are asked ever more seldom, up to a cap.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The rate of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between rounds of one endpoint.
    pub interval: Duration,
    /// Longest pause after failures.
    pub backoff_cap: Duration,
    /// Due times are rounded up to multiples of this, so that neighbours share a wake-up.
    pub resolution: Duration,
}

impl Pace {
    /// A pace with the default cap (1 s, or the interval if that is longer) and resolution (2 ms).
    pub fn every(interval: Duration) -> Self {
        Self {
            interval,
            backoff_cap: interval.max(Duration::from_secs(1)),
            resolution: Duration::from_millis(2),
        }
    }
}

/// Due times of all endpoints of one worker. Every operation costs O(log n).
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    start: Instant,
    due: BTreeSet<(Instant, u64)>,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Nanoseconds into the interval.
    phase: u64,
    /// Time at which the next round begins; `None` while one is under way.
    due: Option<Instant>,
    failures: u32,
}

/// Part of the interval by which single rounds are moved, so that rounds do not keep step with the server's own
/// clockwork.
const JITTER_DIVISOR: u64 = 8;

impl Schedule {
    /// An empty schedule. `start` is the origin of the grid; any past moment will do.
    pub fn new(pace: Pace, start: Instant) -> Self {
        let pace = Pace {
            interval: pace.interval.max(Duration::from_millis(1)),
            resolution: pace.resolution.max(Duration::from_nanos(1)),
            ..pace
        };
        Self { pace, start, due: BTreeSet::new(), entries: HashMap::new() }
    }

    /// Adds an endpoint, due within one interval. Keys that follow each other get phases far apart. A known key starts
    /// anew.
    pub fn add(&mut self, key: u64, now: Instant) {
        self.remove(key);
        // Multiples of the golden ratio fill the interval more evenly than random numbers.
        let fraction = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let phase = (u128::from(fraction) * self.pace.interval.as_nanos()) >> 64;
        self.entries.insert(key, Entry { phase: phase as u64, due: None, failures: 0 });
        self.plan(key, now);
    }

    /// Forgets an endpoint.
    pub fn remove(&mut self, key: u64) {
        if let Some(due) = self.entries.remove(&key).and_then(|entry| entry.due) {
            self.due.remove(&(due, key));
        }
    }

    /// Time at which [`Self::take_due`] will next have something.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// An endpoint whose round begins now. It is not due again before [`Self::finished`].
    pub fn take_due(&mut self, now: Instant) -> Option<u64> {
        let (due, key) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.due.pop_first();
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.due = None;
        }
        Some(key)
    }

    /// A round has ended. Unknown keys, and keys with no round under way, are ignored.
    pub fn finished(&mut self, key: u64, succeeded: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.due.is_none()) else { return };
        entry.failures = if succeeded { 0 } else { entry.failures.saturating_add(1) };
        let pause = self.pace.pause(entry.failures, key);
        self.plan(key, now + pause);
    }

    /// Failures since the last success.
    pub fn failures(&self, key: u64) -> u32 {
        self.entries.get(&key).map_or(0, |entry| entry.failures)
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without endpoints.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes `key` due at its first grid point after `earliest`.
    fn plan(&mut self, key: u64, earliest: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let interval = self.pace.interval.as_nanos() as u64;
        let elapsed = earliest.saturating_duration_since(self.start).as_nanos() as u64;
        let round = match elapsed.checked_sub(entry.phase) {
            Some(since) => since / interval + 1,
            None => 0,
        };
        let jitter = scramble(key ^ round.rotate_left(32)) % (interval / JITTER_DIVISOR).max(1);
        let nanos = round.saturating_mul(interval).saturating_add(entry.phase).saturating_add(jitter);
        let due =
            self.start + Duration::from_nanos(nanos.next_multiple_of(self.pace.resolution.as_nanos() as u64));
        entry.due = Some(due);
        self.due.insert((due, key));
    }
}

impl Pace {
    /// Extra pause after `failures` failures in a row: none after the first, then twice as long each time. Spread by up
    /// to a quarter, so that endpoints that went away together are not asked together.
    fn pause(&self, failures: u32, key: u64) -> Duration {
        if failures < 2 {
            return Duration::ZERO;
        }
        let pause = self.interval.saturating_mul(1 << (failures - 2).min(16)).min(self.backoff_cap);
        let quarter = (pause.as_nanos() as u64 / 4).max(1);
        // The next grid point adds up to one more interval, which the cap already contains.
        let spread = Duration::from_nanos(scramble(key ^ u64::from(failures)) % quarter);
        pause.saturating_sub(self.interval).saturating_sub(spread)
    }
}

/// A number without any visible relation to `seed` (the finalizer of splitmix64).
fn scramble(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(50);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Plays `span` in steps of 1 ms. `answer` says how long a round of a key lasts and whether it succeeds. Returns
    /// begin times by key.
    fn play(
        keys: u64,
        span: Duration,
        answer: impl Fn(u64) -> (Duration, bool),
    ) -> HashMap<u64, Vec<Duration>> {
        let start = Instant::now();
        let mut schedule = Schedule::new(Pace::every(INTERVAL), start);
        (0..keys).for_each(|key| schedule.add(key, start));
        let mut begun: HashMap<u64, Vec<Duration>> = HashMap::new();
        let mut under_way: Vec<(Duration, u64, bool)> = Vec::new();
        for step in 0..span.as_millis() as u64 {
            let now = ms(step);
            under_way.retain(|&(end, key, ok)| {
                if end <= now {
                    schedule.finished(key, ok, start + now);
                }
                end > now
            });
            while let Some(key) = schedule.take_due(start + now) {
                begun.entry(key).or_default().push(now);
                let (took, ok) = answer(key);
                assert!(!under_way.iter().any(|round| round.1 == key), "one round at a time");
                under_way.push((now + took, key, ok));
            }
        }
        begun
    }

    #[test]
    fn each_endpoint_is_asked_once_an_interval() {
        let begun = play(100, ms(10_000), |_| (ms(3), true));
        assert!(begun.len() == 100 && begun.values().all(|times| (199..=200).contains(&times.len())));
    }

    #[test]
    fn rounds_are_spread_evenly_over_the_interval() {
        let begun = play(100, ms(5_000), |_| (ms(3), true));
        let mut in_slot = HashMap::<u64, u32>::new();
        for time in begun.values().flatten() {
            *in_slot.entry(time.as_millis() as u64 / 10).or_default() += 1;
        }
        // 20 of the 100 are due in each 10 ms, give or take the jitter.
        assert!(in_slot.values().all(|count| (6..=34).contains(count)), "{in_slot:?}");
    }

    #[test]
    fn a_new_endpoint_is_asked_within_one_interval() {
        let begun = play(1000, ms(100), |_| (ms(1), true));
        let latest = begun.values().map(|times| times[0]).max().unwrap();
        assert!(begun.len() == 1000 && latest <= INTERVAL + INTERVAL / 8 + ms(2));
    }

    #[test]
    fn a_slow_endpoint_skips_rounds_and_does_not_slow_the_others() {
        let begun = play(10, ms(10_000), |key| (ms(if key == 3 { 120 } else { 2 }), true));
        assert!((60..=67).contains(&begun[&3].len()), "{}", begun[&3].len());
        assert!(begun.iter().filter(|(key, _)| **key != 3).all(|(_, times)| times.len() >= 199));
    }

    #[test]
    fn a_dead_endpoint_is_asked_about_once_a_second() {
        let begun = play(1, ms(20_000), |_| (ms(1), false));
        let times = &begun[&0];
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1].abs_diff(pair[0])).collect();
        assert!(gaps[0] <= ms(60), "the first failure is retried at the normal pace");
        assert!(gaps.iter().all(|gap| *gap <= ms(1010)), "{gaps:?}");
        assert!(gaps.iter().rev().take(10).all(|gap| *gap >= ms(650)), "{gaps:?}");
    }

    #[test]
    fn a_success_ends_the_pause() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Pace::every(INTERVAL), start);
        schedule.add(1, start);
        let mut now = start;
        for round in 0..20 {
            now = schedule.next_due().unwrap();
            assert_eq!(schedule.take_due(now), Some(1));
            schedule.finished(1, round == 19, now);
        }
        assert_eq!(schedule.failures(1), 0);
        assert!(schedule.next_due().unwrap() <= now + INTERVAL + INTERVAL / 4);
    }

    #[test]
    fn a_removed_endpoint_is_never_due_even_if_its_round_ends_later() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Pace::every(INTERVAL), start);
        schedule.add(1, start);
        let now = start + INTERVAL * 2;
        assert_eq!(schedule.take_due(now), Some(1));
        schedule.remove(1);
        schedule.finished(1, true, now);
        assert!(schedule.next_due().is_none() && schedule.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_happens_every_idle_endpoint_has_one_due_time(ops in prop::collection::vec((0u8..4, 0u64..6, any::<bool>(), 0u64..200), 1..200)) {
            let start = Instant::now();
            let mut now = start;
            let mut schedule = Schedule::new(Pace::every(INTERVAL), start);
            let mut known = std::collections::BTreeMap::<u64, bool>::new();
            for (op, key, ok, wait) in ops {
                now += ms(wait);
                match op {
                    0 => { schedule.add(key, now); known.insert(key, false); }
                    1 => { schedule.remove(key); known.remove(&key); }
                    2 => { schedule.finished(key, ok, now); known.entry(key).and_modify(|busy| *busy = false); }
                    _ => while let Some(key) = schedule.take_due(now) {
                        prop_assert_eq!(known.insert(key, true), Some(false));
                    },
                }
                let idle = known.values().filter(|busy| !**busy).count();
                prop_assert_eq!((schedule.due.len(), schedule.len()), (idle, known.len()));
                let latest = now + Pace::every(INTERVAL).backoff_cap + INTERVAL * 2;
                prop_assert!(schedule.due.iter().all(|(due, _)| *due <= latest));
            }
        }
    }
}
