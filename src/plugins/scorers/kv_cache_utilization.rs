//! `kv-cache-utilization-scorer`: prefers endpoints whose KV cache has room.
//!
//! `1 − usage`, the scraped share of KV-cache blocks in use. With `loadByAge` the prompts that
//! were sent since the reading count as well (`plugins/by_age.rs`). Cost: one pass over the candidates.

use std::sync::Arc;

use crate::plugins::by_age::ByAge;
use crate::plugins::{PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("kv-cache-utilization-scorer", Stability::Beta, |cx| {
    let by_age = ByAge::alone(cx)?;
    Ok(Roles::default().scorer(Arc::new(KvCacheUtilization { by_age })))
})
.about(
    "Prefers endpoints whose KV cache has room.",
    "Use it beside a queue scorer, so that long contexts do not push each other out of a cache. It \
         costs one pass over the candidates.",
);

#[derive(Debug)]
struct KvCacheUtilization {
    by_age: ByAge,
}

impl Scorer for KvCacheUtilization {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *score = 1.0 - self.by_age.kv_usage(endpoint.load());
        }
        self.by_age.choose(call, out);
    }
}
