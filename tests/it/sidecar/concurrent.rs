//! Connectors that ask both servers at once, call by call.

use serde_json::{Value, json};

use super::connectors::{CHAT, Split};
use super::stub::{Step, Stub, answer, events};
use crate::support::holds;

fn uuid(value: &Value) -> &str {
    let text = value.as_str().unwrap();
    let shape: Vec<usize> = text.split('-').map(str::len).collect();
    assert_eq!(shape, [8, 4, 4, 4, 12], "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn sglang_sends_both_servers_the_same_body_with_a_room() {
    let split = Split::start(&["--kv-connector=sglang"], |_| answer(200, "", "{}"), |_| events(&["1"])).await;
    for _ in 0..2 {
        let reply = split.ask(CHAT, r#"{"model":"m","max_tokens":5,"stream":true}"#).await;
        assert_eq!(reply.text(), "data: 1\n\n");
        holds("both were asked", async || split.prefill.seen().len() == split.engine.seen().len()).await;
        assert_eq!(split.prefill.seen().last().unwrap().text(), split.engine.seen().last().unwrap().text());
    }
    let rooms: Vec<i64> =
        split.engine.seen().iter().map(|seen| seen.json()["bootstrap_room"].as_i64().unwrap()).collect();
    assert!(rooms[0] > 0 && rooms[0] != rooms[1], "{rooms:?}");
    let mut body = split.bodies().1;
    body["bootstrap_room"] = json!(0);
    assert_eq!(
        body,
        json!({"model": "m", "max_tokens": 5, "stream": true, "bootstrap_host": "127.0.0.1", "bootstrap_port": 8998, "bootstrap_room": 0})
    );
    split.sidecar.counted("remote", "transferred", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mooncake_asks_for_the_engines_id_once_and_then_both_servers() {
    let query = Stub::start(|_| answer(200, "", r#"{"3":{"engine_id":"A"},"4":{"engine_id":5}}"#)).await;
    let port = format!("--mooncake-bootstrap-port={}", query.port());
    let split = Split::start(
        &["--kv-connector=mooncake", &port],
        |_| answer(200, "", "{}"),
        |_| answer(200, "", "{}"),
    )
    .await;
    for _ in 0..2 {
        assert_eq!(
            split.ask(CHAT, r#"{"stream":true,"stream_options":{},"max_completion_tokens":9}"#).await.status,
            200
        );
    }
    holds("both were asked", async || split.prefill.seen().len() == 2).await;
    assert_eq!(query.only().line, "GET /query HTTP/1.1");
    let (mut prefill, mut decode) = split.bodies();
    let id = decode["kv_transfer_params"]["transfer_id"].take();
    assert_eq!(prefill["kv_transfer_params"]["transfer_id"].take(), id);
    uuid(&json!(id.as_str().unwrap().strip_prefix("xfer-").unwrap()));
    assert_eq!(
        prefill,
        json!({"stream": false, "max_tokens": 1, "max_completion_tokens": 1,
            "kv_transfer_params": {"do_remote_prefill": false, "do_remote_decode": true, "transfer_id": null}})
    );
    assert_eq!(
        decode,
        json!({"stream": true, "stream_options": {}, "max_completion_tokens": 9, "kv_transfer_params": {
            "do_remote_prefill": true, "do_remote_decode": false, "transfer_id": null, "remote_engine_id": "A",
            "remote_bootstrap_addr": format!("http://{}", query.addr)}})
    );
    assert_eq!(split.prefill.seen()[0].header("x-data-parallel-rank"), "3");
    assert_eq!(split.engine.seen()[0].all("x-data-parallel-rank"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mooncake_asks_nobody_where_the_bootstrap_server_names_no_engine() {
    for query in [answer(404, "", "{}"), answer(200, "", "{}"), answer(200, "", "no json"), vec![Step::Close]]
    {
        let query = Stub::start(move |_| query.clone()).await;
        let port = format!("--mooncake-bootstrap-port={}", query.port());
        let split = Split::start(
            &["--kv-connector=mooncake", &port],
            |_| answer(200, "", "{}"),
            |_| answer(200, "", "{}"),
        )
        .await;
        let reply = split.ask(CHAT, "{}").await;
        assert_eq!((reply.status, reply.json()["code"].clone()), (502, json!(502)));
        assert!(split.prefill.seen().is_empty() && split.engine.seen().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offloading_names_the_request_to_both_and_a_third_server_to_pull_from() {
    let split = Split::start(
        &["--kv-connector=offloading", "--p2p-connector-port=7700"],
        |_| answer(200, "", "{}"),
        |_| answer(200, "", "{}"),
    )
    .await;
    assert_eq!(split.ask(CHAT, "{}").await.status, 200);
    holds("both were asked", async || split.prefill.seen().len() == 1).await;
    let (prefill, decode) = split.bodies();
    let (to_prefill, to_engine) = (&prefill["kv_transfer_params"], &decode["kv_transfer_params"]);
    let id = uuid(&to_prefill["remote_decoder"]["kv_request_id"]).to_owned();
    assert_eq!(*to_prefill, json!({"remote_decoder": {"kv_request_id": id}}));
    assert_eq!(
        *to_engine,
        json!({"remote_prefiller": {"kv_request_id": id, "remote_host": "127.0.0.1", "remote_port": 7700}})
    );
    assert_eq!((prefill["max_tokens"].clone(), prefill["stream"].clone()), (json!(1), json!(false)));
    // With a source.
    let source = ("x-kv-cache-source-host-port", "10.0.0.7:8000");
    assert_eq!(split.ask_with(CHAT, &[source], "{}").await.status, 200);
    holds("both were asked", async || split.prefill.seen().len() == 2).await;
    let pulled = split.bodies().0["kv_transfer_params"].clone();
    let (own, other) = (
        uuid(&pulled["remote_decoder"]["kv_request_id"]),
        uuid(&pulled["remote_kv_source"]["kv_request_id"]),
    );
    assert_ne!(own, other);
    assert_eq!(
        pulled["remote_kv_source"],
        json!({"kv_request_id": other, "remote_host": "10.0.0.7", "remote_port": 7700})
    );
    // The prefill server itself is no source, and neither is what is no server.
    let target = split.prefill.addr.to_string();
    for value in [target.as_str(), ":8000", "abc"] {
        assert_eq!(split.ask_with(CHAT, &[("x-kv-cache-source-host-port", value)], "{}").await.status, 200);
    }
    holds("both were asked", async || split.prefill.seen().len() == 5).await;
    assert!(split.prefill.seen()[2..].iter().all(|seen| !seen.text().contains("remote_kv_source")));
    // Without a prefill server the engine pulls.
    let client = split.sidecar.client();
    assert_eq!(client.post_with(CHAT, &[source], r#"{"x":1}"#).await.status, 200);
    let body = split.bodies().1;
    assert_eq!(body["kv_transfer_params"]["remote_kv_source"]["remote_host"], "10.0.0.7");
    assert_eq!(body["kv_transfer_params"].as_object().unwrap().len(), 1);
    split.sidecar.counted("local", "kv_source", 1).await;
    client.post_with(CHAT, &[("x-kv-cache-source-host-port", "abc")], r#"{"x":1}"#).await;
    assert_eq!(split.engine.seen().last().unwrap().text(), r#"{"x":1}"#);
    assert!(split.engine.seen().iter().all(|seen| seen.all("x-kv-cache-source-host-port").is_empty()));
}
