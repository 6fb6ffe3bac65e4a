//! Which flow of a band is served next, without a notion of cost: `global-strict-fairness-policy` (the best head of
//! all) and `round-robin-fairness-policy` (one request per flow in turn). Neither has parameters.

use crate::flow::settings::Fairness;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// The best head of all flows.
pub static GLOBAL_STRICT: PluginType =
    PluginType::new("global-strict-fairness-policy", Stability::Beta, |cx| build(cx, Fairness::GlobalStrict))
        .about(
            "Serves the flow whose first request comes first of all flows in the band.",
            "Use it where fairness between flows does not matter; it is the default. It costs one comparison \
         for each flow that waits.",
        );

/// One request per flow in turn.
pub static ROUND_ROBIN: PluginType =
    PluginType::new("round-robin-fairness-policy", Stability::Beta, |cx| build(cx, Fairness::RoundRobin))
        .about(
            "Serves one request of each flow in turn.",
            "Use it where no tenant of a band may crowd out the others. It costs one step in a list.",
        );

#[expect(clippy::unnecessary_wraps, reason = "the registry sets the signature")]
fn build(cx: &mut BuildCx<'_>, fairness: Fairness) -> Result<Roles, BuildError> {
    cx.no_params();
    Ok(Roles { fairness: Some(fairness), ..Roles::default() })
}
