//! `predicted-latency-producer`: predicts for each endpoint how long it takes to the first token, and from token to
//! token.
//!
//! The predictions are made in the process (see [`crate::latency`]): no server of predictions and no server of training
//! is needed. Each answer that passes by is a sample. Where the predictions of the last hundred requests were worse than
//! the plain mean, and before twenty requests were answered, nothing is predicted, and what reads predictions goes by
//! other figures.
//!
//! With `p` the prediction and `s` the objective of the request (headers `x-llm-d-slo-ttft-ms`, `x-llm-d-slo-tpot-ms`),
//! the headroom is `s − p`, and the endpoint is valid if `p < s`. The limit of the time between tokens is the smaller of
//! the request's objective and the smallest one that is running at the endpoint, times `sloBufferFactor`; it counts in
//! `streamingMode` alone.
//!
//! Use it, with latency-scorer, where clients name latency objectives, or where servers differ in speed. It costs a few
//! multiplications an endpoint.

mod following;
mod models;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use smallvec::{SmallVec, smallvec};

use super::approx_prefix_cache;
use crate::clock;
use crate::latency::{LatencyKind, LatencyPrediction, Place, Situation};
use crate::plugins::latency_objective::objective;
use crate::plugins::load_producer::note_load_producer;
use crate::plugins::prompt_size::prompt_size;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::prefix::PrefixMatch;
use crate::scheduling::{
    Call, Column, DecidedCall, EndedCall, HeaderEdits, PluginState, PreRequest, PreRequestError, Produced,
    Producer, ResponseEndHook,
};
use following::Following;
use models::{Ahead, Shared};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("predicted-latency-producer", Stability::Beta, build).about(
    "Predicts for each endpoint how long it takes to the first token and from token to token.",
    "Use it, with latency-scorer, where clients name latency objectives or servers differ in speed. It costs a \
     few multiplications for each endpoint, and asks no other server.",
);

/// Value of the role label of servers that only prefill: they send no tokens.
const PREFILL: &str = "prefill";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Factor of the objective of the time between tokens; above 0.
    slo_buffer_factor: f64,
    /// Without effect: what is kept of a request goes with its stream.
    #[serde(rename = "contextTTL")]
    context_ttl: Option<Value>,
    /// Also predict the time between tokens. Only streamed answers teach then.
    streaming_mode: bool,
    /// Label of endpoints whose value names their type: types have models of their own, and `prefill` sends no tokens.
    endpoint_role_label: String,
    /// Predict; `false` only learns.
    predict_in_produce: bool,
    /// Instance that produces the matches.
    prefix_match_info_producer_name: String,
    /// Without effect: requests in flight are always counted.
    in_flight_load_producer_name: Option<String>,
    /// Without effect: media do not count in the prediction.
    use_encoder_cache_features: bool,
    /// Without effect, like `useEncoderCacheFeatures`.
    encoder_cache_match_info_producer_name: Option<String>,
    /// Without effect, as in the reference.
    sampling_mean: Option<f64>,
    /// Without effect, as in the reference.
    max_decode_token_samples_for_prediction: Option<i64>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            slo_buffer_factor: 1.0,
            context_ttl: None,
            streaming_mode: false,
            endpoint_role_label: String::new(),
            predict_in_produce: true,
            prefix_match_info_producer_name: approx_prefix_cache::TYPE.name.to_owned(),
            in_flight_load_producer_name: None,
            use_encoder_cache_features: false,
            encoder_cache_match_info_producer_name: None,
            sampling_mean: None,
            max_decode_token_samples_for_prediction: None,
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    if params.slo_buffer_factor <= 0.0 {
        let message = format!("is {}; it must be above 0", params.slo_buffer_factor);
        return Err(BuildError::at("sloBufferFactor", message));
    }
    note_load_producer(cx, params.in_flight_load_producer_name.as_deref());
    if params.use_encoder_cache_features {
        cx.warn("useEncoderCacheFeatures has no effect, media do not count in the prediction");
    }
    let metrics = cx.metrics().latency(TYPE.name, cx.name());
    let shared = Arc::new(Shared::new(metrics));
    let plugin = Arc::new(PredictedLatency {
        situations: cx.produces(),
        predictions: cx.produces(),
        matches: cx.consumes(&params.prefix_match_info_producer_name, Some(approx_prefix_cache::TYPE.name)),
        buffer: params.slo_buffer_factor,
        streaming: params.streaming_mode,
        role_label: params.endpoint_role_label,
        predicts: params.predict_in_produce,
        shared: Arc::clone(&shared),
    });
    let state = move || {
        let standing = |kind| {
            let standing = shared.standing(kind);
            json!({
                "inForce": standing.in_force, "samples": standing.samples, "errorRatio": standing.error,
            })
        };
        json!({
            "ttft": standing(LatencyKind::FirstToken), "tpot": standing(LatencyKind::BetweenTokens),
        })
    };
    Ok(Roles::default()
        .producer(Arc::clone(&plugin) as _)
        .pre_request(Arc::clone(&plugin) as _)
        .response_end(plugin)
        .state(state))
}

#[derive(Debug)]
struct PredictedLatency {
    situations: Column<Situation>,
    predictions: Column<LatencyPrediction>,
    matches: Column<PrefixMatch>,
    buffer: f64,
    streaming: bool,
    role_label: String,
    predicts: bool,
    shared: Arc<Shared>,
}

