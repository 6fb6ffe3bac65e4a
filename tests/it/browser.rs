//! The page for people: what it refuses, and what a person does with it in a real Chromium.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    BodyMode, Chromium, EndpointsFile, Fleet, Pointsman, Stack, chat, config, eventually, lone_request,
};

/// Names that would do harm as markup.
const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\">";

#[tokio::test]
async fn the_page_refuses_foreign_names_and_other_origins_and_lets_nothing_in_from_elsewhere() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text = config(&endpoints.path(), &[("queue-scorer", 1)]);
    let mut picker = Pointsman::start(&text, &["--page-port", "0"]).await;
    let page = picker
        .process
        .line("address of the page", |line| line.strip_prefix("page ")?.trim().parse().ok())
        .await;
    for address in [picker.metrics, page] {
        let answer = ask(address, "GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let policy = answer.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
        for path in ["/", "/page/script.js", "/page/feed"] {
            for host in ["host: evil.example\r\n", "host: 127.0.0.1\r\nhost: evil.example\r\n"] {
                let answer = ask(address, &format!("GET {path} HTTP/1.1\r\n{host}")).await;
                assert!(answer.starts_with("HTTP/1.1 421"), "{path} {host}: {answer}");
            }
        }
        for path in ["/-/reload", "/debug/decide"] {
            let foreign = format!(
                "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: http://evil.example\r\ncontent-length: 0\r\n"
            );
            assert!(ask(address, &foreign).await.starts_with("HTTP/1.1 403"), "{path}");
        }
    }
    let answer = ask(page, "GET /debug/pool HTTP/1.1\r\nhost: evil.example\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 421"), "the port of the page answers no foreign name at all");
    let answer = ask(picker.metrics, "GET /metrics HTTP/1.1\r\nhost: scraped.example\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "scrapers use any name");
}

/// The answer to a request of these lines on a connection of its own.
async fn ask(address: std::net::SocketAddr, lines: &str) -> String {
    let request = format!("{lines}connection: close\r\n\r\n");
    String::from_utf8(lone_request(address, request.as_bytes()).await).unwrap()
}

#[tokio::test]
async fn events_come_once_a_second_and_only_so_many_may_follow() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let picker = Pointsman::start(&config(&endpoints.path(), &[("queue-scorer", 1)]), &[]).await;
    let mut followers = Vec::new();
    for _ in 0..16 {
        followers.push(follow(picker.metrics).await);
    }
    assert!(followers.iter().all(|(status, _)| status.contains("200")), "{followers:?}");
    assert!(follow(picker.metrics).await.0.contains("503"), "one too many");
    let (_, stream) = &mut followers[0];
    tokio::time::sleep(Duration::from_millis(2600)).await;
    let mut bytes = vec![0; 64 << 10];
    let read = stream.try_read(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
    let events = text.matches("event: figures").count();
    assert!((2..=4).contains(&events), "{events} events in 2.6 s");
    assert!(text.contains("event: pool"));
    drop(followers);
    eventually("there is room again", async || follow(picker.metrics).await.0.contains("200").then_some(()))
        .await;
}

