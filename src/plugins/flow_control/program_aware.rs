//! `program-aware-fairness`: the program that got the least service is served next, or the session that is deepest.
//!
//! | parameter | default | meaning |
//! |---|---|---|
//! | `strategy` | `las` | `las`: least attained service; `turn-priority`: deep sessions first |
//! | `lasWeightService` | 0.8 | weight of little service |
//! | `lasWeightHeadWait` | 0.2 | weight of the wait of a flow's head |
//! | `lasHalfLifeSeconds` | 60 | time after which service counts half; 0 counts it in full for good |
//! | `turnPriorityTimeWeight` | 0.05 | turns that a second of waiting is worth; 0 orders by depth alone |
//! | `turnPriorityInactivitySeconds` | 120 | idle time after which a session counts as new; 0 never |
//! | `evictionTtlSeconds` | 3600 | idle time after which a program is forgotten; 0 never forgets |
//! | `evictionSweepSeconds` | 300 | how often idle programs are looked for, above 0 |

use std::time::Duration;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::flow::settings::{Fairness, ProgramAware, TurnPriority};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("program-aware-fairness", Stability::Beta, build).about(
    "Serves the program that got the least service next, or the deepest session.",
    "Use it where agents or batch programs share a pool with short requests. It costs one pass over the \
         flows that wait, and a record for each program.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// `las`: next is the flow with the highest weighted sum of little service and long wait. `turn-priority`: deep
    /// sessions go first.
    strategy: String,
    /// Weight of little service, at least 0.
    las_weight_service: f64,
    /// Weight of the wait of a flow's head, at least 0.
    las_weight_head_wait: f64,
    /// Seconds after which service counts half; 0 counts it in full for good.
    las_half_life_seconds: f64,
    /// Turns that a second of waiting is worth; 0 orders by depth alone.
    turn_priority_time_weight: f64,
    /// Idle seconds after which a session counts as new; 0 never.
    turn_priority_inactivity_seconds: f64,
    /// Idle seconds after which a flow's service is forgotten; 0 never forgets.
    eviction_ttl_seconds: f64,
    /// Seconds between two looks for idle flows, above 0.
    eviction_sweep_seconds: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            strategy: "las".to_owned(),
            las_weight_service: 0.8,
            las_weight_head_wait: 0.2,
            las_half_life_seconds: 60.0,
            turn_priority_time_weight: 0.05,
            turn_priority_inactivity_seconds: 120.0,
            eviction_ttl_seconds: 3600.0,
            eviction_sweep_seconds: 300.0,
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let by_turns = match params.strategy.as_str() {
        "" | "las" => false,
        "turn-priority" => true,
        other => {
            let message = format!("got \"{other}\", expected \"las\" or \"turn-priority\"");
            return Err(BuildError::at("strategy", message));
        }
    };
    let least_service = las(cx, &params, !by_turns)?;
    let sessions = TurnPriority {
        time_weight: at_least_0("turnPriorityTimeWeight", params.turn_priority_time_weight)?,
        inactivity: or_never("turnPriorityInactivitySeconds", params.turn_priority_inactivity_seconds)?,
        eviction_ttl: least_service.eviction_ttl,
        eviction_sweep: least_service.eviction_sweep,
    };
    let fairness =
        if by_turns { Fairness::TurnPriority(sessions) } else { Fairness::ProgramAware(least_service) };
    Ok(Roles { fairness: Some(fairness), ..Roles::default() })
}

/// The parameters of `las`, checked whether they are in force or not.
fn las(cx: &mut BuildCx<'_>, params: &Params, in_force: bool) -> Result<ProgramAware, BuildError> {
    let weight_service = at_least_0("lasWeightService", params.las_weight_service)?;
    let weight_head_wait = at_least_0("lasWeightHeadWait", params.las_weight_head_wait)?;
    if in_force && weight_service == 0.0 && weight_head_wait == 0.0 {
        cx.warn("gives no preference: both weights are 0");
    }
    if !(weight_service + weight_head_wait).is_finite() {
        let message = format!(
            "got {weight_head_wait}, which with `lasWeightService` has no finite sum; expected weights near 1"
        );
        return Err(BuildError::at("lasWeightHeadWait", message));
    }
    Ok(ProgramAware {
        weight_service,
        weight_head_wait,
        half_life: or_never("lasHalfLifeSeconds", params.las_half_life_seconds)?
            .map(|half_life| at_least_a_second(cx, half_life)),
        eviction_ttl: or_never("evictionTtlSeconds", params.eviction_ttl_seconds)?,
        eviction_sweep: or_never("evictionSweepSeconds", params.eviction_sweep_seconds)?
            .ok_or_else(|| BuildError::at("evictionSweepSeconds", "got 0, expected a number above 0"))?,
    })
}

fn at_least_0(name: &str, value: f64) -> Result<f64, BuildError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(BuildError::at(name, format!("got {value}, expected a number of at least 0")))
}

/// Service that halves faster than requests end says nothing of a program.
fn at_least_a_second(cx: &mut BuildCx<'_>, half_life: Duration) -> Duration {
    const LEAST: Duration = Duration::from_secs(1);
    if half_life < LEAST {
        cx.warn(format!(
            "lasHalfLifeSeconds is {}, 1 is used: expected 0 (never) or at least 1",
            half_life.as_secs_f64()
        ));
    }
    half_life.max(LEAST)
}

/// A number of seconds; `None` for 0.
fn or_never(name: &str, value: f64) -> Result<Option<Duration>, BuildError> {
    let span = Duration::try_from_secs_f64(at_least_0(name, value)?);
    span.map(|span| Some(span).filter(|span| !span.is_zero()))
        .map_err(|_| BuildError::at(name, format!("got {value}, expected fewer seconds")))
}
