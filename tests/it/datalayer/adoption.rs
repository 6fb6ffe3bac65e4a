//! Filtered pages: adopted where they carry everything, left at once where they do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pointsman::datalayer::{Settings, Variant};

use super::server::{Answer, Handler, Harness, Server, Told, at_once, http, page, unfiltered, vllm};

fn filler() -> String {
    "python_gc_objects_collected_total{generation=\"0\"} 14884.0\n".repeat(400)
}

/// A server that filters at `path`, and says the full page elsewhere.
fn filtering_at(path: &'static str) -> Handler {
    at_once(move |request| match request.path.split_once('?') {
        Some((at, query)) if at == path => page(&filtered(query)),
        _ => page(&format!("{}{}", filler(), vllm(3))),
    })
}

fn filtered(query: &str) -> String {
    let names: Vec<&str> = query.split('&').filter_map(|pair| pair.strip_prefix("name%5B%5D=")).collect();
    let line_wanted = |line: &&str| names.iter().any(|name| line.split(['{', ' ']).next() == Some(name));
    vllm(4).lines().filter(line_wanted).map(|line| format!("{line}\n")).collect()
}

async fn adopts(handler: Handler, expected: Variant) {
    let server = Server::start(handler).await;
    let mut harness = Harness::start(Settings::default(), &[server.address]);
    harness.until(|told| told.contains(&Told::Adopted(expected))).await;
    harness.pages("e0", 2).await;
    let load = harness.load(0);
    assert_eq!((load.waiting(), load.running(), load.num_blocks()), (4, 2, 100));
    let status = harness.layer.statuses(Instant::now()).remove(0);
    assert_eq!(status.form, expected.name());
    assert!(status.bytes < 300 && status.missing.is_empty());
    assert_eq!(harness.poll_errors(), []);
}

#[tokio::test]
async fn a_plain_python_server_is_asked_for_the_needed_series_only() {
    adopts(filtering_at("/metrics"), Variant::Filtered).await;
}

#[tokio::test]
async fn an_instrumented_server_is_asked_behind_the_slash() {
    adopts(filtering_at("/metrics/"), Variant::FilteredSlash).await;
}

#[tokio::test]
async fn a_server_with_empty_filtered_pages_keeps_serving_full_ones() {
    let server = Server::start(at_once(|request| match request.path.as_str() {
        "/metrics" => page(&format!("{}{}", filler(), vllm(3))),
        _ => page(""),
    }))
    .await;
    let mut harness = Harness::start(Settings::default(), &[server.address]);
    harness.until(|told| told.contains(&Told::Refused)).await;
    harness.pages("e0", 3).await;
    assert_eq!(harness.load(0).waiting(), 3);
    let filtered = server.seen.borrow().iter().filter(|request| request.path.contains('?')).count();
    assert_eq!(filtered, 2, "each form is tried once");
    assert_eq!(harness.poll_errors(), []);
}

#[tokio::test]
async fn a_server_that_knows_no_filter_keeps_serving_full_pages() {
    let server = Server::start(at_once(|request| match request.path.as_str() {
        "/metrics" => page(&format!("{}{}", filler(), vllm(3))),
        _ => Answer::Send(http("404 Not Found", "", "")),
    }))
    .await;
    let mut harness = Harness::start(Settings::default(), &[server.address]);
    harness.until(|told| told.contains(&Told::Refused)).await;
    harness.pages("e0", 2).await;
    assert_eq!((harness.load(0).waiting(), harness.poll_errors()), (3, vec![]));
}

#[tokio::test]
async fn a_series_that_goes_missing_brings_the_full_page_back_within_the_same_round() {
    let broken = Arc::new(AtomicBool::new(false));
    let server = Server::start(at_once({
        let broken = Arc::clone(&broken);
        move |request| match request.path.split_once('?') {
            Some(_) if broken.load(Ordering::SeqCst) => page("vllm:num_requests_waiting 9\n"),
            Some((_, query)) => page(&filtered(query)),
            None => page(&format!("{}{}", filler(), vllm(3))),
        }
    }))
    .await;
    let mut harness = Harness::start(Settings::default(), &[server.address]);
    harness.until(|told| told.iter().any(|told| matches!(told, Told::Adopted(_)))).await;
    harness.pages("e0", 1).await;
    assert_eq!(harness.load(0).waiting(), 4);
    broken.store(true, Ordering::SeqCst);
    harness.until(|told| told.contains(&Told::Refused)).await;
    harness.pages("e0", 1).await;
    assert_eq!(harness.load(0).waiting(), 3, "the poorer page counts for nothing");
    assert_eq!(harness.poll_errors(), []);
}

#[tokio::test]
async fn switched_off_only_the_full_page_is_ever_asked_for() {
    let server = Server::start(filtering_at("/metrics")).await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.pages("e0", 6).await;
    assert!(server.seen.borrow().iter().all(|request| request.path == "/metrics"));
}
