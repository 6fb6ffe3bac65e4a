//! `context-length-aware`: sends prompts to the servers that are meant for their length.
//!
//! A pod label, `llm-d.ai/context-length-range` by default, holds the range of lengths in tokens that a server is meant
//! for, as `min-max`. A prompt's length is that of its exact tokens, where somebody made them, else the estimate.
//!
//! As a scorer: within a range of the width `w`, a prompt of `n` tokens scores `0.3 + 0.7 · (0.7 / (1 + w / 10000) + 0.3
//! · (max − n) / w)`, and 1 if `w` is 0: narrow ranges win, and within one there should be room above. Outside it, at
//! the distance `d`, it scores `0.3 / (1 + d / 1000)`. A server without the label scores 0.5, and one whose label cannot
//! be read 0.
//!
//! As a filter, with `enableFiltering`: servers whose range holds the length stay, and so do those without the label.
//! Nobody may be left.
//!
//! Use it where some servers have room for long contexts and others do not. It costs a count of the
//! prompt's tokens, and one look-up of a label for each endpoint.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::prompt_size::prompt_size;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::scheduling::{Call, Category, Filter, Mask, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("context-length-aware", Stability::Beta, build).about(
    "Sends prompts to the servers that are meant for their length, which a label of each pod tells.",
    "Use it where some servers have room for long contexts and others do not. It costs a count of \
     the prompt's tokens, and one look-up of a label for each endpoint.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Pod label that holds the range, as `min-max`.
    label: String,
    /// Leave out servers whose range does not hold the prompt's length.
    enable_filtering: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self { label: "llm-d.ai/context-length-range".to_owned(), enable_filtering: false }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { label, enable_filtering } = cx.params()?;
    if label.is_empty() {
        return Err(BuildError::at("label", "must name a pod label"));
    }
    let plugin = Arc::new(ContextLengthAware { label });
    let roles = Roles::default().scorer(Arc::clone(&plugin) as _);
    Ok(if enable_filtering { roles.filter(plugin) } else { roles })
}

#[derive(Debug)]
struct ContextLengthAware {
    label: String,
}

/// The label of a server, as it was read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meant {
    /// Nothing.
    Unsaid,
    /// Something that is no range.
    Unreadable,
    /// For prompts of this many tokens, both ends included.
    For { min: u64, max: u64 },
}

impl Meant {
    fn read(label: Option<&str>) -> Self {
        let Some(text) = label else { return Self::Unsaid };
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let ends = text.split_once('-').and_then(|(min, max)| Some((number(min)?, number(max)?)));
        match ends {
            Some((min, max)) if min <= max => Self::For { min, max },
            _ => Self::Unreadable,
        }
    }

    fn admits(self, tokens: u64) -> bool {
        match self {
            Self::Unsaid => true,
            Self::Unreadable => false,
            Self::For { min, max } => (min..=max).contains(&tokens),
        }
    }

    fn score(self, tokens: u64) -> f64 {
        let Self::For { min, max } = self else { return if self == Self::Unsaid { 0.5 } else { 0.0 } };
        let width = (max - min) as f64;
        if !(min..=max).contains(&tokens) {
            let distance = min.saturating_sub(tokens).max(tokens.saturating_sub(max)) as f64;
            return 0.3 / (1.0 + distance / 1000.0);
        }
        if width == 0.0 {
            return 1.0;
        }
        let narrow = 1.0 / (1.0 + width / 10_000.0);
        let room = (max - tokens) as f64 / width;
        0.3 + 0.7 * (0.7 * narrow + 0.3 * room)
    }
}

impl ContextLengthAware {
    fn meant(&self, endpoint: &Endpoint) -> Meant {
        Meant::read(endpoint.label(&self.label))
    }
}

impl Filter for ContextLengthAware {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        let tokens = prompt_size(&call.request);
        keep.retain(call.endpoints(), |endpoint| self.meant(endpoint).admits(tokens));
    }
}

