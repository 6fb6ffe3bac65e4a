//! Connectors that ask both servers at once.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::nixl::{P, decoded, kv, nixl, nx, settings};
use super::support::{Got, Made, Reply, ask, ok, play, shared};
use crate::sidecar::api::Api;
use crate::sidecar::connector::Connector;
use crate::sidecar::machine::{Leg, Rewrite};
use crate::sidecar::settings::{Moriio, Settings};
use crate::sidecar::target::Target;

#[test]
fn both_servers_of_sglang_get_the_same_body_and_meet_in_a_room() {
    let body = r#"{"model":"m","max_tokens":5,"stream":true}"#;
    let played = play(&shared(settings(Connector::SgLang)), ask(Api::Chat, body, &[P]), |_| ok("{}"));
    let prefill = played.one(Leg::Prefill).body();
    assert_eq!(prefill, played.one(Leg::Decode).body());
    assert_eq!((&prefill["bootstrap_host"], &prefill["bootstrap_port"]), (&json!("10.0.0.2"), &json!(8998)));
    assert!(prefill["bootstrap_room"].as_i64().unwrap() > 0);
    assert_eq!((&prefill["max_tokens"], &prefill["stream"]), (&json!(5), &json!(true)));
}

#[test]
fn a_decode_server_that_answers_all_the_same_does_not_need_the_prefill_server() {
    let played =
        play(&shared(settings(Connector::SgLang)), ask(Api::Chat, "{}", &[P]), |made| match made.leg {
            Leg::Prefill => Reply::Answer(500, String::new()),
            _ => ok("{}"),
        });
    assert_eq!(played.got, decoded(Rewrite::Nothing));
}

#[test]
fn a_decode_server_is_not_waited_for_when_the_prefill_server_has_failed() {
    for connector in [Connector::SgLang, Connector::Offloading] {
        let played = play(&shared(settings(connector)), ask(Api::Chat, "{}", &[P]), |made| match made.leg {
            Leg::Prefill => Reply::Answer(500, String::new()),
            _ => Reply::Hang,
        });
        assert_eq!(played.got, Got::Relayed(Leg::Prefill, Rewrite::Nothing), "{connector}");
        assert_eq!(played.cancelled, [Leg::Decode]);
        assert!(played.took <= Duration::from_secs(1));
        assert_eq!(played.outcome(), "failed/prefill_status");
    }
}

