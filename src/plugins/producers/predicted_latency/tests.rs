use std::time::Duration;

use super::*;
use crate::plugins::fixture::{Built, Fleet, Request, pod, request};
use crate::request::Api;
use crate::request::Usage;
use crate::scheduling::{Columns, EndedCall};

/// A fleet of two endpoints, `a` fast and `b` slow, of which the producer has learned `requests` answers each.
fn learned(params: Value, requests: u32) -> (Fleet, Built) {
    let mut fleet = Fleet::new([pod("a").label("kind", "fast"), pod("b").label("kind", "slow")]);
    let built = fleet.build(&TYPE, Some(params)).unwrap();
    for round in 0..requests {
        for (place, per_token) in [(0, 1.0), (1, 4.0)] {
            let length = 400 + (round * 97 % 10) * 800;
            let asked = request("m").prompt(&"x".repeat(length as usize));
            let columns = fleet.produce(&built.roles, &asked);
            let mut state = forward(&fleet, &built, &asked, &columns, place);
            let first =
                fleet_now(&state) + Duration::from_secs_f64(0.01 + per_token * f64::from(length / 4) / 1e4);
            state.first_byte(first, true);
            let usage = Usage { completion_tokens: 11, ..Usage::default() };
            let took = Duration::from_millis(100 * per_token as u64);
            end(&fleet, &mut state, first, took, Some(&usage));
        }
    }
    (fleet, built)
}

/// The whole answer has come, so long after its first byte.
fn end(fleet: &Fleet, state: &mut Following, first: Instant, took: Duration, usage: Option<&Usage>) {
    let decision = fleet.decision(&[Some(0)], &[0, 1]);
    state.ended(&EndedCall {
        api: Api::Completions,
        endpoint: &decision.targets()[0],
        decision: &decision,
        usage,
        succeeded: true,
        streamed: true,
        now: first + took,
        first_byte: Some(first),
        chunks: 11,
    });
}

fn fleet_now(state: &Following) -> Instant {
    state.forwarded
}

fn forward(fleet: &Fleet, built: &Built, request: &Request, columns: &Columns, place: usize) -> Following {
    let decision = fleet.decision(&[Some(place)], &[0, 1]);
    let profiles = ["default".into()];
    let state = fleet.call(request, columns, |call| {
        let decided = DecidedCall { call: *call, decision: &decision, profiles: &profiles };
        let hook = built.roles.pre_request.as_ref().unwrap();
        hook.before_forward(&decided, &mut HeaderEdits::default()).unwrap().unwrap()
    });
    *state.downcast().unwrap()
}

fn predictions(fleet: &Fleet, built: &Built, request: &Request) -> Option<Vec<LatencyPrediction>> {
    let columns = fleet.produce(&built.roles, request);
    columns.slice(fleet.column::<LatencyPrediction>(TYPE.name)).map(<[_]>::to_vec)
}

#[test]
fn nothing_is_predicted_before_there_were_answers() {
    let (fleet, built) = learned(json!({}), 0);
    assert_eq!(predictions(&fleet, &built, &request("m")), None);
    let page = fleet.page();
    assert!(page.contains("pointsman_latency_prediction_in_force{latency=\"ttft\""), "{page}");
}

#[test]
fn endpoints_are_predicted_by_what_they_took_and_objectives_make_headroom() {
    let (fleet, built) = learned(json!({"streamingMode": true}), 60);
    let ask =
        request("m").prompt(&"x".repeat(4000)).header("x-slo-ttft-ms", "250").header("x-slo-tpot-ms", "20");
    let cells = predictions(&fleet, &built, &ask).unwrap();
    // 1,000 tokens: 10 ms and 0.1 ms a token, or 0.4 ms a token; 10 ms or 40 ms from token to token.
    let [fast, slow] = cells.as_slice() else { panic!("{cells:?}") };
    assert!((fast.first - 110.0).abs() < 15.0 && (slow.first - 410.0).abs() < 50.0, "{cells:?}");
    assert!((fast.between - 10.0).abs() < 2.0 && (slow.between - 40.0).abs() < 5.0, "{cells:?}");
    assert!(fast.is_valid() && !slow.first_valid && !slow.between_valid, "{cells:?}");
    assert!((slow.first_headroom - (250.0 - slow.first)).abs() < 1e-9);
    // Without an objective the headroom is negative everywhere.
    let cells = predictions(&fleet, &built, &request("m")).unwrap();
    assert!(cells.iter().all(|cell| cell.first_headroom < 0.0 && !cell.first_valid));
}

