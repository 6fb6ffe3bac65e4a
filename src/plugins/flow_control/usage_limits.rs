//! How much of the pool each priority may fill.
//!
//! | type | parameter | default | meaning |
//! |---|---|---|---|
//! | `static-usage-limit-policy` | `threshold` | 1 | saturation at which everything is held |
//! | `priority-holdback-policy` | `minCeiling` | required | ceiling of the least important band, at least 0 and below 1 |
//! | | `maxCeiling` | 1 | ceiling of the most important band, above `minCeiling` and at most 1 |
//! | | `shape` | `linear` | the only one |
//! | | `domain` | `rank` | ceilings fall by the band's place (`rank`) or by its priority as a number (`value`) |
//! | `soft-reflective-ceiling-policy` | | | none |
//!
//! The formulas are in [`crate::flow::usage_limit`].

use schemars::JsonSchema;

use serde::Deserialize;

use crate::flow::settings::{HoldbackDomain, UsageLimit};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// One ceiling for all.
pub static STATIC: PluginType = PluginType::new("static-usage-limit-policy", Stability::Beta, fixed).about(
    "Holds all requests from one and the same saturation on.",
    "Use it to keep the pool fuller or emptier than the detector's thresholds say; it is the default. \
         It costs nothing.",
);

/// Ceilings that fall with the priority.
pub static PRIORITY_HOLDBACK: PluginType =
    PluginType::new("priority-holdback-policy", Stability::Alpha, holdback)
        .about(
            "Holds less important bands at a lower saturation than important ones.",
            "Use it to keep room for important requests before they come. It costs one sum for each band.",
        )
        .with_example("minCeiling: 0.5");

/// Ceilings that open more rarely the fuller the pool is.
pub static SOFT_REFLECTIVE_CEILING: PluginType =
    PluginType::new("soft-reflective-ceiling-policy", Stability::Alpha, soft_reflective).about(
        "Holds the lower bands more often the fuller the pool is.",
        "Use it where a hard ceiling would stop the lower bands for a long time. It costs one sum for each \
         band.",
    );

type Built = Result<Roles, BuildError>;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct StaticParams {
    /// How full the pool may be; at or below 0 everything is held.
    threshold: f64,
}

impl Default for StaticParams {
    fn default() -> Self {
        Self { threshold: 1.0 }
    }
}

fn fixed(cx: &mut BuildCx<'_>) -> Built {
    let StaticParams { threshold } = cx.params()?;
    if !threshold.is_finite() {
        return Err(BuildError::at("threshold", format!("got {threshold}, expected a number")));
    }
    if threshold <= 0.0 {
        cx.warn(format!("threshold: {threshold} holds every request for as long as it may wait"));
    }
    Ok(limit(UsageLimit::Static { threshold }))
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct HoldbackParams {
    /// How full the pool may be for the least important band, at least 0 and below 1; required.
    min_ceiling: Option<f64>,
    /// How full it may be for the most important band, above `minCeiling` and at most 1; 1 if it is absent.
    max_ceiling: Option<f64>,
    /// `linear`, the only one.
    shape: Option<String>,
    /// Bands between fall by their place (`rank`, the default) or by their priority as a number (`value`).
    domain: Option<String>,
}

fn holdback(cx: &mut BuildCx<'_>) -> Built {
    let params: HoldbackParams = cx.params()?;
    let min_ceiling = params.min_ceiling.ok_or_else(|| BuildError::at("minCeiling", "is required"))?;
    let max_ceiling = params.max_ceiling.unwrap_or(1.0);
    if !(0.0..1.0).contains(&min_ceiling) {
        let message = format!("got {min_ceiling}, expected a number of at least 0 and below 1");
        return Err(BuildError::at("minCeiling", message));
    }
    if !(max_ceiling > 0.0 && max_ceiling <= 1.0) {
        let message = format!("got {max_ceiling}, expected a number above 0 and at most 1");
        return Err(BuildError::at("maxCeiling", message));
    }
    if max_ceiling <= min_ceiling {
        let message = format!("got {max_ceiling}, expected more than `minCeiling` ({min_ceiling})");
        return Err(BuildError::at("maxCeiling", message));
    }
    if let Some(shape) = params.shape.filter(|shape| !["", "linear"].contains(&shape.as_str())) {
        return Err(BuildError::at("shape", format!("got \"{shape}\", expected \"linear\"")));
    }
    let domain = match params.domain.as_deref() {
        None | Some("" | "rank") => HoldbackDomain::Rank,
        Some("value") => HoldbackDomain::Value,
        Some(other) => {
            let message = format!("got \"{other}\", expected \"rank\" or \"value\"");
            return Err(BuildError::at("domain", message));
        }
    };
    Ok(limit(UsageLimit::PriorityHoldback { min_ceiling, max_ceiling, domain }))
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct NoParams {}

fn soft_reflective(cx: &mut BuildCx<'_>) -> Built {
    let NoParams {} = cx.params()?;
    Ok(limit(UsageLimit::SoftReflectiveCeiling))
}

fn limit(limit: UsageLimit) -> Roles {
    Roles { usage_limit: Some(limit), ..Roles::default() }
}
