//! Every way in which a server can fail, for each connector and each call, with the client there or gone: what the
//! client gets, what counters tell, and that no call is left.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::connectors::CHAT;
use super::running::{NOBODY, Sidecar};
use super::stub::{Seen, Step, Stub, answer, chunk, chunked};
use crate::support::{Client, holds, within};

/// A connector under test.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) flags: &'static [&'static str],
    /// Both servers are asked at once.
    pub(super) at_once: bool,
}

pub(super) const KINDS: &[Kind] = &[
    Kind { name: "nixlv2", flags: &["--kv-connector=nixlv2"], at_once: false },
    Kind { name: "lmcache", flags: &["--connector=lmcache"], at_once: false },
    Kind { name: "shared-storage", flags: &["--kv-connector=shared-storage"], at_once: false },
    Kind { name: "sglang", flags: &["--kv-connector=sglang"], at_once: true },
    Kind { name: "mooncake", flags: &["--kv-connector=mooncake"], at_once: true },
    Kind { name: "offloading", flags: &["--kv-connector=offloading"], at_once: true },
    Kind {
        name: "moriio",
        flags: &["--moriio-write-mode", "--moriio-parallel-dispatch", "--moriio-local-pod-ip=10.0.0.1"],
        at_once: true,
    },
];

/// How a server behaves, the status that the client gets (0: the answer breaks off), and how that is counted.
const FAILURES: &[(&str, u16, &str)] = &[
    ("refused", 502, "refused"),
    ("reset", 502, "reset"),
    ("middle", 502, "broken"),
    ("422", 422, "status"),
    ("500", 500, "status"),
    ("503", 503, "status"),
    ("hang", 504, "timeout"),
    ("garbage", 502, "garbage"),
];

fn act(kind: &str, good: Vec<Step>) -> Vec<Step> {
    match kind {
        "reset" => vec![Step::Reset],
        "middle" => vec![
            chunked("content-type: application/json\r\n"),
            chunk("{\"a\""),
            Step::Pause(Duration::from_millis(50)),
            Step::Reset,
        ],
        "422" | "500" | "503" => {
            let text = format!("{{\"error\":\"my own {kind}\"}}");
            answer(kind.parse().unwrap(), "x-own: 1\r\ncontent-type: application/json\r\n", &text)
        }
        "hang" => vec![Step::Hang],
        "hang-later" => vec![chunked("content-type: text/event-stream\r\n"), chunk("first"), Step::Hang],
        "slow" => [vec![Step::Pause(Duration::from_millis(300))], good].concat(),
        "garbage" => vec![Step::Send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()), Step::Close],
        _ => good,
    }
}

