//! Data producers: one file a plugin.

pub mod approx_prefix_cache;

use std::sync::Arc;

use crate::pool::Endpoint;
use crate::scheduling::DecidedCall;

/// Name of the profile whose target processes the prompt, where it is not the primary one's. The reference knows no other name.
const PREFILL_PROFILE: &str = "prefill";

/// The endpoints that will have the prompt in their caches: the first target of the primary profile, and of a profile named `prefill`.
pub(super) fn caching_targets<'a>(decided: &DecidedCall<'a>) -> impl Iterator<Item = &'a Arc<Endpoint>> {
    let decision = decided.decision;
    let prefill = decided.profiles.iter().position(|name| **name == *PREFILL_PROFILE);
    let results = [Some(decision.primary), prefill.filter(|&index| index != decision.primary)];
    results
        .into_iter()
        .flatten()
        .filter_map(|index| decision.profiles.get(index)?.as_ref())
        .filter_map(|result| result.targets.first())
}
