//! Remembers which server made a response or a conversation. A request that refers to one of them must go to that
//! server.

use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh64::xxh64;

use crate::metrics::{BoundHit, StateMetrics};
use crate::pool::Endpoint;
use crate::prefix::Recency;
use crate::request::{self, Api, Inference, JsonStr};
use crate::scheduling::{Candidates, Decision};

/// A keyed hash of an id: ids come from clients and servers.
pub(super) type StateKey = u128;

/// Ids of what servers made, each with the incarnation of its server, in the order of their last use. About 60 bytes
/// each, whatever the ids' length.
#[derive(Debug)]
pub(super) struct ServerBindings {
    limit: usize,
    /// Seeds of the two halves of a key, so that nobody can make keys collide.
    seeds: [u64; 2],
    made: Mutex<Recency<StateKey, u64>>,
    metrics: StateMetrics,
}

impl ServerBindings {
    /// Room for `limit` ids; beyond it the one that was not used for longest is forgotten.
    pub(super) fn new(limit: usize, seed: u64, metrics: StateMetrics) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let seeds = [rng.u64(..), rng.u64(..)];
        Self { limit, seeds, made: Mutex::default(), metrics }
    }

    /// The response or conversation that a request to `path` continues or asks for.
    pub(super) fn referred(&self, path: &str, inference: &Inference, body: &[u8]) -> Option<StateKey> {
        let id = inference.state.or(inference.conversation).filter(|_| request::may_refer_to_state(path));
        match id {
            Some(id) => self.key_at(id, body),
            None => request::state_in_path(path).map(|id| self.key(id.as_bytes())),
        }
    }

    /// The conversation to which a request belongs that makes a response.
    pub(super) fn conversation(&self, api: Api, inference: &Inference, body: &[u8]) -> Option<StateKey> {
        self.key_at(inference.conversation.filter(|_| api == Api::Responses)?, body)
    }

    /// Key of the id at this place of the body, if it is no longer than ids are.
    fn key_at(&self, id: JsonStr, body: &[u8]) -> Option<StateKey> {
        let id = id.text(body);
        (!id.is_empty() && id.len() <= request::MAX_STATE_ID).then(|| self.key(id.as_bytes()))
    }

    /// Key of an id.
    pub(super) fn key(&self, id: &[u8]) -> StateKey {
        let [high, low] = self.seeds.map(|seed| u128::from(xxh64(id, seed)));
        high << 64 | low
    }

    /// Remembers that the endpoint of this incarnation has the state of this id's key.
    pub(super) fn bind(&self, key: StateKey, incarnation: u64) {
        let mut made = self.made.lock();
        if let Some(index) = made.position(&key) {
            if let Some(bound) = made.value_mut(index) {
                *bound = incarnation;
            }
            made.touch(index);
            return;
        }
        while made.len() >= self.limit && made.pop_oldest().is_some() {
            self.metrics.forgotten();
        }
        made.insert(key, incarnation);
    }

    /// Incarnation of the endpoint that made the state.
    fn bound(&self, key: StateKey) -> Option<u64> {
        let mut made = self.made.lock();
        let index = made.position(&key)?;
        made.touch(index);
        made.value(index).copied()
    }

    /// The same for a request that nobody sends: nothing is counted, and no state counts as used.
    pub(super) fn try_out(&self, key: StateKey, candidates: &Candidates, decision: &mut Decision) {
        let made = self.made.lock();
        let bound = made.position(&key).and_then(|index| made.value(index).copied());
        let endpoint =
            bound.and_then(|bound| candidates.iter().find(|endpoint| endpoint.incarnation() == bound));
        let primary = decision.primary;
        if let Some(endpoint) = endpoint
            && let Some(Some(result)) = decision.profiles.get_mut(primary)
        {
            result.targets.clear();
            result.targets.push(Arc::clone(endpoint));
        }
    }

    /// Sends the request to the endpoint that made the state it refers to, if that is a candidate; filters and scores
    /// do not count; true then. Otherwise the decision stays as it is. Profiles beside the primary one keep their choice.
    pub(super) fn apply(&self, key: StateKey, candidates: &Candidates, decision: &mut Decision) -> bool {
        let Some(incarnation) = self.bound(key) else {
            self.metrics.request(BoundHit::Unknown);
            return false;
        };
        let is_it = |endpoint: &&Arc<Endpoint>| endpoint.incarnation() == incarnation;
        let Some(endpoint) = candidates.iter().find(is_it) else {
            self.metrics.request(BoundHit::Gone);
            return false;
        };
        let primary = decision.primary;
        if let Some(Some(result)) = decision.profiles.get_mut(primary) {
            result.targets.clear();
            result.targets.push(Arc::clone(endpoint));
            self.metrics.request(BoundHit::Kept);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn beyond_the_bound_the_id_that_was_not_used_for_longest_is_forgotten() {
        let bindings = ServerBindings::new(2, 1, Metrics::new().state());
        let bound = |id: &str| bindings.bound(bindings.key(id.as_bytes()));
        let bind = |id: &str, server| bindings.bind(bindings.key(id.as_bytes()), server);
        bind("a", 1);
        bind("b", 2);
        assert_eq!(bound("a"), Some(1));
        bind("c", 3);
        assert_eq!((bound("a"), bound("b"), bound("c")), (Some(1), None, Some(3)));
        bind("a", 4);
        assert_eq!((bound("a"), bindings.made.lock().len()), (Some(4), 2));
    }
}
