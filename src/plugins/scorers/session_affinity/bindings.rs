//! Which endpoint each session is bound to.

use std::time::{Duration, Instant};

use crate::pool::EndpointId;
use crate::prefix::Recency;

/// Most sessions that are remembered, about 10 MB of them; beyond it the one that was quiet longest is forgotten.
pub(super) const MAX_SESSIONS: usize = 100_000;

/// A keyed hash of a session id: ids come from clients and may be long.
pub(super) type SessionKey = u128;

#[derive(Debug)]
struct Binding {
    endpoint: EndpointId,
    last_request: Instant,
}

/// Sessions in the order of their last requests. Time is what callers say it is.
#[derive(Debug)]
pub(super) struct Bindings {
    ttl: Duration,
    sessions: Recency<SessionKey, Binding>,
}

impl Bindings {
    /// No sessions; each is forgotten `ttl` after its last request.
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, sessions: Recency::default() }
    }

    /// Endpoint that the session is bound to.
    pub(super) fn bound(&self, session: SessionKey, now: Instant) -> Option<EndpointId> {
        let binding = self.sessions.value(self.sessions.position(&session)?)?;
        self.is_alive(binding, now).then(|| binding.endpoint.clone())
    }

    /// Binds a new session to `endpoint`; refreshes one that is bound to it; moves one that is bound elsewhere unless
    /// `is_available` says that its endpoint could have been chosen.
    pub(super) fn bind(
        &mut self,
        session: SessionKey,
        endpoint: &EndpointId,
        now: Instant,
        is_available: impl Fn(&EndpointId) -> bool,
    ) {
        self.expire(now);
        let Some(index) = self.sessions.position(&session) else {
            if self.sessions.len() >= MAX_SESSIONS {
                self.sessions.pop_oldest();
            }
            self.sessions.insert(session, Binding { endpoint: endpoint.clone(), last_request: now });
            return;
        };
        let Some(binding) = self.sessions.value_mut(index) else { return };
        if binding.endpoint != *endpoint {
            if is_available(&binding.endpoint) {
                return;
            }
            binding.endpoint = endpoint.clone();
        }
        binding.last_request = binding.last_request.max(now);
        self.sessions.touch(index);
    }

    fn is_alive(&self, binding: &Binding, now: Instant) -> bool {
        now.saturating_duration_since(binding.last_request) < self.ttl
    }

    /// Forgets what has expired.
    fn expire(&mut self, now: Instant) {
        while self.sessions.oldest().is_some_and(|(_, binding)| !self.is_alive(binding, now)) {
            self.sessions.pop_oldest();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> EndpointId {
        EndpointId::new("default", name)
    }

    #[test]
    fn a_session_is_forgotten_when_it_was_quiet_for_the_time_to_live() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut bindings = Bindings::new(Duration::from_secs(10));
        bindings.bind(1, &pod("a"), at(0), |_| true);
        bindings.bind(2, &pod("a"), at(1), |_| true);
        bindings.bind(1, &pod("a"), at(8), |_| true);
        assert_eq!(bindings.bound(2, at(10)), Some(pod("a")));
        assert_eq!(bindings.bound(2, at(11)), None);
        assert_eq!(bindings.bound(1, at(17)), Some(pod("a")));
        bindings.bind(3, &pod("c"), at(11), |_| true);
        assert_eq!(bindings.len(), 2);
    }

    #[test]
    fn a_session_moves_only_if_its_endpoint_was_not_to_be_had() {
        let now = Instant::now();
        let mut bindings = Bindings::new(Duration::from_secs(10));
        bindings.bind(1, &pod("a"), now, |_| true);
        bindings.bind(1, &pod("b"), now, |bound| *bound == pod("a"));
        assert_eq!(bindings.bound(1, now), Some(pod("a")));
        bindings.bind(1, &pod("b"), now, |_| false);
        assert_eq!(bindings.bound(1, now), Some(pod("b")));
    }

    #[test]
    fn beyond_the_bound_the_quietest_session_goes() {
        let now = Instant::now();
        let mut bindings = Bindings::new(Duration::from_secs(10));
        let key = |number: u128| number << 64;
        for number in 0..=MAX_SESSIONS as u128 {
            bindings.bind(key(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) << 32), &pod("a"), now, |_| true);
        }
        assert_eq!(bindings.len(), MAX_SESSIONS);
        assert_eq!(bindings.bound(key(0), now), None);
    }
}