impl PredictedLatency {
    /// The role or type of an endpoint; empty without one.
    fn role<'e>(&self, endpoint: &'e Endpoint) -> &'e str {
        endpoint.spec().labels.get(&self.role_label).map_or("", String::as_str)
    }

    fn place(&self, endpoint: &Endpoint) -> Place {
        Place { endpoint: endpoint.incarnation(), kind: self.role(endpoint).into() }
    }

    fn situations(&self, call: &Call<'_>) -> Vec<Situation> {
        let queues = self.shared.queues();
        let situation = |endpoint: &Endpoint, uncached: u64| {
            let load = endpoint.load();
            let own = queues.get(&endpoint.incarnation()).map_or(0, |queue| queue.load(Relaxed));
            Situation {
                uncached_tokens: uncached as f64,
                queued_tokens: own.saturating_add(load.tokens_elsewhere()) as f64,
                running: load.in_flight() as f64,
                waiting: load.waiting() as f64,
                kv_usage: load.kv_usage(),
            }
        };
        let prompt = prompt_size(&call.request);
        match call.column(self.matches) {
            Some(matches) => call
                .endpoints()
                .zip(matches)
                .map(|(endpoint, held)| {
                    let cached = u64::from(held.matched) * u64::from(held.block_size);
                    situation(endpoint, prompt.saturating_sub(cached))
                })
                .collect(),
            None => call.endpoints().map(|endpoint| situation(endpoint, prompt)).collect(),
        }
    }

    fn predictions(&self, call: &Call<'_>, situations: &[Situation]) -> Option<Vec<LatencyPrediction>> {
        let wanted = objective(call.request.headers);
        let models = self.shared.models();
        if !models.standing(LatencyKind::FirstToken).in_force {
            return None;
        }
        let between = self.streaming && models.standing(LatencyKind::BetweenTokens).in_force;
        let running = between.then(|| self.shared.running());
        let mut cells = Vec::with_capacity(situations.len());
        for (endpoint, situation) in call.endpoints().zip(situations) {
            let (incarnation, role) = (endpoint.incarnation(), self.role(endpoint));
            let first = models.guess(LatencyKind::FirstToken, incarnation, role, situation)?;
            let mut cell = LatencyPrediction {
                first,
                first_headroom: wanted.first - first,
                first_valid: first < wanted.first,
                between_valid: true,
                dispatched: endpoint.load().in_flight(),
                ..LatencyPrediction::default()
            };
            if let Some(running) = &running
                && role != PREFILL
                && let Some(guess) = models.guess(LatencyKind::BetweenTokens, incarnation, role, situation)
            {
                let strictest = running.strictest(incarnation).unwrap_or(f64::INFINITY);
                let limit = strictest.min(wanted.between) * self.buffer;
                cell.between = guess;
                cell.between_headroom = limit - guess;
                cell.between_valid = guess < limit;
            }
            cells.push(cell);
        }
        Some(cells)
    }
}

impl Producer for PredictedLatency {
    fn produce(&self, call: &Call<'_>) -> Result<SmallVec<[Produced; 1]>, String> {
        let start = clock::now();
        let situations = self.situations(call);
        let predictions = if self.predicts { self.predictions(call, &situations) } else { None };
        self.shared.took(clock::now().saturating_duration_since(start));
        let mut produced: SmallVec<[Produced; 1]> = smallvec![Produced::new(self.situations, situations)];
        produced.extend(predictions.map(|cells| Produced::new(self.predictions, cells)));
        Ok(produced)
    }
}

impl PreRequest for PredictedLatency {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        _headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        let columns = decided.call.columns();
        let Some(target) = decided.decision.targets().first() else { return Ok(None) };
        let find = |wanted: &Arc<Endpoint>| {
            let mut all = decided.call.candidates().iter();
            all.position(|endpoint| Arc::ptr_eq(endpoint, wanted))
        };
        let situations = columns.slice(self.situations).unwrap_or_default();
        let ahead = |endpoint: &Arc<Endpoint>, kind| {
            let situation = *situations.get(find(endpoint)?)?;
            let place = self.place(endpoint);
            let guess = self.shared.models().guess(kind, place.endpoint, &place.kind, &situation);
            Some(Ahead { place, situation, guess })
        };
        // The first token is made where the prompt is processed.
        let first = decided.decision.prefill_target().unwrap_or(target);
        let of_first = find(first).and_then(|place| situations.get(place));
        let uncached = of_first.map_or(0.0, |situation| situation.uncached_tokens) as u64;
        let request = &decided.call.request;
        let wanted = objective(request.headers);
        let predictions = columns.slice(self.predictions);
        let predicted = predictions.and_then(|cells| cells.get(find(target)?));
        let model = request.inference.model_name(request.body).unwrap_or_default();
        let labels = self.shared.metrics.labels(&model, request.target_model);
        if let Some(predicted) = predicted {
            self.shared.note_decision(&labels, predicted, wanted);
        }
        Ok(Some(Box::new(Following {
            forwarded: clock::now(),
            first: ahead(first, LatencyKind::FirstToken),
            between: ahead(target, LatencyKind::BetweenTokens),
            wanted,
            queued: Some(self.shared.queue(first.incarnation(), uncached)),
            streaming: self.streaming,
            running: self.shared.begin(target.incarnation(), wanted.between),
            labels,
            shared: Arc::clone(&self.shared),
        })))
    }
}

fn following(state: &mut PluginState) -> Option<&mut Following> {
    state.as_mut()?.downcast_mut()
}

impl ResponseEndHook for PredictedLatency {
    fn on_first_byte(&self, now: Instant, streamed: bool, state: &mut PluginState) {
        if let Some(following) = following(state) {
            following.first_byte(now, streamed);
        }
    }

    fn on_response_end(&self, call: &EndedCall<'_>, state: &mut PluginState) {
        if let Some(following) = following(state) {
            following.ended(call);
        }
    }
}

#[cfg(test)]
mod tests;
