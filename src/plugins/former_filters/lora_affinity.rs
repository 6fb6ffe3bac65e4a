//! `lora-affinity-filter`, see the folder. Adapters are those of the last scrape; an endpoint without any known has
//! neither the adapter nor room.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::drawn::drawn;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("lora-affinity-filter", Stability::Beta, build)
    .superseded_by("lora-affinity-scorer", "v1.0.0 of the inference extension")
    .about(
        "Keeps endpoints that have the adapter of the request, or room for it.",
        "Use lora-affinity-scorer instead, which weighs adapters against other figures. It costs two passes over the \
         candidates.",
    );

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Probability with which the endpoints that have the adapter stay where others have room for it, 0..=1.
    threshold: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { threshold: 0.999 }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { threshold } = cx.params()?;
    if !(0.0..=1.0).contains(&threshold) {
        return Err(BuildError::at("threshold", format!("is {threshold}; it must lie in 0..=1")));
    }
    Ok(Roles::default().filter(Arc::new(LoraAffinity { threshold, seed: cx.seed() })))
}

#[derive(Debug)]
struct LoraAffinity {
    threshold: f64,
    seed: u64,
}

impl Filter for LoraAffinity {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        let model = call.request.target_model;
        let (mut having, mut roomy) = (keep.clone(), keep.clone());
        for (position, endpoint) in call.endpoints().enumerate() {
            let lora = endpoint.load().lora();
            let has = lora.active.contains(model) || lora.waiting.contains(model);
            let adapters = (lora.active.len() + lora.waiting.len()) as u64;
            if !has {
                having.clear(position);
            }
            if has || adapters >= lora.max_active {
                roomy.clear(position);
            }
        }
        let drawn = drawn(call.request.id, self.seed);
        let affine = match (having.count(), roomy.count()) {
            (0, _) => false,
            (_, 0) => true,
            _ => drawn < self.threshold,
        };
        *keep = if affine { having } else { roomy };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, Pod, pod, request};

    fn kept(threshold: f64, pods: impl IntoIterator<Item = Pod>) -> String {
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(&TYPE, Some(json!({"threshold": threshold}))).unwrap();
        fleet.kept(&built.roles, &request("m")).concat()
    }

    #[test]
    fn endpoints_with_the_adapter_stay_else_those_with_room() {
        let active = || pod("a").lora(&["m"], &[], 1);
        let waiting = || pod("b").lora(&["x"], &["m"], 2);
        let roomy = || pod("c").lora(&["x"], &[], 2);
        let full = || pod("d").lora(&["x"], &["y"], 2);
        assert_eq!(kept(1.0, [active(), waiting(), roomy(), full(), pod("e")]), "ab");
        assert_eq!(kept(0.0, [active(), waiting(), roomy(), full(), pod("e")]), "c");
        assert_eq!(kept(0.0, [active(), full()]), "a");
        assert_eq!(kept(1.0, [roomy(), full()]), "c");
        assert_eq!(kept(1.0, [full(), pod("e")]), "");
        assert_eq!(kept(1.0, []), "");
    }

    #[test]
    fn a_threshold_that_is_no_probability_is_refused() {
        let error = Fleet::new([]).build(&TYPE, Some(json!({"threshold": 1.5}))).unwrap_err();
        assert_eq!(error.path, "threshold");
    }
}