/// Asks for the events: the first line of the answer, and the rest of it.
async fn follow(address: std::net::SocketAddr) -> (String, tokio::net::TcpStream) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /page/feed HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.unwrap());
    }
    (String::from_utf8(line).unwrap(), stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_opens_the_page_sorts_filters_reads_why_and_tries_a_request() {
    let Some(mut browser) = Chromium::start().await else { return };
    let stack = Stack::start(3).await;
    for index in 0..6 {
        let mut body = chat("hello", 2, false);
        if index % 2 == 0 {
            body["model"] = HOSTILE.into();
        }
        let headers = [("x-llm-d-inference-fairness-id", HOSTILE)];
        stack.client().post_with("/v1/chat/completions", &headers, body.to_string()).await;
    }
    browser.open(&format!("http://{}/", stack.pointsman.metrics)).await;
    browser.until("document.querySelectorAll('#endpoint-rows tr').length === 3").await;
    browser.until("document.querySelector('#live').textContent === 'live'").await;
    browser.until("document.querySelector('#ready').textContent === '3 of 3'").await;

    browser.click("#endpoint-head th:nth-child(5) button").await;
    browser.until("document.querySelector('#endpoint-head th:nth-child(5)').ariaSort === 'descending'").await;
    browser.click("#endpoint-head th:nth-child(1) button").await;
    browser.until("document.querySelector('#endpoint-rows td').textContent.includes('sim-0')").await;
    browser.click("#filter").await;
    browser.write("sim-1").await;
    browser.until("document.querySelectorAll('#endpoint-rows tr').length === 1").await;

    browser.until("document.querySelectorAll('#decision-rows button').length === 6").await;
    let listed = browser.text("#decision-rows").await;
    assert!(listed.contains(HOSTILE), "names are shown as they are: {listed}");
    browser.click("#decision-rows button").await;
    browser.until("document.querySelector('#record').open").await;
    let why = browser.text("#record-why").await;
    assert!(why.contains("fairness id <img src=x") && why.contains("sim-"), "{why}");
    browser.press("Escape", 27).await;
    browser.until("!document.querySelector('#record').open").await;

    browser.click("#dry-form button").await;
    browser.until("document.querySelector('#record').open").await;
    let title = browser.text("#record-title").await;
    let facts = browser.text("#record-facts").await;
    assert!(title.contains("would get now") && facts.contains("default/sim-"), "{title}: {facts}");
    browser.click("#record-close").await;

    assert_eq!(browser.value("document.querySelectorAll('img').length").await, json!(0));
    assert_ne!(browser.value("document.title").await, json!("owned"));
    browser.look(375, 700, "dark").await;
    browser.until("document.documentElement.scrollWidth <= 375").await;
    assert_eq!(browser.faults, [""; 0]);
}

/// `make screenshots` names a folder in SCREENSHOTS.
#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_made_where_a_folder_is_named() {
    let Some(folder) = std::env::var_os("SCREENSHOTS").map(std::path::PathBuf::from) else {
        println!("skipped: `make screenshots` makes pictures");
        return;
    };
    std::fs::create_dir_all(&folder).unwrap();
    let Some(mut browser) = Chromium::start().await else { return };
    for count in [4, 1000] {
        let fleet = Fleet::start(count, &[]).await;
        let scorers = [("queue-scorer", 1), ("prefix-cache-scorer", 2)];
        let interval = if count > 100 { "5s" } else { "50ms" };
        let flags = [
            "--refresh-metrics-interval",
            interval,
            "--metrics-staleness-threshold",
            "30s",
            "--feature-gates",
            "flowControl",
        ];
        let stack = Stack::scoring(fleet, BodyMode::FullDuplexStreamed, &scorers, &flags).await;
        browser.open(&format!("http://{}/", stack.pointsman.metrics)).await;
        browser.until("document.querySelectorAll('#endpoint-rows tr').length > 3").await;
        for index in 0..60 {
            let text = format!("story {} ", index % 5).repeat(80);
            let team = format!("team-{}", index % 3);
            let headers = [("x-llm-d-inference-fairness-id", team.as_str())];
            let body = chat(&text, 8, false).to_string();
            stack.client().post_with("/v1/chat/completions", &headers, body).await;
        }
        tokio::time::sleep(Duration::from_secs(7)).await;
        for scheme in ["light", "dark"] {
            for (form, width, height) in [("wide", 1400, 1000), ("phone", 390, 844)] {
                browser.look(width, height, scheme).await;
                tokio::time::sleep(Duration::from_millis(1200)).await;
                let picture = browser.picture().await;
                std::fs::write(folder.join(format!("page-{count}-{scheme}-{form}.png")), picture).unwrap();
            }
            browser.look(1400, 1000, scheme).await;
            browser.click("#decision-rows button").await;
            browser.until("document.querySelector('#record').open").await;
            let picture = browser.picture().await;
            std::fs::write(folder.join(format!("record-{count}-{scheme}.png")), picture).unwrap();
            browser.press("Escape", 27).await;
            browser.value("scrollTo(0, 0)").await;
        }
        assert_eq!(browser.faults, [""; 0]);
        browser.open("about:blank").await;
    }
}
