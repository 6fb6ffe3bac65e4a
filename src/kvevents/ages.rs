//! The times at which each engine last sent a message.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// For each endpoint address, the times of its engine's last message and of its last restart. Clones share the times.
#[derive(Clone, Debug, Default)]
pub struct Ages(Arc<Mutex<HashMap<Box<str>, Times>>>);

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    heard: Option<Instant>,
    renewed: Option<Instant>,
}

impl Ages {
    /// Notes that this engine has sent a message.
    pub(super) fn heard(&self, name: &str) {
        self.note(name, |times, now| times.heard = Some(now));
    }

    /// Notes that this engine has restarted.
    pub(super) fn renewed(&self, name: &str) {
        self.note(name, |times, now| times.renewed = Some(now));
    }

    fn note(&self, name: &str, note: impl FnOnce(&mut Times, Instant)) {
        let now = Instant::now();
        let mut all = self.0.lock();
        match all.get_mut(name) {
            Some(times) => note(times, now),
            None => note(all.entry(name.into()).or_default(), now),
        }
    }

    /// The time since this engine's last message; `None` if there was none.
    pub fn of(&self, name: &str, now: Instant) -> Option<Duration> {
        let heard = self.0.lock().get(name)?.heard?;
        Some(now.saturating_duration_since(heard))
    }

    /// True if this engine restarted within `time`.
    pub(super) fn renewed_within(&self, name: &str, time: Duration, now: Instant) -> bool {
        let renewed = self.0.lock().get(name).and_then(|times| times.renewed);
        renewed.is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    /// The time since the last message of each engine.
    pub(super) fn all(&self, now: Instant) -> Vec<(Box<str>, Duration)> {
        let all = self.0.lock();
        let ages = all
            .iter()
            .filter_map(|(name, times)| Some((name.clone(), now.saturating_duration_since(times.heard?))));
        ages.collect()
    }

    /// Forgets the engines for which `is_there` is false.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().retain(|name, _| is_there(name));
    }
}
