//! Models in bodies that the program sees in part, or only after it has decided: an alias is replaced, or its client is
//! told; it never reaches a server. And forms, which name a model in other spellings than JSON does.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::support::{BodyMode, Envoy, Recorded};

const ALIAS: &str = "modelRewrites:\n- name: alias\n  rules:\n  - matches: [{model: {value: an-alias}}]\n    \
                     targets: [{modelRewrite: sim-model}]\n";
const ALL: &str = "modelRewrites:\n- name: all\n  rules:\n  - targets: [{modelRewrite: sim-model}]\n";

const RERANK: &str = "/v1/rerank";
const AUDIO: &str = "/v1/audio/transcriptions";
const COMPLETIONS: &str = "/v1/completions";
const FORM: &str = "multipart/form-data; boundary=b";
const PAIRS: &str = "application/x-www-form-urlencoded";

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn deflate(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &str) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest)
}

/// Text of about this many bytes that does not compress well.
fn filler(bytes: u32) -> String {
    (0..bytes / 6).map(|number| format!("{:05} ", number.wrapping_mul(2_654_435_761) % 100_003)).collect()
}

fn json(model: &str, bytes: u32) -> String {
    format!(r#"{{"query":"{}","model":"{model}"}}"#, filler(bytes))
}

fn part(disposition: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n")
}

fn form(name: &str, model: &str, bytes: u32) -> String {
    let file = part("name=\"file\"; filename=\"model\"", &filler(bytes));
    format!("{file}{}{}--b--\r\n", part(name, model), part("name=\"language\"", "an-alias"))
}

type Headers = Vec<(&'static str, &'static str)>;
type BodyOf = Box<dyn Fn(&str) -> Vec<u8>>;

/// A path, headers, and the body that names a model.
type Case = (&'static str, Headers, BodyOf);

/// Bodies that name a model, in every way in which a server would find it.
fn cases() -> Vec<Case> {
    let of = |path, headers: &[(&'static str, &'static str)], body: BodyOf| -> Case {
        (path, headers.to_vec(), body)
    };
    let plain = |bytes| -> BodyOf { Box::new(move |model| json(model, bytes).into()) };
    vec![
        of(RERANK, &[("content-type", "application/json")], plain(100)),
        of(RERANK, &[("content-type", "")], plain(300_000)),
        of(RERANK, &[("content-type", "Text/Json")], plain(100)),
        of(RERANK, &[("content-type", "application/x-json")], plain(100)),
        of(RERANK, &[("content-type", "text/plain")], plain(100)),
        of(RERANK, &[("content-type", PAIRS)], plain(100)),
        of(COMPLETIONS, &[("content-type", "text/plain")], plain(100)),
        of(AUDIO, &[("content-type", FORM)], Box::new(|m| form("name=\"model\"", m, 200_000).into())),
        of(AUDIO, &[("content-type", FORM)], Box::new(|m| form("name=model", m, 10).into())),
        of(AUDIO, &[("content-type", FORM)], Box::new(|m| form("name*=utf-8''mod%65l", m, 10).into())),
        of(AUDIO, &[("content-type", FORM)], Box::new(|m| form("name*0=mo; name*1=del", m, 10).into())),
        of(COMPLETIONS, &[("content-type", FORM)], Box::new(|m| form("name=\"model\"", m, 10).into())),
        of(AUDIO, &[("content-type", PAIRS)], Box::new(|m| format!("x=1&m%6fdel={m}&y=2").into())),
        of(AUDIO, &[("content-type", PAIRS)], Box::new(|m| format!("x=1&model={m}").into())),
        of(RERANK, &[("content-encoding", "gzip")], Box::new(|m| gzip(&json(m, 200_000)))),
        of(COMPLETIONS, &[("content-encoding", "x-gzip")], Box::new(|m| gzip(&json(m, 100)))),
        of(RERANK, &[("content-encoding", "deflate")], Box::new(|m| deflate(&json(m, 200_000)))),
        of(RERANK, &[("content-encoding", "zstd")], Box::new(|m| zstd(&json(m, 200_000)))),
        of(
            AUDIO,
            &[("content-encoding", "gzip"), ("content-type", FORM)],
            Box::new(|m| gzip(&form("name=\"model\"", m, 100_000))),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_passes_by_after_the_decision_is_refused_in_every_kind_of_body() {
    let bench = Recorded::start(ALIAS).await;
    let envoy = Envoy::start_in_modes(bench.pointsman.grpc, BodyMode::Streamed, BodyMode::Streamed).await;
    for client in [envoy.http1(), envoy.http2()] {
        for (path, headers, body) in cases() {
            let before = bench.server.received().len();
            let reply = client.post_with(path, &headers, body("an-alias")).await;
            assert_eq!(reply.status, 400, "{path} {headers:?}: {reply:?}");
            assert_eq!(reply.json()["error"]["code"], "rewrite_unseen", "{path} {headers:?}");
            assert_eq!(bench.server.received().len(), before, "{path} {headers:?}: it reached the server");
            let known = body("sim-model");
            let reply = client.post_with(path, &headers, known.clone()).await;
            assert_eq!(reply.status, 200, "{path} {headers:?}: {reply:?}");
            assert!(bench.last() == known, "{path} {headers:?}: the server got something else");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_for_every_model_replaces_is_refused_where_it_passes_by_unseen() {
    let bench = Recorded::start(ALL).await;
    let envoy = Envoy::start_in_modes(bench.pointsman.grpc, BodyMode::Streamed, BodyMode::Streamed).await;
    for (path, headers, body) in cases() {
        let reply = envoy.http1().post_with(path, &headers, body("any")).await;
        assert_eq!(reply.status, 400, "{path} {headers:?}: {reply:?}");
    }
    let reply = envoy.http1().post_with(RERANK, &[("content-encoding", "lz4")], "no json").await;
    assert_eq!(reply.status, 400, "nobody knows what this body asks for: {reply:?}");
    let reply = envoy.http1().post_with("/v1/files", &[("content-type", "audio/wav")], "RIFF").await;
    assert_eq!(reply.status, 200, "sound has no model: {reply:?}");
    assert_eq!(bench.server.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_decoded_on_their_way_are_refused_and_bombs_too() {
    let bench = Recorded::start(ALIAS).await;
    let envoy = Envoy::start_in_modes(bench.pointsman.grpc, BodyMode::Streamed, BodyMode::Streamed).await;
    let gzipped = [("content-encoding", "gzip")];
    let reply = envoy.http1().post_with(RERANK, &gzipped, "no gzip").await;
    assert_eq!((reply.status, reply.json()["error"]["code"].as_str()), (400, Some("invalid_body")));
    let bomb = gzip(&format!(r#"{{"query":"{}"}}"#, " ".repeat(50 << 20)));
    let reply = envoy.http1().post_with(RERANK, &gzipped, bomb).await;
    assert_eq!((reply.status, reply.json()["error"]["code"].as_str()), (413, Some("decoded_too_large")));
    assert!(bench.server.received().is_empty());
    assert_eq!(bench.pointsman.metric("pointsman_buffered_body_bytes", &[]).await, Some(0.0));
}

/// A path, headers, a body, and what becomes of it where its model is seen.
type CutCase = (&'static str, Headers, Vec<u8>, Option<Vec<u8>>);

/// Bodies of which Envoy shows a part, with the model in front or behind.
fn cut_cases() -> Vec<CutCase> {
    let text = filler(2_000_000);
    let front = |model: &str| format!(r#"{{"model":"{model}","query":"{text}"}}"#).into_bytes();
    let behind = |model: &str| format!(r#"{{"query":"{text}","model":"{model}"}}"#).into_bytes();
    let form_front = |model: &str| {
        format!("{}{}--b--\r\n", part("name=\"model\"", model), part("name=\"file\"; filename=\"f\"", &text))
            .into_bytes()
    };
    let form_behind = |model: &str| form("name=\"model\"", model, 2_000_000).into_bytes();
    let pairs = |model: &str| format!("x=1&model={model}&text={}", text.replace(' ', "+")).into_bytes();
    let any = || vec![("content-type", "")];
    vec![
        (RERANK, any(), front("an-alias"), Some(front("sim-model"))),
        (COMPLETIONS, any(), front("an-alias"), Some(front("sim-model"))),
        (RERANK, any(), behind("an-alias"), None),
        (AUDIO, vec![("content-type", FORM)], form_front("an-alias"), Some(form_front("sim-model"))),
        (AUDIO, vec![("content-type", FORM)], form_behind("an-alias"), None),
        (AUDIO, vec![("content-type", PAIRS)], pairs("an-alias"), Some(pairs("sim-model"))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_in_a_cut_body_is_replaced_where_it_is_seen_and_refused_where_it_is_not() {
    let bench = Recorded::start(ALIAS).await;
    let mode = BodyMode::BufferedPartial;
    let envoy = Envoy::start_in_modes(bench.pointsman.grpc, mode, mode).await;
    for (path, headers, body, replaced) in cut_cases() {
        let before = bench.server.received().len();
        let reply = envoy.http1().post_with(path, &headers, body).await;
        if let Some(replaced) = replaced {
            assert_eq!(reply.status, 200, "{path} {headers:?}: {reply:?}");
            assert!(bench.last() == replaced, "{path} {headers:?}: the server got something else");
        } else if reply.status != 200 {
            // Where all pieces came before Envoy's buffer was full, the body was whole.
            assert_eq!(reply.status, 413, "{path} {headers:?}: {reply:?}");
            assert_eq!(reply.json()["error"]["code"], "rewrite_cut");
            assert_eq!(bench.server.received().len(), before);
        } else {
            let last = bench.last();
            let contains = |name: &str| memchr::memmem::find(&last, name.as_bytes()).is_some();
            assert!(contains("sim-model"), "{path} {headers:?}: the alias reached the server");
        }
    }
    let gzipped = [("content-encoding", "gzip")];
    for (model, statuses) in [("an-alias", &[200, 413][..]), ("sim-model", &[200])] {
        let text = format!(r#"{{"model":"{model}","query":"{}"}}"#, filler(6_000_000));
        let reply = envoy.http1().post_with(RERANK, &gzipped, gzip(&text)).await;
        assert!(statuses.contains(&reply.status), "{model}: {reply:?}");
    }
    let sound = filler(2_000_000);
    let reply = envoy.http1().post_with("/v1/files", &[("content-type", "audio/wav")], sound).await;
    assert_eq!(reply.status, 200, "sound has no model: {reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_of_a_form_is_read_replaced_and_put_back_in_every_spelling() {
    let bench = Recorded::start(ALIAS).await;
    let mode = BodyMode::FullDuplexStreamed;
    let envoy = Envoy::start_in_modes(bench.pointsman.grpc, mode, mode).await;
    let labels = [("model_name", "an-alias"), ("target_model_name", "sim-model")];
    for (count, (path, headers, body)) in (1_u32..).zip(cases()) {
        let reply = envoy.http1().post_with(path, &headers, body("an-alias")).await;
        assert_eq!(reply.status, 200, "{path} {headers:?}: {reply:?}");
        assert_eq!(reply.json()["model"], "an-alias", "{path} {headers:?}: not put back");
        if !headers.iter().any(|(name, _)| *name == "content-encoding") {
            assert!(bench.last() == body("sim-model"), "{path} {headers:?}: {:?}", bench.last());
        }
        let counted = bench.pointsman.metric("llm_d_epp_request_total", &labels).await;
        assert_eq!(counted, Some(f64::from(count)), "{path} {headers:?}");
    }
    let two = format!("{}{}--b--", part("name=\"model\"", "x"), part("name=\"model\"", "an-alias"));
    let reply = envoy.http1().post_with(AUDIO, &[("content-type", FORM)], two.clone()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(bench.last(), two.replace("\r\nx\r\n", "\r\nsim-model\r\n").replace("an-alias", "sim-model"));
    let nine = format!("{}--b--", part("name=\"model\"", "an-alias").repeat(9));
    let reply = envoy.http1().post_with(AUDIO, &[("content-type", FORM)], nine).await;
    assert_eq!((reply.status, reply.json()["error"]["code"].as_str()), (400, Some("invalid_body")));
    let reply = envoy.http1().post_with(AUDIO, &[("content-type", PAIRS)], "language=en").await;
    assert_eq!((reply.status, bench.last().as_ref()), (200, &b"language=en"[..]), "nothing is put in");
}
