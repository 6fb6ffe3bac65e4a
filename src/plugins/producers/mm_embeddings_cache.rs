//! `mm-embeddings-cache-producer`: says which endpoint should still hold the embeddings of a request's images, videos
//! and sounds, from what this process sent where.
//!
//! An item is its URL or data: equal text is the same item. The decided request's items are remembered for the targets
//! of the primary profile, and for those of the encode stage if there is one, the oldest forgotten beyond the capacity
//! of an endpoint: `cacheSizeInMBPerServer / 2` items, as an embedding is taken for 2 MiB. Nobody is asked, so what an
//! engine really evicts goes unseen.
//!
//! Produces [`MediaMatch`] for each candidate. Requests without media produce nothing.
//!
//! Use it, with `mm-embeddings-cache-scorer`, where the same images come again. It costs a hash of each item, and a
//! probe for each item and candidate.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use smallvec::SmallVec;
use xxhash_rust::xxh64::xxh64;

use crate::metrics::EncoderCacheMetrics;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::prefix::Recency;
use crate::request::{MediaKind, Piece};
use crate::scheduling::{
    Call, Column, DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError, Produced, Producer,
    RequestView,
};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("mm-embeddings-cache-producer", Stability::Beta, build).about(
    "Estimates which endpoint holds the embeddings of a request's images, videos and sounds, from what \
         this process sent where.",
    "Use it, with mm-embeddings-cache-scorer, where the same images come again. It costs a hash of each \
         item, and a look-up for each item and candidate.",
);

const DEFAULT_CACHE_MIB: i64 = 4096;
/// MiB that an embedding is taken to fill.
const ITEM_MIB: i64 = 2;
/// Distinct items of a request that are looked at; a body may hold any number of tiny ones.
const MAX_REQUEST_ITEMS: usize = 256;
/// Kinds of items, in the order of their numbers.
const KINDS: [MediaKind; 3] = [MediaKind::Image, MediaKind::Audio, MediaKind::Video];
/// Items remembered for all endpoints together, about 30 MB.
const MAX_ITEMS: usize = 1 << 20;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Params {
    /// Size of an endpoint's embedding cache, in MiB; below 1 means 4096.
    #[serde(rename = "cacheSizeInMBPerServer")]
    cache_size_mib: i64,
}

/// How many of a request's media items one endpoint is believed to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaMatch {
    /// Items it holds.
    pub matched: u32,
    /// Distinct items of the request, at least 1.
    pub requested: u32,
}

/// The media items of a request: each with its kind and the hash of its content, and no two alike.
type Items = Vec<(MediaKind, u64)>;

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let mib = match params.cache_size_mib {
        ..1 => DEFAULT_CACHE_MIB,
        given => given,
    };
    let capacity = usize::try_from(mib / ITEM_MIB).unwrap_or(MAX_ITEMS).clamp(1, MAX_ITEMS);
    let plugin = Arc::new(MmEmbeddingsCache {
        matches: cx.produces(),
        items: cx.produces(),
        seed: cx.seed(),
        held: Mutex::new(CachedItems { capacity, servers: HashMap::new() }),
        metrics: cx.metrics().encoder_cache(TYPE.reports_as, cx.name()),
    });
    let roles = Roles { follows_endpoints: true, ..Roles::default() };
    let kept = Arc::clone(&plugin);
    let roles = roles.state(move || {
        let held = kept.held.lock();
        let items: usize = held.servers.values().map(Recency::len).sum();
        json!({ "endpoints": held.servers.len(), "items": items, "capacity_per_endpoint": held.capacity })
    });
    Ok(roles.producer(Arc::clone(&plugin) as _).pre_request(plugin))
}

#[derive(Debug)]
struct MmEmbeddingsCache {
    matches: Column<MediaMatch>,
    items: Column<Items>,
    /// Keeps clients from making items that collide.
    seed: u64,
    held: Mutex<CachedItems>,
    metrics: EncoderCacheMetrics,
}

/// Which endpoint holds which items.
#[derive(Debug)]
struct CachedItems {
    /// Items of an endpoint.
    capacity: usize,
    /// By incarnation: an endpoint that comes back begins with nothing.
    servers: HashMap<u64, Recency<u64, ()>>,
}

impl CachedItems {
    fn holds(&self, endpoint: &Endpoint, item: u64) -> bool {
        self.servers.get(&endpoint.incarnation()).is_some_and(|items| items.position(&item).is_some())
    }

    fn add(&mut self, endpoint: &Endpoint, items: &[(MediaKind, u64)]) {
        let servers = self.servers.len().max(1);
        let capacity = self.capacity.min(MAX_ITEMS / servers).max(1);
        let held = self.servers.entry(endpoint.incarnation()).or_default();
        for (_, item) in items {
            if let Some(index) = held.position(item) {
                held.touch(index);
                continue;
            }
            while held.len() >= capacity && held.pop_oldest().is_some() {}
            held.insert(*item, ());
        }
    }

    /// Forgets endpoints that are not among `all`.
    fn keep<'e>(&mut self, all: impl ExactSizeIterator<Item = &'e Arc<Endpoint>>) {
        if self.servers.len() > all.len() {
            let live: std::collections::HashSet<u64> = all.map(|endpoint| endpoint.incarnation()).collect();
            self.servers.retain(|incarnation, _| live.contains(incarnation));
        }
    }
}

impl MmEmbeddingsCache {
    fn items(&self, request: &RequestView<'_>) -> Items {
        let mut items = Items::new();
        for piece in &request.inference.prompt.pieces {
            let Piece::Media(kind, content) = piece else { continue };
            let hash = xxh64(content.text(request.body).as_bytes(), self.seed);
            if items.iter().all(|(_, known)| *known != hash) {
                items.push((*kind, hash));
            }
            if items.len() == MAX_REQUEST_ITEMS {
                break;
            }
        }
        items
    }
}

impl Producer for MmEmbeddingsCache {
    fn produce(&self, call: &Call<'_>) -> Result<SmallVec<[Produced; 1]>, String> {
        let mut produced = SmallVec::new();
        if !call.request.inference.prompt.has_media() {
            return Ok(produced);
        }
        let items = self.items(&call.request);
        for (kind, _) in &items {
            self.metrics.query(*kind);
        }
        let requested = items.len() as u32;
        let mut found = vec![[0u32; KINDS.len()]; call.candidates().len()];
        let held = self.held.lock();
        for (endpoint, found) in call.candidates().iter().zip(&mut found) {
            for (kind, _) in items.iter().filter(|(_, item)| held.holds(endpoint, *item)) {
                found[*kind as usize] += 1;
            }
        }
        drop(held);
        let mut cells = Vec::with_capacity(found.len());
        for (endpoint, found) in call.candidates().iter().zip(found) {
            for (kind, count) in KINDS.into_iter().zip(found).filter(|(_, count)| *count > 0) {
                self.metrics.hits(endpoint, kind, count.into());
            }
            let matched = found.iter().sum();
            self.metrics.ratio(f64::from(matched) / f64::from(requested.max(1)));
            cells.push(MediaMatch { matched, requested });
        }
        produced.push(Produced::new(self.matches, cells));
        produced.push(Produced::new(self.items, vec![items]));
        Ok(produced)
    }
}

impl PreRequest for MmEmbeddingsCache {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        _headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        let Some([items]) = decided.call.columns().slice(self.items) else { return Ok(None) };
        let decision = decided.decision;
        let mut held = self.held.lock();
        for endpoint in decision.targets().iter().chain(decision.encode_targets()) {
            held.add(endpoint, items);
        }
        held.keep(decided.call.candidates().snapshot().endpoints().iter());
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
