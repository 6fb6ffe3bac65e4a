//! Connectors that ask one server after the other.

use http::StatusCode;
use serde_json::json;

use super::nixl::{KV, P, decoded, kv, nixl, nixl_v2, nx, settings};
use super::support::{Got, Made, Reply, ask, ok, play, shared};
use crate::sidecar::api::Api;
use crate::sidecar::connector::Connector;
use crate::sidecar::machine::{Leg, LegFailure, Rewrite};
use crate::sidecar::settings::{OnPrefillFailure, Settings};

#[test]
fn nixl_v2_asks_the_prefill_server_for_one_token_and_hands_its_parameters_on() {
    let body = r#"{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true},"max_tokens":50}"#;
    let played = nixl_v2(Api::Chat, body);
    assert_eq!(
        played.one(Leg::Prefill).body(),
        json!({"model":"m","messages":[],"stream":false,"max_tokens":1,"max_completion_tokens":1,"min_tokens":1,"kv_transfer_params":nx()})
    );
    assert_eq!(
        played.one(Leg::Decode).body(),
        json!({"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true},"max_tokens":50,"kv_transfer_params":kv()})
    );
    assert_eq!((played.one(Leg::Prefill).to.as_str(), played.one(Leg::Decode).to.as_str()), (P, "engine0"));
    assert_eq!(played.got, decoded(Rewrite::CachedTokens(0)));
    assert_eq!(played.outcome(), "remote/transferred");
    assert!(played.on_gone);
}

#[test]
fn limits_of_the_client_come_back_for_the_decode_server() {
    let played = nixl_v2(Api::Chat, "{}");
    assert_eq!(played.one(Leg::Decode).body(), json!({"kv_transfer_params":kv()}));
    let played = nixl_v2(Api::Chat, r#"{"max_completion_tokens":100,"min_tokens":5}"#);
    let prefill = played.one(Leg::Prefill).body();
    assert_eq!((&prefill["max_completion_tokens"], &prefill["min_tokens"]), (&json!(1), &json!(1)));
    let decode = played.one(Leg::Decode).body();
    assert_eq!((&decode["max_completion_tokens"], &decode["min_tokens"]), (&json!(100), &json!(5)));
}

#[test]
fn a_prefill_answer_without_parameters_is_a_recomputation_that_counters_tell() {
    for answer in ["{}", r#"{"kv_transfer_params":null}"#] {
        let played = play(&shared(settings(Connector::NixlV2)), ask(Api::Chat, "{}", &[P]), |_| ok(answer));
        assert_eq!(played.one(Leg::Decode).body(), json!({"kv_transfer_params":null}), "{answer}");
        assert_eq!(played.outcome(), "recompute/no_transfer_params");
        assert_eq!(played.notes.len(), 1);
    }
}

#[test]
fn what_the_client_says_of_transfers_is_replaced() {
    let played = nixl_v2(Api::Chat, r#"{"kv_transfer_params":{"a":1}}"#);
    assert_eq!(played.one(Leg::Prefill).body()["kv_transfer_params"], nx());
    assert_eq!(played.one(Leg::Decode).body()["kv_transfer_params"], kv());
}

#[test]
fn every_api_has_its_own_limit() {
    let played = nixl_v2(Api::Responses, r#"{"input":"x","max_output_tokens":64}"#);
    let prefill = played.one(Leg::Prefill).body();
    assert_eq!((&prefill["max_output_tokens"], prefill.get("max_tokens")), (&json!(1), None));
    assert_eq!(played.one(Leg::Decode).body()["max_output_tokens"], 64);
    let played =
        nixl_v2(Api::Generate, r#"{"token_ids":[1,2],"sampling_params":{"max_tokens":8,"temperature":0}}"#);
    assert_eq!(
        played.one(Leg::Prefill).body()["sampling_params"],
        json!({"max_tokens":1,"min_tokens":1,"temperature":0})
    );
    assert_eq!(played.one(Leg::Decode).body()["sampling_params"], json!({"max_tokens":8,"temperature":0}));
    let played = nixl_v2(Api::Generate, r#"{"token_ids":[1,2]}"#);
    assert_eq!(played.one(Leg::Prefill).body()["sampling_params"], json!({"max_tokens":1,"min_tokens":1}));
    assert_eq!(played.one(Leg::Decode).body().get("sampling_params"), None);
    let played = nixl_v2(Api::Messages, r#"{"max_tokens":30,"messages":[]}"#);
    assert_eq!(played.one(Leg::Prefill).body()["max_tokens"], 1);
    assert_eq!(played.one(Leg::Decode).body()["max_tokens"], 30);
}

#[test]
fn an_error_of_the_prefill_server_is_the_clients() {
    let fails = |status: u16| {
        play(&shared(settings(Connector::NixlV2)), ask(Api::Chat, "{}", &[P]), move |_| {
            Reply::Answer(status, String::new())
        })
    };
    for status in [400, 500, 503] {
        let played = fails(status);
        assert_eq!(played.got, Got::Relayed(Leg::Prefill, Rewrite::Nothing));
        assert!(played.of(Leg::Decode).is_empty());
        assert_eq!(played.outcome(), "failed/prefill_status");
    }
}

#[test]
fn attempts_are_repeated_after_a_pause_where_the_server_says_that_it_cannot() {
    let retries = || shared(Settings { retries: 2, ..settings(Connector::NixlV2) });
    let played = play(&retries(), ask(Api::Chat, "{}", &[P]), |_| Reply::Answer(503, String::new()));
    let times: Vec<_> = played.of(Leg::Prefill).iter().map(|made| made.after.as_millis()).collect();
    assert_eq!(times, [0, 200, 400]);
    assert_eq!(played.got, Got::Relayed(Leg::Prefill, Rewrite::Nothing));
    let mut first = true;
    let played = play(&retries(), ask(Api::Chat, "{}", &[P]), |made| {
        if made.leg == Leg::Prefill && std::mem::take(&mut first) {
            Reply::Answer(503, String::new())
        } else {
            nixl(made)
        }
    });
    assert_eq!((played.of(Leg::Prefill).len(), played.outcome().as_str()), (2, "remote/transferred"));
    let played = play(&retries(), ask(Api::Chat, "{}", &[P]), |_| Reply::Answer(500, String::new()));
    assert_eq!(played.of(Leg::Prefill).len(), 1);
    // The server may have read the first call, so the sidecar does not send it again.
    let played = play(&retries(), ask(Api::Chat, "{}", &[P]), |_| Reply::Fail(LegFailure::Reset));
    assert_eq!((played.of(Leg::Prefill).len(), played.got), (1, Got::Refused(StatusCode::BAD_GATEWAY)));
    let played = play(&retries(), ask(Api::Chat, "{}", &[P]), |_| Reply::Fail(LegFailure::Refused));
    assert_eq!((played.of(Leg::Prefill).len(), played.outcome().as_str()), (3, "failed/prefill_refused"));
}

#[test]
fn a_prefill_answer_that_is_no_json_ends_the_request() {
    let played = play(&shared(settings(Connector::NixlV2)), ask(Api::Chat, "{}", &[P]), |_| ok("not json"));
    assert_eq!(played.got, Got::Refused(StatusCode::BAD_REQUEST));
    assert_eq!(played.outcome(), "failed/prefill_garbage");
}

#[test]
fn an_engine_that_refuses_connections_is_not_ready() {
    let played =
        play(&shared(settings(Connector::NixlV2)), ask(Api::Chat, "{}", &[P]), |made| match made.leg {
            Leg::Decode => Reply::Fail(LegFailure::Refused),
            _ => nixl(made),
        });
    assert_eq!(played.got, Got::Refused(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(played.outcome(), "failed/decode_refused");
}

#[test]
fn the_prefill_servers_count_of_cached_tokens_is_the_clients() {
    for (api, usage, expected) in [
        (Api::Chat, r#"{"prompt_tokens_details":{"cached_tokens":7}}"#, 7),
        (Api::Responses, r#"{"input_tokens_details":{"cached_tokens":8}}"#, 8),
        (Api::Messages, r#"{"cache_read_input_tokens":9}"#, 9),
        (Api::Chat, r#"{"prompt_tokens_details":null}"#, 0),
        (Api::Chat, "null", 0),
    ] {
        let answer = format!(r#"{{"usage":{usage},"kv_transfer_params":{KV}}}"#);
        let played = play(&shared(settings(Connector::NixlV2)), ask(api, "{}", &[P]), |_| ok(&answer));
        assert_eq!(played.got, decoded(Rewrite::CachedTokens(expected)), "{usage}");
    }
}

#[test]
fn the_next_server_of_the_header_or_the_engine_steps_in_where_that_is_chosen() {
    let policy = |on_prefill_failure| shared(Settings { on_prefill_failure, ..settings(Connector::NixlV2) });
    let two = &[P, "10.0.0.3:8000"];
    let dead = |made: &Made| match made.to.as_str() {
        P => Reply::Fail(LegFailure::Reset),
        _ => nixl(made),
    };
    let played = play(&policy(OnPrefillFailure::Next), ask(Api::Chat, "{}", two), dead);
    assert_eq!(played.of(Leg::Prefill)[1].to, "10.0.0.3:8000");
    assert_eq!((played.outcome().as_str(), played.notes.len()), ("remote/transferred", 1));
    let played = play(&policy(OnPrefillFailure::Error), ask(Api::Chat, "{}", two), dead);
    assert_eq!((played.of(Leg::Prefill).len(), played.got), (1, Got::Refused(StatusCode::BAD_GATEWAY)));
    let played = play(&policy(OnPrefillFailure::Local), ask(Api::Chat, r#"{"a":1}"#, &[P]), dead);
    assert_eq!(played.one(Leg::Decode).bytes(), br#"{"a":1}"#);
    assert_eq!(played.outcome(), "recompute/prefill_failed");
    // A request that is at fault itself fails on every server.
    let played = play(&policy(OnPrefillFailure::Local), ask(Api::Chat, "{}", two), |_| {
        Reply::Answer(422, String::new())
    });
    assert_eq!((played.made.len(), played.got), (1, Got::Relayed(Leg::Prefill, Rewrite::Nothing)));
    // The engine takes only small bodies, and only a bounded number of them.
    let settings = Settings {
        on_prefill_failure: OnPrefillFailure::Local,
        local_per_second: 1,
        local_body_bytes: 10,
        ..settings(Connector::NixlV2)
    };
    let shared = shared(settings);
    let played = play(&shared, ask(Api::Chat, r#"{"a":"0123456789"}"#, &[P]), dead);
    assert_eq!(played.got, Got::Refused(StatusCode::BAD_GATEWAY));
    assert_eq!(play(&shared, ask(Api::Chat, "{}", &[P]), dead).outcome(), "recompute/prefill_failed");
    assert_eq!(play(&shared, ask(Api::Chat, "{}", &[P]), dead).outcome(), "failed/prefill_reset");
}

#[test]
fn shared_storage_sets_thresholds_and_says_nothing_of_transfers() {
    let played = play(
        &shared(settings(Connector::SharedStorage)),
        ask(Api::Chat, r#"{"max_tokens":9,"stream":true}"#, &[P]),
        |_| ok("{}"),
    );
    assert_eq!(
        played.one(Leg::Prefill).body(),
        json!({"max_tokens":1,"max_completion_tokens":1,"cache_hit_threshold":0,"stream":true})
    );
    assert_eq!(played.one(Leg::Decode).body(), json!({"max_tokens":9,"stream":true,"cache_hit_threshold":0}));
}

#[test]
fn shared_storage_asks_the_engine_first_where_the_client_names_a_threshold() {
    let finish = |reason: &str| format!(r#"{{"choices":[{{"finish_reason":"{reason}"}}]}}"#);
    for (stream, prefix) in [(false, ""), (true, "data: {\"choices\":[{\"delta\":{}}]}\n\ndata: ")] {
        let body = format!(r#"{{"cache_hit_threshold":0.8,"stream":{stream}}}"#);
        let answer = |reason: &str| ok(&format!("{prefix}{}", finish(reason)));
        let played =
            play(&shared(settings(Connector::SharedStorage)), ask(Api::Chat, &body, &[P]), |made| match made
                .leg
            {
                Leg::Probe => answer("cache_threshold"),
                _ => ok("{}"),
            });
        let thresholds: Vec<_> =
            played.made.iter().map(|made| (made.leg, made.body()["cache_hit_threshold"].clone())).collect();
        assert_eq!(thresholds, [(Leg::Probe, json!(0.8)), (Leg::Prefill, json!(0)), (Leg::Decode, json!(0))]);
        assert_eq!((played.got, played.outcomes.len()), (decoded(Rewrite::Nothing), 1));
        let played = play(&shared(settings(Connector::SharedStorage)), ask(Api::Chat, &body, &[P]), |_| {
            answer("stop")
        });
        assert_eq!(played.got, Got::Relayed(Leg::Probe, Rewrite::Nothing));
        assert_eq!(played.made.len(), 1);
        assert_eq!(played.outcome(), "local/cache_hit");
    }
    let played = play(
        &shared(settings(Connector::SharedStorage)),
        ask(Api::Chat, r#"{"cache_hit_threshold":null}"#, &[P]),
        |_| ok("no json"),
    );
    assert_eq!(played.got, Got::Refused(StatusCode::INTERNAL_SERVER_ERROR));
}

#[test]
fn the_first_protocol_of_nixl_copies_members_of_the_answer() {
    let answer = r#"{"remote_block_ids":[1],"remote_engine_id":"e","remote_host":"h","remote_port":9}"#;
    let played =
        play(&shared(settings(Connector::NixlV1)), ask(Api::Chat, r#"{"stream":true}"#, &[P]), |_| {
            ok(answer)
        });
    let prefill = played.one(Leg::Prefill).body();
    assert_eq!((&prefill["do_remote_decode"], &prefill["stream"]), (&json!(true), &json!(false)));
    assert_eq!(
        played.one(Leg::Decode).body(),
        json!({"stream":true,"do_remote_prefill":true,"remote_block_ids":[1],"remote_engine_id":"e","remote_host":"h","remote_port":9})
    );
}

#[test]
fn lmcache_says_nothing_in_the_body_of_the_decode_server() {
    let played =
        play(&shared(settings(Connector::LmCache)), ask(Api::Chat, r#"{"max_tokens":9}"#, &[P]), |_| {
            ok("{}")
        });
    assert_eq!(played.one(Leg::Prefill).body(), json!({"max_tokens":1,"max_completion_tokens":1}));
    assert_eq!(played.one(Leg::Decode).bytes(), br#"{"max_tokens":9}"#);
}
