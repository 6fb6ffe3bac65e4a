//! `lora-affinity-scorer`: prefers endpoints that have the requested LoRA adapter loaded, then those with room for one
//! more.
//!
//! For the target model: 1.0 if it is among the active adapters; else 0.8 if active and waiting adapters are fewer than
//! may be loaded; else 0.6 if it is among the waiting ones; else 0. An endpoint that reports no LoRA gets 0. Takes no
//! parameters. Cost: one set look-up an endpoint.

use std::sync::Arc;

use crate::plugins::{PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("lora-affinity-scorer", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().scorer(Arc::new(LoraAffinity)))
})
.about(
    "Prefers endpoints that have the requested LoRA adapter loaded, then those with room for one more.",
    "Use it where the servers load adapters on demand. It costs one look-up of a name for each \
         endpoint.",
);

#[derive(Debug)]
struct LoraAffinity;

impl Scorer for LoraAffinity {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let model = call.request.target_model;
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            let lora = endpoint.load().lora();
            let adapters = (lora.active.len() + lora.waiting.len()) as u64;
            *score = if lora.active.contains(model) {
                1.0
            } else if adapters < lora.max_active {
                0.8
            } else if lora.waiting.contains(model) {
                0.6
            } else {
                0.0
            };
        }
    }
}
