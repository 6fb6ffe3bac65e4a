//! Which flow of a band is served next, without a notion of cost: `global-strict-fairness-policy` (the best head of
//! all) and `round-robin-fairness-policy` (one request per flow in turn). Neither has parameters.

use crate::flow::settings::Fairness;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// The best head of all flows.
pub static GLOBAL_STRICT: PluginType =
    row("global-strict-fairness-policy", |cx| build(cx, Fairness::GlobalStrict));

/// One request per flow in turn.
pub static ROUND_ROBIN: PluginType = row("round-robin-fairness-policy", |cx| build(cx, Fairness::RoundRobin));

const fn row(name: &'static str, build: fn(&mut BuildCx<'_>) -> Result<Roles, BuildError>) -> PluginType {
    PluginType { name, reports_as: name, stability: Stability::Beta, superseded: None, build }
}

#[expect(clippy::unnecessary_wraps, reason = "the registry sets the signature")]
fn build(cx: &mut BuildCx<'_>, fairness: Fairness) -> Result<Roles, BuildError> {
    cx.no_params();
    Ok(Roles { fairness: Some(fairness), ..Roles::default() })
}
