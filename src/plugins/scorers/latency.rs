//! `latency-scorer`: prefers endpoints by the headroom between their predicted latency and the request's objective.
//!
//! With predictions, one group of endpoints is scored and all others get 0: those that keep both objectives if there are
//! any; else the idle ones; else the first group that is not empty of those that miss the time between tokens alone, the
//! time to the first token alone, both. Inside of the group, with the headrooms `h` brought to 0..=1 by the least and
//! the largest (0.5 where all are the same) and weighted, `c = α·h_ttft + β·h_tpot`:
//! `least` gives `(⌊(1 − c) · 100⌋ + 1) / 100`, so that the endpoint with the least headroom is filled first, and `most`
//! gives `(⌊c · 100⌋ + 1) / 100`. Groups that miss an objective always take `least`. Where only one of the two differs
//! between endpoints, it counts alone.
//!
//! Without predictions the score is `kv · (1 − usage) + queue · (max − waiting) / max + prefix · m / n` with weights that
//! add up to 1, rounded to hundredths.
//!
//! Use it where clients name latency objectives. It costs two passes over the candidates.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::latency::LatencyPrediction;
use crate::plugins::producers::{approx_prefix_cache, predicted_latency};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::prefix::PrefixMatch;
use crate::scheduling::{Call, Category, Column, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("latency-scorer", Stability::Beta, build).about(
    "Prefers endpoints by the headroom between their predicted latency and the request's objective.",
    "Use it, with predicted-latency-producer, where clients name latency objectives. It costs two passes over the \
     candidates.",
);

/// Headrooms in milliseconds that differ by less are the same.
const SAME: f64 = 1e-9;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Weight of the time to the first token.
    ttft_weight: f64,
    /// Weight of the time between tokens.
    tpot_weight: f64,
    /// `least` fills the endpoint with the least headroom first; `most` spreads.
    headroom_selection_strategy: String,
    /// Weight of the free cache where nothing is predicted.
    #[serde(rename = "compositeKVWeight")]
    composite_kv_weight: f64,
    /// Weight of the queue where nothing is predicted.
    composite_queue_weight: f64,
    /// Weight of the cached prefix where nothing is predicted.
    composite_prefix_weight: f64,
    /// Instance that predicts.
    latency_prediction_info_producer_name: String,
    /// Instance that produces the matches.
    prefix_match_info_producer_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            ttft_weight: 0.8,
            tpot_weight: 0.2,
            headroom_selection_strategy: "least".to_owned(),
            composite_kv_weight: 1.0,
            composite_queue_weight: 1.0,
            composite_prefix_weight: 1.0,
            latency_prediction_info_producer_name: predicted_latency::TYPE.name.to_owned(),
            prefix_match_info_producer_name: approx_prefix_cache::TYPE.name.to_owned(),
        }
    }
}

/// Weights that add up to 1; the first alone if their sum is not above 0.
fn normalized<const N: usize>(weights: [f64; N]) -> [f64; N] {
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 {
        weights.map(|weight| weight / sum)
    } else {
        std::array::from_fn(|index| if index == 0 { 1.0 } else { 0.0 })
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let strategy = params.headroom_selection_strategy.as_str();
    if !matches!(strategy, "least" | "most" | "") {
        cx.warn(format!(
            "headroomSelectionStrategy: {strategy:?} is unknown, using `least`; `most` is the other"
        ));
    }
    let most = strategy == "most";
    Ok(Roles::default().scorer(Arc::new(LatencyScorer {
        predictions: cx
            .consumes(&params.latency_prediction_info_producer_name, Some(predicted_latency::TYPE.name)),
        matches: cx.consumes(&params.prefix_match_info_producer_name, Some(approx_prefix_cache::TYPE.name)),
        weights: normalized([params.ttft_weight, params.tpot_weight]),
        composite: normalized([
            params.composite_kv_weight,
            params.composite_queue_weight,
            params.composite_prefix_weight,
        ]),
        most,
    })))
}

#[derive(Debug)]
struct LatencyScorer {
    predictions: Column<LatencyPrediction>,
    matches: Column<PrefixMatch>,
    weights: [f64; 2],
    composite: [f64; 3],
    most: bool,
}

/// Groups of endpoints, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Keeps,
    Idle,
    MissesBetween,
    MissesFirst,
    MissesBoth,
}

