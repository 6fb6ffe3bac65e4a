//! A program of one's own: Pointsman with a scorer that nobody else needs, without a fork.
//!
//! `zone-scorer` prefers endpoints whose label `topology.kubernetes.io/zone` is the zone that its parameter names.

use std::process::ExitCode;
use std::sync::Arc;

use pointsman::plugins::{BuildError, PluginType, Roles, Stability, registry_with};
use pointsman::scheduling::{Call, Category, Scorer};
use schemars::JsonSchema;
use serde::Deserialize;

/// The row of the registry.
static ZONE_SCORER: PluginType = PluginType::new("zone-scorer", Stability::Beta, |cx| {
    let Params { zone } = cx.params()?;
    if zone.is_empty() {
        return Err(BuildError::at("zone", "is required: the name of a zone"));
    }
    Ok(Roles::default().scorer(Arc::new(Zone { zone })))
})
.about(
    "Prefers endpoints in one zone.",
    "Use it where the servers of other zones should only take what is left. It costs one look-up of a label for \
     each endpoint.",
)
.with_example("zone: eu-west-1a");

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// The zone whose endpoints are preferred.
    zone: String,
}

struct Zone {
    zone: String,
}

impl Scorer for Zone {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            let zone = endpoint.label("topology.kubernetes.io/zone");
            *score = if zone == Some(self.zone.as_str()) { 1.0 } else { 0.0 };
        }
    }
}

fn main() -> ExitCode {
    match registry_with(&[&ZONE_SCORER]) {
        Ok(registry) => pointsman::cli::run_with(std::env::args_os(), registry),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
