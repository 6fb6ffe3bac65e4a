//! When each engine was heard last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// By address of the endpoint, when its last message came, and when its events last began anew. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ages(Arc<Mutex<HashMap<Box<str>, Times>>>);

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    heard: Option<Instant>,
    renewed: Option<Instant>,
}

impl Ages {
    /// This engine sent a message now.
    pub(super) fn heard(&self, name: &str) {
        self.note(name, |times, now| times.heard = Some(now));
    }

    /// The events of this engine begin anew now.
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

    /// How long ago this engine sent a message; `None` if it never did.
    pub fn of(&self, name: &str, now: Instant) -> Option<Duration> {
        let heard = self.0.lock().get(name)?.heard?;
        Some(now.saturating_duration_since(heard))
    }

    /// True if the events of this engine began anew within this time.
    pub(super) fn renewed_within(&self, name: &str, time: Duration, now: Instant) -> bool {
        let renewed = self.0.lock().get(name).and_then(|times| times.renewed);
        renewed.is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    /// All ages.
    pub(super) fn all(&self, now: Instant) -> Vec<(Box<str>, Duration)> {
        let all = self.0.lock();
        let ages = all
            .iter()
            .filter_map(|(name, times)| Some((name.clone(), now.saturating_duration_since(times.heard?))));
        ages.collect()
    }

    /// Forgets engines that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().retain(|name, _| is_there(name));
    }
}