#[test]
fn mooncake_asks_for_the_engines_once_and_tells_both_servers_of_one_transfer() {
    let shared = shared(settings(Connector::Mooncake));
    let script = |made: &Made| match made.leg {
        Leg::Query => ok(r#"{"0":{"engine_id":"A"}}"#),
        _ => ok("{}"),
    };
    let played = play(&shared, ask(Api::Chat, "{}", &[P]), script);
    let query = played.one(Leg::Query);
    assert_eq!((query.to.as_str(), query.request.path), ("10.0.0.2:8998", Some("/query")));
    let prefill = played.one(Leg::Prefill);
    let id = prefill.body()["kv_transfer_params"]["transfer_id"].clone();
    assert!(id.as_str().unwrap().starts_with("xfer-"));
    assert_eq!(
        prefill.body(),
        json!({"max_tokens":1,"stream":false,"kv_transfer_params":{"do_remote_prefill":false,"do_remote_decode":true,"transfer_id":id}})
    );
    assert_eq!(prefill.header("x-data-parallel-rank").as_deref(), Some("0"));
    assert_eq!(
        played.one(Leg::Decode).body(),
        json!({"kv_transfer_params":{"do_remote_prefill":true,"do_remote_decode":false,"transfer_id":id,"remote_bootstrap_addr":"http://10.0.0.2:8998","remote_engine_id":"A"}})
    );
    assert!(play(&shared, ask(Api::Chat, "{}", &[P]), script).of(Leg::Query).is_empty());
    // A decode server that fails may have been told the id of an engine that is gone, so the ids are read again.
    let failing =
        |made: &Made| if made.leg == Leg::Decode { Reply::Answer(500, String::new()) } else { script(made) };
    play(&shared, ask(Api::Chat, "{}", &[P]), failing);
    assert_eq!(play(&shared, ask(Api::Chat, "{}", &[P]), script).of(Leg::Query).len(), 1);
}

#[test]
fn without_engines_mooncake_asks_nobody() {
    for reply in [Reply::Answer(404, String::new()), Reply::Hang, ok("{}")] {
        let played =
            play(&shared(settings(Connector::Mooncake)), ask(Api::Chat, "{}", &[P]), |_| reply.clone());
        assert_eq!(played.got, Got::Refused(StatusCode::BAD_GATEWAY), "{reply:?}");
        assert_eq!(played.made.len(), 1);
        assert!(played.took <= Duration::from_secs(5));
    }
}

fn source(mut ask: crate::sidecar::machine::Ask, text: &str) -> crate::sidecar::machine::Ask {
    ask.route.kv_source = Target::parse(text);
    ask
}

#[test]
fn offloading_names_one_request_to_both_servers_and_where_else_the_cache_is() {
    let offloading = || shared(settings(Connector::Offloading));
    let played = play(&offloading(), ask(Api::Chat, "{}", &[P]), |_| ok("{}"));
    let id = played.one(Leg::Prefill).body()["kv_transfer_params"]["remote_decoder"]["kv_request_id"].clone();
    assert_eq!(
        played.one(Leg::Prefill).body()["kv_transfer_params"],
        json!({"remote_decoder":{"kv_request_id":id}})
    );
    assert_eq!(
        played.one(Leg::Decode).body(),
        json!({"kv_transfer_params":{"remote_prefiller":{"kv_request_id":id,"remote_host":"10.0.0.2","remote_port":7777}}})
    );
    let played = play(&offloading(), source(ask(Api::Chat, "{}", &[P]), "10.0.0.7:8000"), |_| ok("{}"));
    let pull = played.one(Leg::Prefill).body()["kv_transfer_params"]["remote_kv_source"].clone();
    assert_eq!((&pull["remote_host"], &pull["remote_port"]), (&json!("10.0.0.7"), &json!(7777)));
    let played = play(&offloading(), source(ask(Api::Chat, "{}", &[P]), P), |_| ok("{}"));
    assert_eq!(played.one(Leg::Prefill).body()["kv_transfer_params"].get("remote_kv_source"), None);
    let played = play(&offloading(), source(ask(Api::Chat, "{}", &[]), "10.0.0.7:8000"), |_| ok("{}"));
    assert_eq!(
        played.one(Leg::Decode).body()["kv_transfer_params"]["remote_kv_source"]["remote_host"],
        "10.0.0.7"
    );
    assert_eq!(played.outcome(), "local/kv_source");
    let own = Settings { pod_ip: "10.0.0.7".parse().ok(), ..settings(Connector::Offloading) };
    let played = play(&shared(own), source(ask(Api::Chat, "{}", &[]), "10.0.0.7:8000"), |_| ok("{}"));
    assert_eq!(played.one(Leg::Decode).bytes(), b"{}");
}

#[test]
fn the_port_of_the_peer_to_peer_tier_follows_the_rank() {
    for (target, port) in [("10.0.0.2:8002", 7779), ("10.0.0.2:9000", 7777)] {
        let settings = Settings { ranks: 4, ..settings(Connector::Offloading) };
        let played = play(&shared(settings), ask(Api::Chat, "{}", &[target]), |_| ok("{}"));
        let parameters = played.one(Leg::Decode).body()["kv_transfer_params"]["remote_prefiller"].clone();
        assert_eq!(parameters["remote_port"], port, "{target}");
    }
}

#[test]
fn a_prefill_server_of_nixl_may_pull_a_part_of_the_cache() {
    let settings = Settings { p2p_pull: true, ..settings(Connector::NixlV2) };
    let played = play(&shared(settings), source(ask(Api::Chat, "{}", &[P]), "10.0.0.7:8000"), nixl);
    let mut parameters = played.one(Leg::Prefill).body()["kv_transfer_params"].clone();
    assert_eq!(parameters["remote_kv_source"]["remote_host"], "10.0.0.7");
    parameters.as_object_mut().unwrap().remove("remote_kv_source");
    assert_eq!(parameters, nx());
    assert_eq!(played.one(Leg::Decode).body()["kv_transfer_params"], kv());
}

fn moriio(parallel: bool) -> Settings {
    let moriio =
        Moriio { write_mode: true, parallel, local_ip: "10.1.1.1".into(), dp_size: 8, ..Moriio::default() };
    Settings { moriio, ..settings(Connector::NixlV2) }
}

#[test]
fn the_answer_of_a_parallel_write_waits_for_the_prefill_server() {
    let played = play(&shared(moriio(true)), ask(Api::Chat, "{}", &[P]), |made| match made.leg {
        Leg::Prefill => Reply::Answer(500, String::new()),
        _ => ok("{}"),
    });
    assert_eq!(
        (played.got, played.cancelled),
        (Got::Relayed(Leg::Prefill, Rewrite::Nothing), vec![Leg::Decode])
    );
    let played = play(&shared(moriio(true)), ask(Api::Chat, "{}", &[P]), |made| match made.leg {
        Leg::Prefill => Reply::Hang,
        _ => ok("{}"),
    });
    assert_eq!(
        (played.got, played.took),
        (Got::Refused(StatusCode::GATEWAY_TIMEOUT), Duration::from_secs(30))
    );
    let played = play(&shared(moriio(true)), ask(Api::Chat, "{}", &[P]), |_| ok("{}"));
    assert_eq!(played.got, decoded(Rewrite::Nothing));
    assert_eq!(
        played.one(Leg::Prefill).header("x-data-parallel-rank"),
        played.one(Leg::Decode).header("x-data-parallel-rank")
    );
}

#[test]
fn both_servers_of_a_write_work_at_the_same_rank() {
    for (answered, expected) in [(Some(3), Some("3")), (Some(99), None), (None, None)] {
        let played =
            play(&shared(moriio(false)), ask(Api::Chat, "{}", &[P]), |made| match (made.leg, answered) {
                (Leg::Prefill, Some(rank)) => {
                    ok(&format!(r#"{{"kv_transfer_params":{{"remote_dp_rank":{rank}}}}}"#))
                }
                _ => nixl(made),
            });
        let prefill = played.one(Leg::Prefill);
        let hash = prefill.header("x-data-parallel-rank");
        assert_eq!(prefill.body()["kv_transfer_params"]["remote_host"], "10.1.1.1");
        let decode = played.one(Leg::Decode);
        assert_eq!(decode.header("x-data-parallel-rank"), expected.map(str::to_owned).or(hash));
        assert_eq!(decode.body()["kv_transfer_params"]["remote_dp_rank_override"], true);
        assert_eq!(decode.body()["kv_transfer_params"]["remote_handshake_port"], 6301);
    }
}
