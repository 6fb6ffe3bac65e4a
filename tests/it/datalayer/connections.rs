//! Connections: kept, replaced, redirected, given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::datalayer::Settings;
use pointsman::pool::Lease;
use tokio::sync::{Notify, watch};

use super::server::{Answer, Harness, Server, at_once, http, page, spec, unfiltered, until, vllm};

#[tokio::test]
async fn one_connection_serves_all_scrapes() {
    let server = Server::start(at_once(|request| page(&vllm(request.number as u32)))).await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.pages("e0", 5).await;
    assert!(server.seen.borrow().iter().all(|request| request.connection == 0));
    assert!(harness.load(0).waiting() >= 4);
}

#[tokio::test]
async fn chunked_bodies_and_bodies_up_to_the_end_are_read() {
    let chunked = |text: &str| {
        let (a, b) = text.split_at(20);
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        format!("{head}{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n", a.len(), b.len()).into_bytes()
    };
    let server = Server::start(at_once(move |request| match request.number {
        0..2 => Answer::Send(chunked(&vllm(3))),
        _ => Answer::SendAndClose(format!("HTTP/1.0 200 OK\r\n\r\n{}", vllm(4).trim_end()).into_bytes()),
    }))
    .await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.pages("e0", 1).await;
    assert_eq!(harness.load(0).waiting(), 3);
    harness.pages("e0", 3).await;
    assert_eq!(harness.load(0).waiting(), 4);
    assert_eq!(harness.poll_errors(), []);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_while_idle_is_replaced_without_an_error() {
    let server = Server::start(at_once(|_| Answer::SendAndClose(http("200 OK", "", &vllm(1))))).await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.pages("e0", 4).await;
    assert_eq!(harness.poll_errors(), []);
    assert!(server.seen.borrow().last().unwrap().connection >= 3);
}

#[tokio::test]
async fn a_connection_that_breaks_on_the_next_request_is_replaced_without_an_error() {
    let server = Server::start(at_once(|request| match (request.connection, request.number) {
        (0, 0) | (1, _) => page(&vllm(1)),
        _ => Answer::SendAndClose(Vec::new()),
    }))
    .await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.pages("e0", 3).await;
    assert_eq!(harness.poll_errors(), []);
}

#[tokio::test]
async fn a_refused_connection_is_a_poll_error_and_the_endpoint_recovers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut harness = Harness::start(unfiltered(), &[address]);
    harness.poll_error("cannot connect").await;
    let status = harness.layer.statuses(Instant::now()).remove(0);
    assert!(status.failures >= 1 && status.last_error.unwrap().contains("cannot connect"));
}

#[tokio::test]
async fn a_redirect_is_followed_and_remembered() {
    let server = Server::start(at_once(|request| match request.path.as_str() {
        "/metrics" => Answer::Send(http(
            "307 Temporary Redirect",
            &format!("location: http://{}/metrics/\r\n", host(&request.head)),
            "moved",
        )),
        "/metrics/" => page(&vllm(6)),
        _ => Answer::Hang,
    }))
    .await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.pages("e0", 3).await;
    assert_eq!(harness.load(0).waiting(), 6);
    let paths: Vec<String> = server.seen.borrow().iter().map(|request| request.path.clone()).collect();
    assert_eq!(paths[..4], ["/metrics", "/metrics/", "/metrics/", "/metrics/"]);
    assert!(server.seen.borrow().iter().all(|request| request.connection == 0));
}

