//! Which request of a flow goes first: `fcfs-ordering-policy` (by arrival), `edf-ordering-policy` (by the end of its
//! wait) and `slo-deadline-ordering-policy` (by the time its first token is due). None has parameters.

use crate::flow::settings::Ordering;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// By arrival.
pub static FCFS: PluginType = row("fcfs-ordering-policy", |cx| build(cx, Ordering::Fcfs));

/// By the end of the wait.
pub static EDF: PluginType = row("edf-ordering-policy", |cx| build(cx, Ordering::Edf));

/// By the time the first token is due.
pub static SLO_DEADLINE: PluginType =
    row("slo-deadline-ordering-policy", |cx| build(cx, Ordering::SloDeadline));

const fn row(name: &'static str, build: fn(&mut BuildCx<'_>) -> Result<Roles, BuildError>) -> PluginType {
    PluginType { name, reports_as: name, stability: Stability::Beta, superseded: None, build }
}

#[expect(clippy::unnecessary_wraps, reason = "the registry sets the signature")]
fn build(cx: &mut BuildCx<'_>, ordering: Ordering) -> Result<Roles, BuildError> {
    cx.no_params();
    Ok(Roles { ordering: Some(ordering), ..Roles::default() })
}
