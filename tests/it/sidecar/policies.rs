//! What the operator chose for prefill servers that fail: further attempts, the next server, the engine itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::connectors::{CHAT, Split};
use super::failures::{Field, KINDS, Kind};
use super::running::NOBODY;
use super::stub::{Seen, Step, Stub, answer};

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_prefill_server_is_asked_again_after_a_pause_and_one_that_failed_is_not() {
    let flags = ["--prefill-max-retries=2", "--prefill-retry-backoff=200ms"];
    let split = Split::start(
        &flags,
        |seen| match (seen.header("x-case"), seen.header("x-request-id")) {
            ("500", _) => answer(500, "", "{}"),
            ("503", _) => answer(503, "x-own: 1\r\n", "busy"),
            _ => answer(200, "", "{}"),
        },
        |_| answer(200, "", "{}"),
    )
    .await;
    let reply = split.ask_with(CHAT, &[("x-case", "503")], "{}").await;
    assert_eq!((reply.status, reply.text(), reply.header("x-own")), (503, "busy", "1"));
    let times: Vec<Instant> = split.prefill.seen().iter().map(|seen| seen.at).collect();
    assert_eq!(times.len(), 3);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(195)), "{times:?}");
    assert_eq!(split.ask_with(CHAT, &[("x-case", "500")], "{}").await.status, 500);
    assert_eq!(split.prefill.seen().len(), 4);
    assert_eq!(
        split.sidecar.metric("pointsman_sidecar_prefill_retries_total", &[("kind", "same")]).await,
        2.0
    );
    assert!(split.engine.seen().is_empty());
}

const FAILURES: &[&str] = &["refused", "reset", "middle", "500", "503", "hang", "garbage"];

async fn next(kind: Kind) {
    let flags = ["--on-prefill-failure=next", "--prefill-timeout=700ms"];
    // The first of two servers fails in each way, and the engine waits until the other one has done its part.
    let prefilled: Arc<Mutex<BTreeMap<String, Arc<AtomicBool>>>> = Arc::default();
    let of = |seen: &Seen, prefilled: &Mutex<BTreeMap<String, Arc<AtomicBool>>>| {
        Arc::clone(prefilled.lock().entry(seen.header("x-first").to_owned()).or_default())
    };
    let known = Arc::clone(&prefilled);
    let engine =
        move |seen: &Seen| [vec![Step::Until(of(seen, &known))], answer(200, "", r#"{"answer":1}"#)].concat();
    let field = Field::with_engine(kind, &flags, engine).await;
    let other = Stub::start(move |seen| {
        of(seen, &prefilled).store(true, SeqCst);
        answer(200, "", r#"{"kv_transfer_params":{"remote_engine_id":"e"}}"#)
    })
    .await;
    let (field, other) = (&field, &other);
    join_all(FAILURES.iter().map(|failure| async move {
        let first = if *failure == "refused" { NOBODY.to_owned() } else { field.prefill.addr.to_string() };
        let both = format!("{first},{}", other.addr);
        let headers = [("x-prefiller-host-port", both.as_str()), ("x-first", failure)];
        let (status, body, _) = field.ask(&field.sidecar, &headers).await;
        assert_eq!((status, body.as_str()), (200, r#"{"answer":1}"#), "{} {failure}", kind.name);
    }))
    .await;
    let retried = field.sidecar.metric("pointsman_sidecar_prefill_retries_total", &[("kind", "next")]).await;
    assert_eq!(retried, FAILURES.len() as f64, "{}", kind.name);
    field.sidecar.counted("remote", "transferred", FAILURES.len()).await;
    // What the client did wrong is wrong everywhere.
    let both = format!("{},{}", field.prefill.addr, other.addr);
    let before = other.seen().len();
    let headers = [("x-prefiller-host-port", both.as_str()), ("x-first", "422")];
    assert_eq!(field.ask(&field.sidecar, &headers).await.0, 422, "{}", kind.name);
    assert_eq!(other.seen().len(), before, "{}", kind.name);
    field.is_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_next_no_request_is_lost_whatever_the_first_prefill_server_does() {
    join_all(KINDS.iter().map(|kind| next(*kind))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_local_the_engine_processes_small_prompts_itself_and_so_many_a_second() {
    let flags =
        ["--on-prefill-failure=local", "--local-fallback-max-bytes=100", "--local-fallback-per-second=3"];
    let split = Split::start(&flags, |_| answer(500, "", "{}"), |_| answer(200, "", "{}")).await;
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(100));
    assert_eq!(split.ask(CHAT, &large).await.status, 500);
    let replies = join_all((0..6).map(|_| split.ask(CHAT, r#"{"x":1}"#))).await;
    let good = replies.iter().filter(|reply| reply.status == 200).count();
    assert!((3..6).contains(&good), "{good}");
    assert!(split.engine.seen().iter().all(|seen| seen.text() == r#"{"x":1}"#));
    split.sidecar.counted("recompute", "prefill_failed", good).await;
    split.sidecar.counted("failed", "prefill_status", 7 - good).await;
}