fn group(prediction: &LatencyPrediction) -> Group {
    match (prediction.first_headroom < 0.0, prediction.between_headroom < 0.0) {
        (false, false) => Group::Keeps,
        _ if prediction.dispatched == 0 => Group::Idle,
        (false, true) => Group::MissesBetween,
        (true, false) => Group::MissesFirst,
        (true, true) => Group::MissesBoth,
    }
}

/// The least and the largest of some headrooms, which count by their size.
#[derive(Clone, Copy)]
struct Range {
    least: f64,
    largest: f64,
}

impl Range {
    fn of(headrooms: impl Iterator<Item = f64>) -> Self {
        headrooms.map(f64::abs).fold(Self { least: f64::INFINITY, largest: 0.0 }, |range, headroom| Self {
            least: range.least.min(headroom),
            largest: range.largest.max(headroom),
        })
    }

    fn is_one_value(self) -> bool {
        self.largest - self.least <= SAME
    }

    fn place(self, headroom: f64) -> f64 {
        if self.is_one_value() { 0.5 } else { (headroom.abs() - self.least) / (self.largest - self.least) }
    }
}

impl LatencyScorer {
    fn by_headroom<'p>(
        &self,
        predictions: impl ExactSizeIterator<Item = &'p LatencyPrediction> + Clone,
        out: &mut [f64],
    ) {
        let Some(best) = predictions.clone().map(group).min() else { return };
        let chosen = || predictions.clone().filter(|prediction| group(prediction) == best);
        let first = Range::of(chosen().map(|prediction| prediction.first_headroom));
        let between = Range::of(chosen().map(|prediction| prediction.between_headroom));
        let [alpha, beta] = match (first.is_one_value(), between.is_one_value()) {
            (false, true) => [1.0, 0.0],
            (true, false) => [0.0, 1.0],
            _ => self.weights,
        };
        let most = self.most && best == Group::Keeps;
        for (score, prediction) in out.iter_mut().zip(predictions) {
            if group(prediction) == best {
                let headroom = alpha * first.place(prediction.first_headroom)
                    + beta * between.place(prediction.between_headroom);
                let part = if most { headroom } else { 1.0 - headroom };
                *score = ((part * 100.0).trunc() + 1.0) / 100.0;
            }
        }
    }

    fn by_figures(&self, call: &Call<'_>, out: &mut [f64]) {
        let longest =
            call.endpoints().map(|endpoint| endpoint.load().waiting()).max().unwrap_or_default() as f64;
        let [kv, queue, prefix] = self.composite;
        let mut matches = call.column(self.matches);
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            let load = endpoint.load();
            let free = 1.0 - load.kv_usage();
            let short = if longest > 0.0 { (longest - load.waiting() as f64) / longest } else { 1.0 };
            let held = matches.as_mut().and_then(Iterator::next).map_or(0.0, PrefixMatch::fraction);
            *score = ((kv * free + queue * short + prefix * held) * 100.0).round() / 100.0;
        }
    }
}

