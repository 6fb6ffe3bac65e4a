//! When each engine was heard last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// By address of the endpoint, when its last message came. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ages(Arc<Mutex<HashMap<Box<str>, Instant>>>);

impl Ages {
    /// This engine sent a message now.
    pub(super) fn heard(&self, name: &str) {
        let now = Instant::now();
        let mut all = self.0.lock();
        match all.get_mut(name) {
            Some(at) => *at = now,
            None => {
                all.insert(name.into(), now);
            }
        }
    }

    /// How long ago this engine sent a message; `None` if it never did.
    pub fn of(&self, name: &str, now: Instant) -> Option<Duration> {
        self.0.lock().get(name).map(|at| now.saturating_duration_since(*at))
    }

    /// All ages.
    pub(super) fn all(&self, now: Instant) -> Vec<(Box<str>, Duration)> {
        let all = self.0.lock();
        all.iter().map(|(name, at)| (name.clone(), now.saturating_duration_since(*at))).collect()
    }

    /// Forgets engines that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().retain(|name, _| is_there(name));
    }
}
