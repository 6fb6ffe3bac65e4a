//! Each connector, call by call.

use bytes::Bytes;
use serde_json::{Value, json};

use super::running::Sidecar;
use super::stub::{Seen, Step, Stub, answer, events};
use crate::support::Reply;

/// A sidecar between a prefill server and an engine.
pub(super) struct Split {
    pub(super) prefill: Stub,
    pub(super) engine: Stub,
    pub(super) sidecar: Sidecar,
}

impl Split {
    /// A prefill server that answers by `prefill`, an engine that answers by `engine`.
    pub(super) async fn start(
        flags: &[&str],
        prefill: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
        engine: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let (prefill, engine) = (Stub::start(prefill).await, Stub::start(engine).await);
        let sidecar = Sidecar::start(&engine, flags).await;
        Self { prefill, engine, sidecar }
    }

    /// Asks with the prefill server in the header.
    pub(super) async fn ask(&self, path: &str, body: &str) -> Reply {
        self.ask_with(path, &[], body).await
    }

    /// The same with further headers.
    pub(super) async fn ask_with(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let target = self.prefill.addr.to_string();
        let headers = [&[("x-prefiller-host-port", target.as_str())], headers].concat();
        self.sidecar.client().post_with(path, &headers, Bytes::from(body.to_owned())).await
    }

    /// The newest bodies of the calls to both.
    pub(super) fn bodies(&self) -> (Value, Value) {
        (self.prefill.seen().last().unwrap().json(), self.engine.seen().last().unwrap().json())
    }
}

pub(super) const CHAT: &str = "/v1/chat/completions";

/// What a prefill server is told of the transfer.
fn keep() -> Value {
    json!({
        "do_remote_decode": true, "do_remote_prefill": false, "remote_engine_id": null,
        "remote_block_ids": null, "remote_host": null, "remote_port": null
    })
}

/// What a prefill server answers of it, as it stands there.
const KV: &str = r#"{ "do_remote_prefill":true,"do_remote_decode":false,"remote_engine_id":"e","remote_block_ids":[[1,2]],"remote_request_id":"r","remote_host":"10.0.0.2","remote_port":5600,"x":18446744073709551617}"#;