fn host(head: &str) -> String {
    head.split("host: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn a_redirect_to_another_server_is_not_followed() {
    let away = "location: http://169.254.169.254/latest\r\n";
    let server = Server::start(at_once(move |_| Answer::Send(http("302 Found", away, "")))).await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.poll_error("redirect to another server").await;
}

#[tokio::test]
async fn a_redirect_in_a_circle_ends() {
    let server =
        Server::start(at_once(|_| Answer::Send(http("301 Moved", "location: /metrics\r\n", "")))).await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.poll_error("too many redirects").await;
    assert!(server.seen.borrow().len() >= 11);
}

#[tokio::test]
async fn an_answer_within_the_limit_counts_and_one_after_it_does_not() {
    let server = Server::start(Arc::new(|request| {
        Box::pin(async move {
            // The server's latency: inside the limit of a second, then beyond it.
            let latency = Duration::from_millis(if request.number == 0 { 300 } else { 30_000 });
            tokio::time::sleep(latency).await;
            page(&vllm(8 + request.number as u32))
        })
    }))
    .await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    harness.pages("e0", 1).await;
    harness.poll_error("no answer after 1s").await;
    assert_eq!(harness.load(0).waiting(), 8);
}

#[tokio::test]
async fn a_hanging_server_does_not_delay_the_others() {
    let hanging = Server::start(at_once(|_| Answer::Hang)).await;
    let lively = Server::start(at_once(|_| page(&vllm(1)))).await;
    let patient = Settings { timeout: Duration::from_mins(1), ..unfiltered() };
    let mut harness = Harness::start(patient, &[hanging.address, lively.address]);
    until(&mut hanging.seen.clone(), |seen| !seen.is_empty()).await;
    harness.pages("e1", 10).await;
    assert_eq!(hanging.seen.borrow().len(), 1, "one round at a time");
}

#[tokio::test]
async fn a_removed_endpoint_loses_its_connection_in_the_middle_of_a_scrape() {
    let server = Server::start(at_once(|_| Answer::Hang)).await;
    let mut harness =
        Harness::start(Settings { timeout: Duration::from_mins(1), ..unfiltered() }, &[server.address]);
    until(&mut server.seen.clone(), |seen| !seen.is_empty()).await;
    harness.pool.replace_endpoints(Vec::new());
    until(&mut server.ended.clone(), |ended| *ended == 1).await;
    assert!(harness.told.borrow_and_update().is_empty(), "leaving is no error");
    assert!(harness.layer.statuses(Instant::now()).is_empty());
}

#[tokio::test]
async fn an_endpoint_that_moves_is_read_at_its_new_address() {
    let old = Server::start(at_once(|_| page(&vllm(1)))).await;
    let new = Server::start(at_once(|_| page(&vllm(2)))).await;
    let mut harness = Harness::start(unfiltered(), &[old.address]);
    harness.pages("e0", 1).await;
    harness.pool.replace_endpoints(vec![spec("e0", new.address)]);
    until(&mut new.seen.clone(), |seen| seen.len() >= 2).await;
    until(&mut old.ended.clone(), |ended| *ended == 1).await;
    assert_eq!(harness.load(0).waiting(), 2);
}

#[tokio::test]
async fn a_metrics_address_that_moves_alone_is_followed() {
    let old = Server::start(at_once(|_| page(&vllm(1)))).await;
    let new = Server::start(at_once(|_| page(&vllm(2)))).await;
    let mut harness = Harness::start(unfiltered(), &[old.address]);
    harness.pages("e0", 1).await;
    let mut moved = spec("e0", old.address);
    moved.metrics_address = new.address;
    harness.pool.replace_endpoints(vec![moved]);
    until(&mut new.seen.clone(), |seen| seen.len() >= 2).await;
    assert_eq!(harness.load(0).waiting(), 2);
    assert_eq!(harness.layer.statuses(Instant::now())[0].address, new.address);
}

#[tokio::test]
async fn requests_sent_during_a_scrape_are_not_in_its_reading() {
    let release = Arc::new(Notify::new());
    let (asked, mut was_asked) = watch::channel(0);
    let server = Server::start(Arc::new({
        let release = Arc::clone(&release);
        move |request| {
            let release = Arc::clone(&release);
            asked.send_replace(request.number + 1);
            Box::pin(async move {
                if request.number == 0 {
                    release.notified().await;
                    return page(&vllm(1));
                }
                Answer::Hang
            })
        }
    }))
    .await;
    let mut harness = Harness::start(unfiltered(), &[server.address]);
    let endpoint = Arc::clone(&harness.pool.snapshot().endpoints()[0]);
    let before = Lease::take(&endpoint, 1);
    until(&mut was_asked, |asked| *asked == 1).await;
    let during = Lease::take(&endpoint, 1);
    release.notify_one();
    harness.pages("e0", 1).await;
    let unread = endpoint.load().dispatched_since_reading();
    // The first request may have been sent just after the scrape, which is allowed to count it.
    assert!((1..=2).contains(&unread), "{unread}");
    drop((before, during));
}

#[tokio::test]
async fn several_workers_share_the_endpoints() {
    let mut servers = Vec::new();
    for _ in 0..6 {
        servers.push(Server::start(at_once(|_| page(&vllm(1)))).await);
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let mut harness = Harness::start(Settings { workers: 3, ..unfiltered() }, &addresses);
    for index in 0..6 {
        harness.pages(&format!("e{index}"), 2).await;
    }
    assert!(servers.iter().all(|server| server.seen.borrow().iter().all(|request| request.connection == 0)));
}

#[tokio::test]
async fn a_thousand_endpoints_are_all_read() {
    let server = Server::start(at_once(|_| page(&vllm(1)))).await;
    let harness = Harness::start_empty(Settings {
        timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(10),
        ..unfiltered()
    });
    harness
        .pool
        .replace_endpoints((0..1000).map(|index| spec(&format!("e{index}"), server.address)).collect());
    let mut told = harness.told.clone();
    // Each endpoint has its own connection.
    until(&mut told, |told| told.len() >= 1000).await;
    let snapshot = harness.pool.snapshot();
    let read = || snapshot.endpoints().iter().all(|endpoint| endpoint.load().waiting() == 1);
    until(&mut told, |_| read()).await;
}
