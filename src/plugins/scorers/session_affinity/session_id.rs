//! The strategy that remembers which endpoint a session is bound to.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;
use xxhash_rust::xxh64::xxh64;

use super::bindings::{Bindings, SessionKey};
use super::profile::Profile;
use crate::plugins::producers::session_id::SessionIdData;
use crate::pool::{Endpoint, Snapshot};
use crate::prefix::{BlockHashes, Journal, SharedIndex};
use crate::request::Headers;
use crate::scheduling::{
    Call, Category, Column, Columns, DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError,
    Scorer,
};

/// Where the id of a session comes from.
#[derive(Debug)]
pub(super) enum IdSource {
    /// A request header, lower case.
    Header(String),
    /// The id that a producer of session ids found.
    Produced(Column<SessionIdData>),
}

impl IdSource {
    fn find<'a>(&self, headers: &'a Headers, columns: &'a Columns) -> Option<&'a [u8]> {
        let id: &Bytes = match self {
            Self::Header(name) => headers.get(name)?,
            Self::Produced(column) => columns.slice(*column)?.first().map(|SessionIdData(id)| id)?,
        };
        Some(id.trim_ascii()).filter(|id| !id.is_empty())
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct SessionId {
    /// In order of preference.
    sources: SmallVec<[IdSource; 1]>,
    profile: Profile,
    /// Seeds of the two halves of a key, so that no client can make keys collide.
    seeds: [u64; 2],
    bindings: Mutex<Bindings>,
    name: Box<str>,
    /// Where peers read which session went where; empty without peers.
    journal: OnceLock<(Arc<Journal>, u16)>,
}

/// Seeds that all replicas share. Whoever makes two ids collide has made two sessions of their own into one.
const SHARED_SEEDS: [u64; 2] = [1, 2];

impl SessionId {
    pub(super) fn new(
        sources: SmallVec<[IdSource; 1]>,
        profile: Profile,
        ttl: Duration,
        (name, seed): (&str, u64),
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let seeds = [rng.u64(..), rng.u64(..)];
        let bindings = Mutex::new(Bindings::new(ttl));
        Self { sources, profile, seeds, bindings, name: name.into(), journal: OnceLock::new() }
    }

    /// Key of the request's session: its first source that is not blank.
    fn session(&self, call: &Call<'_>) -> Option<SessionKey> {
        let (headers, columns) = (call.request.headers, call.columns());
        let id = self.sources.iter().find_map(|source| source.find(headers, columns))?;
        let seeds = if self.journal.get().is_some() { SHARED_SEEDS } else { self.seeds };
        let [high, low] = seeds.map(|seed| u128::from(xxh64(id, seed)));
        Some(high << 64 | low)
    }
}

impl Scorer for SessionId {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let Some(session) = self.session(call) else { return };
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
        let Some(session) = self.session(&decided.call) else { return Ok(None) };
        let Some(result) = self.profile.result(decided.decision, decided.profiles) else { return Ok(None) };
        let Some(target) = result.targets.first() else { return Ok(None) };
        // A session is only moved if its endpoint was not to be had.
        let is_scored = |bound: &crate::pool::EndpointId| {
            let candidates = decided.call.candidates();
            result.scored.iter().any(|(slot, _)| candidates.at(*slot).id() == bound)
        };
        let mut bindings = self.bindings.lock();
        bindings.bind(session, target.id(), decided.call.now, is_scored);
        if let Some((journal, number)) = self.journal.get()
            && bindings.bound(session, decided.call.now).is_some_and(|bound| bound == *target.id())
        {
            let key = [(session >> 64) as u64, session as u64];
            journal.add(*number, target, &BlockHashes::from_chains(0, &[&key]));
        }
        Ok(None)
    }
}

/// A session of a peer's is bound to where the peer has sent it last.
impl SharedIndex for SessionId {
    fn name(&self) -> &str {
        &self.name
    }

    fn share(&self, journal: &Arc<Journal>, number: u16) {
        let _ = self.journal.set((Arc::clone(journal), number));
    }

    fn follow(&self, _: &Snapshot) {}

    fn heard(&self, endpoint: &Endpoint, blocks: &BlockHashes) {
        if let [high, low] = *blocks.hashes() {
            let session = u128::from(high) << 64 | u128::from(low);
            self.bindings.lock().bind(session, endpoint.id(), Instant::now(), |_| false);
        }
    }
}