fn prefilled(usage: &str) -> Vec<Step> {
    answer(
        200,
        "content-type: application/json\r\n",
        &format!(r#"{{"id":"p","kv_transfer_params":{KV}{usage}}}"#),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nixl_hands_the_prefill_servers_parameters_to_the_engine_letter_for_letter() {
    let split = Split::start(&[], |_| prefilled(""), |_| events(&["{\"x\":1}", "[DONE]"])).await;
    let body = r#"{ "model":"m", "seed":12345678901234567890, "messages":[],"stream":true,"stream_options":{"include_usage":true},"max_tokens":50}"#;
    let reply = split
        .ask_with(
            CHAT,
            &[("authorization", "Bearer t"), ("x-request-id", "mine"), ("accept-encoding", "gzip")],
            body,
        )
        .await;
    assert_eq!((reply.status, reply.text()), (200, "data: {\"x\":1}\n\ndata: [DONE]\n\n"));
    let (prefill, engine) = (split.prefill.only(), split.engine.only());
    assert_eq!(
        prefill.json(),
        json!({
            "model": "m", "seed": 12_345_678_901_234_567_890_u64, "messages": [], "stream": false, "max_tokens": 1,
            "max_completion_tokens": 1, "min_tokens": 1, "kv_transfer_params": keep()
        })
    );
    let rest = body.strip_prefix('{').unwrap();
    assert_eq!(engine.text(), format!("{{\"kv_transfer_params\":{KV},{rest}"));
    for seen in [&prefill, &engine] {
        assert_eq!(seen.line, format!("POST {CHAT} HTTP/1.1"));
        assert_eq!((seen.all("authorization"), seen.all("x-request-id")), (vec!["Bearer t"], vec!["mine"]));
        assert_eq!(seen.all("x-prefiller-host-port"), [""; 0]);
        assert_eq!(seen.header("content-length"), seen.body.len().to_string());
    }
    // The prefill server's answer is read here, and must not be compressed.
    assert_eq!((prefill.header("accept-encoding"), engine.header("accept-encoding")), ("", "gzip"));
    split.sidecar.counted("remote", "transferred", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nixl_caps_what_each_api_calls_its_limits_and_gives_the_engine_the_clients() {
    let split = Split::start(&[], |_| prefilled(""), |_| answer(200, "", "{}")).await;
    let kv: Value = serde_json::from_str(KV).unwrap();
    let cases = [
        (CHAT, r#"{"messages":[]}"#, json!({"max_tokens": 1, "max_completion_tokens": 1, "min_tokens": 1})),
        (
            CHAT,
            r#"{"max_completion_tokens":100,"min_tokens":5}"#,
            json!({"max_tokens": 1, "max_completion_tokens": 1, "min_tokens": 1}),
        ),
        ("/v1/completions", r#"{"prompt":"x","kv_transfer_params":{"a":1}}"#, json!({"max_tokens": 1})),
        ("/v1/responses", r#"{"input":"x","max_output_tokens":64}"#, json!({"max_output_tokens": 1})),
        ("/v1/messages", r#"{"max_tokens":30,"messages":[]}"#, json!({"max_tokens": 1})),
        (
            "/inference/v1/generate",
            r#"{"token_ids":[1,2],"sampling_params":{"max_tokens":8,"temperature":0}}"#,
            json!({"sampling_params": {"max_tokens": 1, "temperature": 0}}),
        ),
        ("/inference/v1/generate", r#"{"token_ids":[1]}"#, json!({"sampling_params": {"max_tokens": 1}})),
    ];
    for (path, body, caps) in cases {
        let reply = split.ask(path, body).await;
        assert_eq!(reply.status, 200, "{path} {reply:?}");
        let (mut prefill, decode) = split.bodies();
        let mut wanted: Value = serde_json::from_str(body).unwrap();
        wanted["kv_transfer_params"] = kv.clone();
        assert_eq!(decode, wanted, "{path} {body}");
        assert_eq!(prefill["kv_transfer_params"], keep(), "{path}");
        assert_eq!(prefill["stream"], false, "{path}");
        if path.ends_with("generate") {
            let minimum = prefill["sampling_params"].as_object_mut().unwrap().remove("min_tokens");
            assert_eq!(minimum, Some(json!(1)));
            assert_eq!(prefill["sampling_params"], caps["sampling_params"]);
        }
        for (name, value) in caps.as_object().unwrap() {
            assert_eq!(prefill[name], *value, "{path} {body} {name}");
        }
        assert_eq!(prefill.get("max_tokens").is_some(), caps.get("max_tokens").is_some(), "{path}");
        assert_eq!(split.prefill.seen().last().unwrap().path(), path);
        assert_eq!(split.engine.seen().last().unwrap().path(), path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_parameters_the_engine_processes_the_prompt_again_and_counters_and_log_tell_it() {
    let split = Split::start(
        &[],
        |seen| {
            answer(
                200,
                "",
                if seen.text().contains("null") && seen.text().contains("\"n\"") {
                    r#"{"kv_transfer_params":null}"#
                } else {
                    "{}"
                },
            )
        },
        |_| answer(200, "", "{}"),
    )
    .await;
    for body in [r#"{"a":1}"#, r#"{"n":1}"#] {
        assert_eq!(split.ask(CHAT, body).await.status, 200);
        assert_eq!(split.bodies().1["kv_transfer_params"], Value::Null);
    }
    split.sidecar.counted("recompute", "no_transfer_params", 2).await;
    let mut split = split;
    let warned = |line: &str| line.contains("hands over no cache").then_some(());
    split.sidecar.process.line("warning", warned).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_says_how_much_of_the_prompt_the_prefill_server_had() {
    let large = "y".repeat(100_000);
    let (text, stream) = (large.clone(), large.clone());
    let split = Split::start(
        &[],
        |seen| {
            let cached = if seen.text().contains("\"none\"") {
                ""
            } else {
                r#","usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":7}}"#
            };
            prefilled(cached)
        },
        move |seen| {
            if seen.text().contains("\"stream\":true") {
                return events(&[
                    &format!(r#"{{"choices":[{{"delta":"{stream}"}}],"usage":null}}"#),
                    r#"{ "choices":[],"usage":{"prompt_tokens":9}}"#,
                    "[DONE]",
                ]);
            }
            answer(
                200,
                "content-type: application/json\r\n",
                &format!(r#"{{"text":"{text}","usage":{{"prompt_tokens":9}} }}"#),
            )
        },
    )
    .await;
    for (body, cached) in [(r#"{"a":1}"#, 7), (r#"{"none":1}"#, 0)] {
        let reply = split.ask(CHAT, body).await;
        assert_eq!(reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"], cached, "{body}");
        assert_eq!(reply.json()["text"], large.as_str());
    }
    let reply = split.ask(CHAT, r#"{"stream":true}"#).await;
    let events: Vec<&str> = reply.text().split("\n\n").collect();
    assert_eq!(events[0], format!(r#"data: {{"choices":[{{"delta":"{large}"}}],"usage":null}}"#));
    let usage: Value = serde_json::from_str(events[1].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(usage["usage"], json!({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 7}}));
    assert_eq!(events[2], "data: [DONE]");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_names_prefill_servers_in_all_the_ways_of_releases() {
    let split = Split::start(&[], |_| prefilled(""), |_| answer(200, "", "{}")).await;
    let target = split.prefill.addr.to_string();
    let (url, first, second) =
        (format!("http://{target}"), format!(" {target}, 127.0.0.1:1"), format!("127.0.0.1:1,{target}"));
    let cases = [
        (vec![("x-prefiller-host-port", url.as_str())], 200, true),
        (vec![("x-prefiller-host-port", first.as_str())], 200, true),
        (vec![("x-prefiller-host-port", second.as_str())], 502, false),
        (
            vec![("x-prefiller-host-port", target.as_str()), ("x-prefiller-host-port", "127.0.0.1:1")],
            200,
            true,
        ),
        (vec![("x-prefiller-url", url.as_str())], 200, true),
        (vec![("x-prefiller-host-port", ""), ("x-prefiller-url", target.as_str())], 200, true),
        (vec![("x-prefiller-host-port", "")], 200, false),
        (vec![("x-prefiller-host-port", "  ")], 200, false),
        (vec![("x-prefiller-host-port", "https://10.0.0.2:1")], 502, false),
        (vec![("x-prefiller-host-port", "no host")], 502, false),
    ];
    for (headers, status, asked) in cases {
        let before = split.prefill.seen().len();
        let reply = split.sidecar.client().post_with(CHAT, &headers, "{}").await;
        assert_eq!(reply.status, status, "{headers:?} {reply:?}");
        assert_eq!(split.prefill.seen().len() - before, usize::from(asked), "{headers:?}");
        if status == 502 {
            assert_eq!(reply.header("content-type"), "application/json");
            assert_eq!(reply.json()["code"], 502);
        }
    }
    // On any other path the header means nothing.
    let before = split.prefill.seen().len();
    assert_eq!(split.ask("/v1/embeddings", "{}").await.status, 200);
    assert_eq!(split.prefill.seen().len(), before);
    for seen in split.engine.seen() {
        assert!(seen.headers.iter().all(|(name, _)| !name.starts_with("x-prefiller")), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_object_are_refused_where_they_must_be_read_and_pass_where_not() {
    let split = Split::start(&[], |_| prefilled(""), |seen| answer(200, "", seen.text())).await;
    for body in ["[1]", "{", "", "null", r#"{"a":1}}"#] {
        let reply = split.ask_with(CHAT, &[("x-request-id", "mine")], body).await;
        assert_eq!((reply.status, reply.header("content-type")), (400, "application/json"), "{body}");
        assert_eq!(
            (reply.json()["type"].clone(), reply.header("x-request-id")),
            (json!("BadRequestError"), "mine")
        );
        assert_eq!(split.sidecar.client().post_with(CHAT, &[], body.to_owned()).await.text(), body);
    }
    assert!(split.prefill.seen().is_empty());
    split.sidecar.counted("failed", "body", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfer_parameters_of_clients_reach_the_engine_only_where_the_operator_trusts_them() {
    let engine = Stub::plain().await;
    let body = r#"{"kv_transfer_params":{"remote_host":"evil"},"ec_transfer_params":{"a":1},"sampling_params":{"extra_args":{"kv_transfer_params":{"b":1}}},"x":1}"#;
    for (flags, there) in [(&[][..], false), (&["--trust-client-transfer-params"], true)] {
        let sidecar = Sidecar::start(&engine, flags).await;
        for path in [CHAT, "/inference/v1/generate"] {
            sidecar.client().post_with(path, &[], body).await;
            let seen = engine.seen().last().unwrap().clone();
            assert_eq!(seen.json()["x"], 1);
            for word in ["evil", "ec_transfer_params", "extra_args"] {
                let expected = there || word == "extra_args";
                assert_eq!(seen.text().contains(word), expected, "{flags:?} {path} {word}: {}", seen.text());
            }
            assert_eq!(seen.text().contains("\"b\""), there, "{}", seen.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_storage_fills_the_store_first_and_asks_the_engine_afterwards() {
    let split =
        Split::start(&["--kv-connector=shared-storage"], |_| answer(200, "", "ignored"), |_| events(&["1"]))
            .await;
    let reply = split.ask(CHAT, r#"{"max_tokens":9,"stream":true}"#).await;
    assert_eq!(reply.text(), "data: 1\n\n");
    assert_eq!(
        split.bodies(),
        (
            json!({"max_tokens": 1, "max_completion_tokens": 1, "cache_hit_threshold": 0, "stream": true}),
            json!({"max_tokens": 9, "stream": true, "cache_hit_threshold": 0})
        )
    );
    split.sidecar.counted("remote", "transferred", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_storage_asks_the_engine_first_where_the_client_says_how_much_must_be_cached() {
    let split = Split::start(
        &["--kv-connector=shared-storage"],
        |_| answer(200, "", "{}"),
        |seen| {
            let too_little = seen.text().contains(":0.8") && !seen.text().contains("enough");
            let finish = if too_little { "cache_threshold" } else { "stop" };
            let choices =
                format!(r#"{{"choices":[{{"finish_reason":"{finish}"}}],"n":{}}}"#, seen.body.len());
            if seen.text().contains("\"stream\":true") {
                return events(&[
                    r#"{"choices":[{"delta":{"role":"assistant"},"finish_reason":null}]}"#,
                    &choices,
                    "[DONE]",
                ]);
            }
            answer(200, "x-engine: yes\r\n", &choices)
        },
    )
    .await;
    for stream in ["", ",\"stream\":true"] {
        let before = (split.prefill.seen().len(), split.engine.seen().len());
        let reply = split.ask(CHAT, &format!(r#"{{"cache_hit_threshold":0.8{stream}}}"#)).await;
        assert!(reply.text().contains("stop") && !reply.text().contains("cache_threshold"), "{reply:?}");
        assert_eq!(reply.headers.get_all("x-engine").iter().count(), usize::from(stream.is_empty()));
        let thresholds: Vec<f64> = split.engine.seen()[before.1..]
            .iter()
            .map(|seen| seen.json()["cache_hit_threshold"].as_f64().unwrap())
            .collect();
        assert_eq!(thresholds, [0.8, 0.0]);
        assert_eq!(split.prefill.seen().len(), before.0 + 1);
        assert_eq!(split.prefill.seen().last().unwrap().json()["cache_hit_threshold"], 0);
        let before = (split.prefill.seen().len(), split.engine.seen().len());
        let reply = split.ask(CHAT, &format!(r#"{{"enough":1,"cache_hit_threshold":0.8{stream}}}"#)).await;
        assert!(reply.text().contains("stop"), "{reply:?}");
        assert_eq!((split.prefill.seen().len(), split.engine.seen().len()), (before.0, before.1 + 1));
    }
    split.sidecar.counted("local", "cache_hit", 2).await;
    split.sidecar.counted("remote", "transferred", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lmcache_and_the_first_nixl_speak_as_they_did() {
    let split =
        Split::start(&["--connector=lmcache"], |_| answer(200, "", "{}"), |_| answer(200, "", "{}")).await;
    let body = r#"{ "max_tokens":9,"stream":true}"#;
    assert_eq!(split.ask(CHAT, body).await.status, 200);
    assert_eq!(
        split.prefill.only().json(),
        json!({"max_tokens": 1, "max_completion_tokens": 1, "stream": true})
    );
    assert_eq!(split.engine.only().text(), body);
    let kv = r#"{"remote_block_ids":[1],"remote_engine_id":"e","remote_host":"h","remote_port":7}"#;
    let split =
        Split::start(&["--connector=nixl"], move |_| answer(200, "", kv), |_| answer(200, "", "{}")).await;
    assert_eq!(split.ask(CHAT, r#"{"stream":true,"stream_options":{}}"#).await.status, 200);
    let (prefill, decode) = split.bodies();
    assert_eq!((prefill["do_remote_decode"].clone(), prefill["stream"].clone()), (json!(true), json!(false)));
    let mut wanted: Value = serde_json::from_str(kv).unwrap();
    wanted["do_remote_prefill"] = json!(true);
    wanted["stream"] = json!(true);
    wanted["stream_options"] = json!({});
    assert_eq!(decode, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn nixl_pulls_from_a_third_server_where_it_is_switched_on() {
    for (flags, there) in [(&["--enable-p2p-pull"][..], true), (&[], false)] {
        let split = Split::start(flags, |_| prefilled(""), |_| answer(200, "", "{}")).await;
        assert_eq!(
            split.ask_with(CHAT, &[("x-kv-cache-source-host-port", "10.0.0.7:8000")], "{}").await.status,
            200
        );
        let (mut prefill, decode) = split.bodies();
        let source = prefill["kv_transfer_params"].as_object_mut().unwrap().remove("remote_kv_source");
        assert_eq!(source.is_some(), there);
        assert_eq!(prefill["kv_transfer_params"], keep());
        assert_eq!(decode["kv_transfer_params"], serde_json::from_str::<Value>(KV).unwrap());
    }
}
