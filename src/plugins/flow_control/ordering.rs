//! Which request of a flow goes first: `fcfs-ordering-policy` (by arrival), `edf-ordering-policy` (by the end of its
//! wait) and `slo-deadline-ordering-policy` (by the time its first token is due). None has parameters.

use crate::flow::settings::Ordering;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// By arrival.
pub static FCFS: PluginType =
    PluginType::new("fcfs-ordering-policy", Stability::Beta, |cx| build(cx, Ordering::Fcfs)).about(
        "Serves the requests of a flow in the order of their arrival.",
        "Use it unless requests have deadlines; it is the default. It costs nothing.",
    );

/// By the end of the wait.
pub static EDF: PluginType =
    PluginType::new("edf-ordering-policy", Stability::Beta, |cx| build(cx, Ordering::Edf)).about(
        "Serves the request of a flow whose wait ends first.",
        "Use it where requests of one flow may wait for different times. It costs one comparison for each \
         level of a heap.",
    );

/// By the time the first token is due.
pub static SLO_DEADLINE: PluginType =
    PluginType::new("slo-deadline-ordering-policy", Stability::Beta, |cx| build(cx, Ordering::SloDeadline))
        .about(
            "Serves the request of a flow whose first token is due first.",
            "Use it where requests say how soon their first token is due. It costs one comparison for each \
         level of a heap.",
        );

#[expect(clippy::unnecessary_wraps, reason = "the registry sets the signature")]
fn build(cx: &mut BuildCx<'_>, ordering: Ordering) -> Result<Roles, BuildError> {
    cx.no_params();
    Ok(Roles { ordering: Some(ordering), ..Roles::default() })
}
