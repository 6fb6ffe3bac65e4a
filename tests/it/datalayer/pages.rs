//! What pages and answers do to an endpoint's load.

use std::time::{Duration, Instant};

use pointsman::datalayer::exposition::{Figure, Figures};
use pointsman::datalayer::{ENGINE_LABEL, Settings, SourceSpec};
use pointsman::pool::Age;

use super::server::{Answer, Harness, Server, Told, at_once, http, page, spec, unfiltered, vllm};

#[tokio::test]
async fn figures_of_the_page_reach_the_load() {
    let server = Server::start(at_once(|_| page(&vllm(7)))).await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.pages("e0", 1).await;
    let load = harness.load(0);
    assert_eq!((load.waiting(), load.running(), load.kv_usage()), (7, 2, 0.5));
    assert_eq!((load.block_size(), load.num_blocks()), (16, 100));
    assert!(load.age(Instant::now()).is_fresh(Duration::from_secs(2)));
    let request = server.seen.borrow()[0].clone();
    assert_eq!(request.path, "/metrics");
    assert!(request.head.contains(&format!("\r\nhost: {}\r\n", server.address)), "{}", request.head);
    assert!(!request.head.contains("accept"), "neither compression nor another format is asked for");
}

#[tokio::test]
async fn path_and_port_of_the_source_are_used() {
    let server = Server::start(at_once(|request| page(&vllm(u32::from(request.path == "/m?x=y"))))).await;
    let source =
        SourceSpec { path: "/m?x=y".to_owned(), port: Some(server.address.port()), ..SourceSpec::default() };
    let mut harness = Harness::start(Settings { source, ..unfiltered() }, &["127.0.0.1:1".parse().unwrap()]);
    harness.pages("e0", 1).await;
    assert_eq!(harness.load(0).waiting(), 1);
}

#[tokio::test]
async fn an_error_status_is_a_poll_error_and_leaves_the_load_alone() {
    let server = Server::start(at_once(|request| match request.number {
        0 => page(&vllm(7)),
        1 => Answer::Send(http("404 Not Found", "", &vllm(9))),
        2 => Answer::Send(http("500 Oops", "", "vllm:num_requests_waiting 9\n")),
        _ => Answer::Hang,
    }))
    .await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.poll_error("status 500").await;
    harness.poll_error("status 404").await;
    assert_eq!(harness.load(0).waiting(), 7);
    let status = harness.layer.statuses(Instant::now()).remove(0);
    assert_eq!((status.scrapes, status.last_error.as_deref()), (1, Some("status 500")));
}

#[tokio::test]
async fn an_endpoint_that_was_never_read_stays_never_read() {
    let server = Server::start(at_once(|_| Answer::Send(http("503 No", "", "")))).await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.poll_error("status 503").await;
    assert_eq!(harness.load(0).age(Instant::now()), Age::Never);
}

#[tokio::test]
async fn a_page_without_known_series_does_not_make_an_endpoint_fresh() {
    let server = Server::start(at_once(|_| page("python_info 1\n"))).await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.pages("e0", 2).await;
    assert_eq!(harness.load(0).age(Instant::now()), Age::Never);
}

#[tokio::test]
async fn one_bad_line_costs_that_line_only() {
    let server = Server::start(at_once(|_| {
        page("vllm:num_requests_running{ 1\n\n{}\nvllm:num_requests_waiting 4\nx")
    }))
    .await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    let told = harness.until(|told| told.iter().any(|told| matches!(told, Told::ExtractError { .. }))).await;
    assert_eq!(harness.load(0).waiting(), 4);
    let missing: Figures = [Figure::Running, Figure::KvUsage, Figure::CacheInfo].into_iter().collect();
    assert!(told.contains(&Told::ExtractError { missing, malformed: 1 }), "{told:?}");
}

#[tokio::test]
async fn a_lasting_defect_is_not_told_at_every_scrape() {
    let server = Server::start(at_once(|_| page("vllm:num_requests_waiting 4\n"))).await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.pages("e0", 8).await;
    let told = harness.told.borrow().clone();
    assert_eq!(told.iter().filter(|told| matches!(told, Told::ExtractError { .. })).count(), 1);
}

#[tokio::test]
async fn a_cut_body_is_a_poll_error_but_whole_families_count() {
    let server = Server::start(at_once(|_| {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\nvllm:num_requests_running 3\nvllm:num_requests_waiting 12";
        Answer::SendAndClose(text.as_bytes().to_vec())
    }))
    .await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.poll_error("closed before the end").await;
    assert_eq!((harness.load(0).running(), harness.load(0).waiting()), (3, 0));
}

#[tokio::test]
async fn a_page_over_the_bound_is_cut_there() {
    let server =
        Server::start(at_once(|_| page(&format!("{}{}", vllm(5), "# filler\n".repeat(20_000))))).await;
    let mut harness = Harness::start(Settings { body_limit: 64 * 1024, ..unfiltered() }, &[server.address]);
    harness.poll_error("body exceeds 65536 bytes").await;
    assert_eq!(harness.load(0).waiting(), 5);
}

#[tokio::test]
async fn a_ten_megabyte_page_ends_at_the_default_bound() {
    let server =
        Server::start(at_once(|_| page(&format!("{}{}", vllm(5), "# filler\n".repeat(1_200_000))))).await;
    let mut harness =
        Harness::start(Settings { timeout: Duration::from_secs(15), ..unfiltered() }, &[server.address]);
    harness.poll_error("body exceeds 8388608 bytes").await;
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    let server =
        Server::start(at_once(|_| Answer::Send(http("200 OK", "content-encoding: gzip\r\n", "\x1f")))).await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.poll_error("body is encoded").await;
}

#[tokio::test]
async fn what_is_no_http_is_a_poll_error() {
    let server = Server::start(at_once(|_| Answer::Send(b"220 mail.example ESMTP\r\n\r\n".to_vec()))).await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.poll_error("answer is no http").await;
}

#[tokio::test]
async fn the_engine_label_says_which_series_to_read_even_when_it_changes() {
    let text = "vllm:num_requests_waiting 1\nsglang:num_queue_reqs 2\ntgi_queue_size 3\n";
    let server = Server::start(at_once(move |_| page(text))).await;
    let mut harness = Harness::start_empty(unfiltered());
    for (engine, expected) in [("sglang", 2), ("nobody-knows-it", 1), ("tgi", 3)] {
        let endpoint = spec("e0", server.address).with_labels([(ENGINE_LABEL, engine)]);
        harness.pool.replace_endpoints(vec![endpoint]);
        // A round that began before the change may still be told.
        harness.pages("e0", 2).await;
        assert_eq!(harness.load(0).waiting(), expected, "{engine}");
    }
}