fn prefill(seen: &Seen) -> Vec<Step> {
    let kind = [seen.header("x-prefill"), seen.header("x-first")].concat();
    act(&kind, answer(200, "", r#"{"kv_transfer_params":{"remote_engine_id":"e"}}"#))
}

/// An engine that waits for a cache does not answer without it.
fn engine(seen: &Seen) -> Vec<Step> {
    let prefill = seen.header("x-prefill");
    let kind = if prefill.is_empty() || prefill == "slow" { seen.header("x-decode") } else { "hang" };
    act(kind, answer(200, "content-type: application/json\r\n", r#"{"answer":1}"#))
}

/// Servers and sidecars of a connector.
pub(super) struct Field {
    pub(super) kind: Kind,
    pub(super) prefill: Stub,
    pub(super) engine: Stub,
    pub(super) sidecar: Sidecar,
    query: Option<Stub>,
}

impl Field {
    pub(super) async fn start(kind: Kind, flags: &[&str]) -> Self {
        Self::with_engine(kind, flags, engine).await
    }

    /// The same with another engine.
    pub(super) async fn with_engine(
        kind: Kind,
        flags: &[&str],
        engine: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let (prefill, engine) = (Stub::start(prefill).await, Stub::start(engine).await);
        let query = match kind.name {
            "mooncake" => Some(Stub::start(|_| answer(200, "", r#"{"0":{"engine_id":"A"}}"#)).await),
            _ => None,
        };
        let sidecar = sidecar(kind, &engine.port(), query.as_ref(), flags).await;
        Self { kind, prefill, engine, sidecar, query }
    }

    /// Asks; gives the status, or 0 if the answer breaks off, with the body and a header of it.
    pub(super) async fn ask(&self, sidecar: &Sidecar, headers: &[(&str, &str)]) -> (u16, String, bool) {
        let target = self.prefill.addr.to_string();
        let named = headers.iter().any(|(name, _)| *name == "x-prefiller-host-port");
        let own = [("x-prefiller-host-port", target.as_str())];
        let headers = [headers, if named { &[] } else { &own }].concat();
        let body = Bytes::from(r#"{"max_tokens":5}"#);
        match within("answer", sidecar.client().try_post(CHAT, &headers, body)).await {
            Ok(reply) => (reply.status, reply.text().to_owned(), reply.header("x-own") == "1"),
            Err(_) => (0, String::new(), false),
        }
    }

    pub(super) async fn is_quiet(&self) {
        self.sidecar.is_idle().await;
        holds(&format!("{}: no call is left", self.kind.name), async || {
            self.prefill.open() + self.engine.open() == 0
        })
        .await;
    }
}

async fn sidecar(kind: Kind, port: &str, query: Option<&Stub>, flags: &[&str]) -> Sidecar {
    let query = query.map(|query| format!("--mooncake-bootstrap-port={}", query.port()));
    let flags: Vec<&str> =
        kind.flags.iter().copied().chain(query.as_deref()).chain(flags.iter().copied()).collect();
    Sidecar::start_in(&[], port, &flags).await
}

const QUICK: &[&str] = &["--prefill-timeout=700ms", "--decode-first-byte-timeout=1500ms"];

async fn with_clients_there(kind: Kind) {
    let field = Field::start(kind, QUICK).await;
    let without_engine = sidecar(kind, "1", field.query.as_ref(), QUICK).await;
    let mut counted: BTreeMap<(&str, String), usize> = BTreeMap::new();
    let mut cases = Vec::new();
    for (failure, status, reason) in FAILURES {
        let headers = match *failure {
            "refused" => vec![("x-prefiller-host-port", NOBODY), ("x-prefill", "refused")],
            failure => vec![("x-prefill", failure)],
        };
        cases.push((headers, *status, &field.sidecar));
        *counted.entry(("failed", format!("prefill_{reason}"))).or_default() += 1;
        let status = match *failure {
            "refused" => 503,
            "middle" => 0,
            _ => *status,
        };
        let sidecar = if *failure == "refused" { &without_engine } else { &field.sidecar };
        cases.push((vec![("x-decode", *failure)], status, sidecar));
        if *failure != "refused" {
            *counted.entry(("failed", format!("decode_{reason}"))).or_default() += 1;
        }
    }
    for leg in ["x-prefill", "x-decode", "x-none"] {
        cases.push((vec![(leg, "slow")], 200, &field.sidecar));
        *counted.entry(("remote", "transferred".to_owned())).or_default() += 1;
    }
    let field = &field;
    join_all(cases.iter().map(|(headers, status, sidecar)| async move {
        let (got, body, own) = field.ask(sidecar, headers).await;
        let case = format!("{} {headers:?}: {got} {body}", field.kind.name);
        assert_eq!(got, *status, "{case}");
        match got {
            422 | 500 => assert!(own && body.contains("my own"), "a server's own error is relayed: {case}"),
            503 => assert_eq!(own, body.contains("my own"), "{case}"),
            502 | 504 => {
                assert!(body.starts_with('{') && body.contains(&format!("\"code\":{got}")), "{case}");
            }
            200 => assert_eq!(body, r#"{"answer":1}"#, "{case}"),
            _ => {}
        }
    }))
    .await;
    field.is_quiet().await;
    without_engine.counted("failed", "decode_refused", 1).await;
    for ((outcome, reason), count) in &counted {
        let got = field.sidecar.outcomes(outcome, reason).await;
        assert_eq!(got, *count as f64, "{}: {outcome} {reason}", field.kind.name);
    }
    let all = field.sidecar.metric("pointsman_sidecar_outcomes_total", &[]).await;
    assert_eq!(all, counted.values().sum::<usize>() as f64, "{}: nothing else is counted", field.kind.name);
    let errors = async |stage| {
        field.sidecar.metric("llm_d_disagg_sidecar_request_errors_total", &[("stage", stage)]).await
    };
    assert!(errors("prefill").await >= 8.0 && errors("decode").await >= 7.0, "{}", field.kind.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_of_a_server_reaches_the_client_as_what_it_is_and_leaves_no_call() {
    join_all(KINDS.iter().map(|kind| with_clients_there(*kind))).await;
}

async fn with_clients_gone(kind: Kind) {
    let field = Field::start(kind, &[]).await;
    let target = field.prefill.addr.to_string();
    let mut gone = 0;
    for headers in [("x-prefill", "hang"), ("x-decode", "hang"), ("x-decode", "hang-later")] {
        for client in [Client::http1(field.sidecar.addr), Client::http2(field.sidecar.addr)] {
            let (prefills, decodes) = (field.prefill.seen().len(), field.engine.seen().len());
            let name = target.clone();
            let asking = tokio::spawn(async move {
                let headers = [headers, ("x-prefiller-host-port", name.as_str())];
                let mut response = client.open_with(CHAT, &headers, &json!({"stream": true})).await;
                // The first piece, and then nothing.
                while response.body_mut().frame().await.is_some() {}
            });
            let engine = kind.at_once || headers.0 == "x-decode";
            holds(&format!("{} {headers:?}: all are asked", kind.name), async || {
                field.prefill.seen().len() > prefills && (!engine || field.engine.seen().len() > decodes)
            })
            .await;
            asking.abort();
            gone += 1;
            field.is_quiet().await;
        }
    }
    field.sidecar.counted("failed", "client_gone", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_all_calls_of_its_request_at_once() {
    join_all(KINDS.iter().map(|kind| with_clients_gone(*kind))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encode_servers_that_fail_fail_the_request_before_anybody_else_is_asked() {
    let encoder = Stub::start(|seen| {
        let kinds = ["reset", "middle", "422", "500", "hang", "slow", "garbage"];
        let kind = kinds.iter().find(|kind| seen.text().contains(&format!("{kind}.png"))).copied();
        act(kind.unwrap_or_default(), answer(200, "", r#"{"ec_transfer_params":{"h":{"peer_port":1}}}"#))
    })
    .await;
    let field = Field::start(KINDS[0], &["--ec-connector=ec-nixl", "--encode-timeout=700ms"]).await;
    let (encoders, target) = (encoder.addr.to_string(), field.prefill.addr.to_string());
    let body = |kinds: &[&str]| {
        let parts: Vec<_> = kinds
            .iter()
            .map(|kind| json!({"type": "image_url", "image_url": {"url": format!("http://x/{kind}.png")}}))
            .collect();
        json!({"messages": [{"role": "user", "content": parts}]}).to_string()
    };
    let cases = [
        ("refused", 502, "encode_refused"),
        ("reset", 502, "encode_reset"),
        ("middle", 502, "encode_broken"),
        ("422", 422, "encode_status"),
        ("500", 502, "encode_status"),
        ("hang", 502, "encode_timeout"),
        ("garbage", 502, "encode_garbage"),
    ];
    let client = field.sidecar.client();
    join_all(cases.iter().map(|(kind, status, _)| {
        let (encoders, target, body) = (&encoders, &target, &body);
        async move {
            let encoder = if *kind == "refused" { NOBODY } else { encoders };
            let headers = [("x-encoder-hosts-ports", encoder), ("x-prefiller-host-port", target.as_str())];
            let reply = client.post_with(CHAT, &headers, body(&["good", kind])).await;
            assert_eq!(reply.status, *status, "{kind} {reply:?}");
        }
    }))
    .await;
    assert!(field.prefill.seen().is_empty() && field.engine.seen().is_empty());
    for (_, _, reason) in cases {
        let expected = if reason == "encode_status" { 2 } else { 1 };
        field.sidecar.counted("failed", reason, expected).await;
    }
    let headers = [("x-encoder-hosts-ports", encoders.as_str()), ("x-prefiller-host-port", target.as_str())];
    assert_eq!(client.post_with(CHAT, &headers, body(&["slow"])).await.status, 200);
    // One that fails ends the others, and so does a client that leaves.
    let left = encoder.left();
    assert_eq!(client.post_with(CHAT, &headers, body(&["hang", "422"])).await.status, 422);
    holds("the other call is over", async || encoder.left() > left && encoder.open() == 0).await;
    field.is_quiet().await;
}