impl Scorer for LatencyScorer {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        match call.columns().slice(self.predictions).filter(|cells| cells.len() == call.candidates().len()) {
            Some(cells) => {
                let predictions = call.slots().iter().filter_map(|slot| cells.get(*slot as usize));
                let predictions: Vec<&LatencyPrediction> = predictions.collect();
                self.by_headroom(predictions.iter().copied(), out);
            }
            None => self.by_figures(call, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::scheduling::{Columns, Produced};

    /// An endpoint with these headrooms and requests in flight.
    fn cell(first: f64, between: f64, dispatched: u64) -> LatencyPrediction {
        LatencyPrediction {
            first_headroom: first,
            between_headroom: between,
            first_valid: first > 0.0,
            between_valid: between >= 0.0,
            dispatched,
            ..LatencyPrediction::default()
        }
    }

    fn scores(params: Value, cells: &[LatencyPrediction]) -> Vec<f64> {
        let names = ["a", "b", "c", "d"];
        let mut fleet = Fleet::new(names[..cells.len()].iter().map(|name| pod(name)));
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        let mut columns = Columns::new();
        columns.insert(Produced::new(fleet.column("predicted-latency-producer"), cells.to_vec()));
        fleet.scores(&built.roles, &request("m"), &columns)
    }

    #[test]
    fn endpoints_are_scored_by_their_headroom_in_the_best_group() {
        let most = || json!({"headroomSelectionStrategy": "most"});
        for (params, cells, expected) in [
            // Least headroom first; the time between tokens is the same everywhere.
            (json!({}), vec![cell(10.0, 0.0, 3), cell(110.0, 0.0, 3)], vec![1.01, 0.01]),
            (most(), vec![cell(10.0, 0.0, 3), cell(110.0, 0.0, 3)], vec![0.01, 1.01]),
            // Both differ: 0.8 and 0.2.
            (json!({}), vec![cell(10.0, 9.0, 3), cell(110.0, 5.0, 3)], vec![0.81, 0.2]),
            (
                json!({"ttftWeight": 0, "tpotWeight": 2}),
                vec![cell(10.0, 9.0, 3), cell(110.0, 5.0, 3)],
                vec![0.01, 1.01],
            ),
            // All the same.
            (json!({}), vec![cell(10.0, 0.0, 3), cell(10.0, 0.0, 3)], vec![0.51, 0.51]),
            // Whoever keeps both goes before whoever does not, however idle.
            (json!({}), vec![cell(5.0, 0.0, 9), cell(-5.0, 0.0, 0)], vec![0.51, 0.0]),
            // Nobody keeps them: the idle ones, then by what they miss; always least.
            (most(), vec![cell(-50.0, 0.0, 0), cell(-5.0, 0.0, 4)], vec![0.51, 0.0]),
            (most(), vec![cell(-50.0, 0.0, 1), cell(-5.0, 0.0, 4)], vec![0.01, 1.01]),
            (
                json!({}),
                vec![cell(-5.0, -1.0, 1), cell(-5.0, 1.0, 1), cell(5.0, -9.0, 1)],
                vec![0.0, 0.0, 0.51],
            ),
            (json!({}), vec![cell(-5.0, -1.0, 1), cell(-5.0, 1.0, 1)], vec![0.0, 0.51]),
            (json!({"headroomSelectionStrategy": "best"}), vec![cell(-7.0, -1.0, 1)], vec![0.51]),
            (json!({}), vec![], vec![]),
        ] {
            let scores = scores(params.clone(), &cells);
            let close = scores.len() == expected.len()
                && scores.iter().zip(&expected).all(|(a, b): (&f64, &f64)| (a - b).abs() < 1e-9);
            assert!(close, "{params} {cells:?}: {scores:?} instead of {expected:?}");
        }
    }

    #[test]
    fn without_predictions_cache_queue_and_prefix_count() {
        let mut fleet = Fleet::new([pod("a").kv(0.2).waiting(0), pod("b").kv(0.5).waiting(4), pod("c")]);
        let built = fleet.build(&TYPE, None).unwrap();
        let columns = fleet.matches(&[0, 10, 5], 10);
        assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), [0.6, 0.5, 0.83]);
        assert_eq!(fleet.scores(&built.roles, &request("m"), &Columns::new()), [0.6, 0.17, 0.67]);
        let built = fleet
            .build(
                &TYPE,
                Some(json!({"compositeKVWeight": -1, "compositeQueueWeight": 0, "compositePrefixWeight": 0})),
            )
            .unwrap();
        assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), [0.8, 0.5, 1.0]);
    }

    #[test]
    fn an_unknown_strategy_is_warned_of() {
        let mut fleet = Fleet::new([]);
        let built = fleet.build(&TYPE, Some(json!({"headroomSelectionStrategy": "best"}))).unwrap();
        assert!(built.warnings[0].contains("using `least`"), "{:?}", built.warnings);
    }
}
