//! The strategy that remembers which endpoint a session is bound to.

use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use xxhash_rust::xxh64::xxh64;

use super::bindings::{Bindings, SessionKey};
use super::profile::Profile;
use crate::request::Headers;
use crate::scheduling::{
    Call, Category, DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError, Scorer,
};

/// See the module.
#[derive(Debug)]
pub(super) struct SessionId {
    /// Lower case, in order of preference.
    headers: SmallVec<[String; 1]>,
    profile: Profile,
    /// Seeds of the two halves of a key, so that no client can make keys collide.
    seeds: [u64; 2],
    bindings: Mutex<Bindings>,
}

impl SessionId {
    pub(super) fn new(headers: SmallVec<[String; 1]>, profile: Profile, ttl: Duration, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let seeds = [rng.u64(..), rng.u64(..)];
        Self { headers, profile, seeds, bindings: Mutex::new(Bindings::new(ttl)) }
    }

    /// Key of the request's session: its first source that is not blank.
    fn session(&self, headers: &Headers) -> Option<SessionKey> {
        let mut values = self.headers.iter().filter_map(|header| headers.get(header));
        let id = values.find_map(|value| Some(value.trim_ascii()).filter(|id| !id.is_empty()))?;
        let [high, low] = self.seeds.map(|seed| u128::from(xxh64(id, seed)));
        Some(high << 64 | low)
    }
}

impl Scorer for SessionId {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let Some(session) = self.session(call.request.headers) else { return };
        let Some(bound) = self.bindings.lock().bound(session, call.now) else { return };
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            if *endpoint.id() == bound {
                *score = 1.0;
            }
        }
    }
}

impl PreRequest for SessionId {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        _headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        let Some(session) = self.session(decided.call.request.headers) else { return Ok(None) };
        let Some(result) = self.profile.result(decided.decision, decided.profiles) else { return Ok(None) };
        let Some(target) = result.targets.first() else { return Ok(None) };
        // A session is only moved if its endpoint was not to be had.
        let is_scored = |bound: &crate::pool::EndpointId| {
            let candidates = decided.call.candidates();
            result.scored.iter().any(|(slot, _)| candidates.at(*slot).id() == bound)
        };
        self.bindings.lock().bind(session, target.id(), decided.call.now, is_scored);
        Ok(None)
    }
}