impl Scorer for ContextLengthAware {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let tokens = prompt_size(&call.request);
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *score = self.meant(endpoint).score(tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, Pod, Request, pod, request};
    use crate::scheduling::Columns;

    fn ranged(ranges: &[&str]) -> Vec<Pod> {
        let name = |number: usize| char::from(b'a' + number as u8).to_string();
        let pods = ranges.iter().enumerate();
        pods.map(|(number, range)| match *range {
            "" => pod(&name(number)),
            range => pod(&name(number)).label("llm-d.ai/context-length-range", range),
        })
        .collect()
    }

    fn scores(ranges: &[&str], tokens: usize) -> Vec<f64> {
        let mut fleet = Fleet::new(ranged(ranges));
        let built = fleet.build(&TYPE, None).unwrap();
        fleet.scores(&built.roles, &request("m").prompt(&"x".repeat(tokens * 4)), &Columns::new())
    }

    fn kept(params: Value, ranges: &[&str], tokens: usize) -> String {
        let mut fleet = Fleet::new(ranged(ranges));
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        fleet.kept(&built.roles, &request("m").prompt(&"x".repeat(tokens * 4))).concat()
    }

    #[test]
    fn narrow_ranges_with_room_win_and_distance_counts_outside() {
        for (range, tokens, expected) in [
            ("0-10000", 0, 0.3 + 0.7 * (0.7 * 0.5 + 0.3)),
            ("0-10000", 10_000, 0.3 + 0.7 * (0.7 * 0.5)),
            ("0-10000", 5000, 0.3 + 0.7 * (0.7 * 0.5 + 0.15)),
            ("0-1000", 500, 0.3 + 0.7 * (0.7 / 1.1 + 0.15)),
            (" 7 - 7 ", 7, 1.0),
            ("7-7", 8, 0.3 / 1.001),
            ("2000-3000", 1000, 0.15),
            ("0-1000", 3000, 0.1),
            ("", 100, 0.5),
            ("many", 100, 0.0),
            ("5", 5, 0.0),
            ("9-5", 6, 0.0),
            ("1-2-3", 2, 0.0),
            ("-5", 2, 0.0),
            ("0-99999999999999999999", 2, 0.0),
        ] {
            let score = scores(&[range], tokens)[0];
            assert!((score - expected).abs() < 1e-12, "{range} {tokens}: {score} instead of {expected}");
        }
        assert!(scores(&[], 5).is_empty());
    }

    #[test]
    fn with_filtering_servers_for_other_lengths_go_and_those_that_say_nothing_stay() {
        let on = json!({"enableFiltering": true});
        let ranges = ["0-100", "101-1000", "", "many", "50-200"];
        assert_eq!(kept(on.clone(), &ranges, 50), "ace");
        assert_eq!(kept(on.clone(), &ranges, 101), "bce");
        assert_eq!(kept(on.clone(), &ranges, 5000), "c");
        assert_eq!(kept(on.clone(), &["0-1"], 5000), "");
        assert_eq!(kept(on, &[], 1), "");
        let built = Fleet::new([]).build(&TYPE, None).unwrap();
        assert!(built.roles.filter.is_none(), "it filters on request only");
    }

    #[test]
    fn exact_tokens_count_before_the_estimate() {
        let mut fleet = Fleet::new(ranged(&["3-3", "100-100"]));
        let built = fleet.build(&TYPE, None).unwrap();
        let request = request("m").prompt(&"x".repeat(400));
        let best = |request: &Request| {
            let scores = fleet.scores(&built.roles, request, &Columns::new());
            scores.iter().position(|score| *score >= 1.0)
        };
        assert_eq!((best(&request), best(&request.clone().tokens([1, 2, 3]))), (Some(1), Some(0)));
    }

    #[test]
    fn an_empty_label_is_refused() {
        let error = Fleet::new([]).build(&TYPE, Some(json!({"label": ""}))).unwrap_err();
        assert_eq!(error.path, "label");
    }
}