#[test]
fn without_streaming_mode_the_time_between_tokens_is_no_matter() {
    let (fleet, built) = learned(json!({}), 60);
    let ask = request("m").header("x-slo-tpot-ms", "1");
    let cells = predictions(&fleet, &built, &ask).unwrap();
    assert!(cells.iter().all(|cell| cell.between_valid && cell.between_headroom == 0.0), "{cells:?}");
    let (fleet, built) = learned(json!({"predictInProduce": false}), 60);
    assert_eq!(predictions(&fleet, &built, &request("m")), None);
}

#[test]
fn the_strictest_objective_that_runs_at_an_endpoint_bounds_those_behind_it_while_it_runs() {
    let (fleet, built) = learned(json!({"streamingMode": true, "sloBufferFactor": 2}), 60);
    let strict = request("m").header("x-slo-tpot-ms", "6");
    let lax = request("m").header("x-slo-tpot-ms", "100");
    let columns = fleet.produce(&built.roles, &strict);
    let running = forward(&fleet, &built, &strict, &columns, 0);
    let cells = predictions(&fleet, &built, &lax).unwrap();
    // 6 ms · 2 less 10 ms; and 100 ms · 2 less 40 ms.
    assert!((cells[0].between_headroom - 2.0).abs() < 2.0 && cells[1].between_headroom > 150.0, "{cells:?}");
    drop(running);
    let cells = predictions(&fleet, &built, &lax).unwrap();
    assert!(cells[0].between_headroom > 180.0, "{cells:?}");
}

#[test]
fn endpoints_whose_role_is_prefill_send_no_tokens() {
    let mut fleet = Fleet::new([pod("a").label("role", "prefill")]);
    let built =
        fleet.build(&TYPE, Some(json!({"streamingMode": true, "endpointRoleLabel": "role"}))).unwrap();
    for round in 0..60 {
        let ask = request("m").prompt(&"x".repeat(400 * (round % 7 + 1)));
        let columns = fleet.produce(&built.roles, &ask);
        let decision = fleet.decision(&[Some(0)], &[0]);
        let profiles = ["default".into()];
        let mut state = fleet.call(&ask, &columns, |call| {
            let decided = DecidedCall { call: *call, decision: &decision, profiles: &profiles };
            let hook = built.roles.pre_request.as_ref().unwrap();
            hook.before_forward(&decided, &mut HeaderEdits::default()).unwrap().unwrap()
        });
        let first = Instant::now() + Duration::from_millis(20 * (round as u64 % 7 + 1));
        state.downcast_mut::<Following>().unwrap().first_byte(first, true);
    }
    let cells = predictions(&fleet, &built, &request("m").header("x-slo-tpot-ms", "1")).unwrap();
    assert!(cells[0].between_valid && cells[0].between == 0.0, "{cells:?}");
}

#[test]
fn answers_that_failed_teach_nothing_of_the_time_between_tokens() {
    let (fleet, built) = learned(json!({"streamingMode": true}), 0);
    let ask = request("m");
    let columns = fleet.produce(&built.roles, &ask);
    let mut state = forward(&fleet, &built, &ask, &columns, 0);
    let now = Instant::now();
    let decision = fleet.decision(&[Some(0)], &[0, 1]);
    state.ended(&EndedCall {
        api: Api::Completions,
        endpoint: &decision.targets()[0],
        decision: &decision,
        usage: None,
        succeeded: false,
        streamed: true,
        now: now + Duration::from_secs(1),
        first_byte: Some(now),
        chunks: 5,
    });
    let state = built.roles.state.as_ref().unwrap().read();
    assert_eq!(state["tpot"]["samples"], 0);
}

#[test]
fn a_buffer_that_is_not_above_zero_is_refused() {
    let mut fleet = Fleet::new([]);
    let error = fleet.build(&TYPE, Some(json!({"sloBufferFactor": 0}))).unwrap_err();
    assert_eq!(error.path, "sloBufferFactor");
    let built =
        fleet.build(&TYPE, Some(json!({"contextTTL": 300_000_000_000_i64, "samplingMean": 1000}))).unwrap();
    assert!(built.warnings.is_empty(), "{:?}", built.warnings);
    // No candidates.
    assert_eq!(predictions(&fleet, &built, &request("m")), None);
}
