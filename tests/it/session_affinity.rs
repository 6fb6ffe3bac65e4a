//! Sessions that stay where they began, by the token that the client brings back.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::support::{
    EndpointsFile, Fleet, Pointsman, Proxy, body, chat, config, destination, headers, program,
    response_headers, sets,
};

const SCORERS: &[(&str, u32)] = &[("session-affinity-scorer", 1)];

/// Sends a request with this token; the endpoint that it is sent to, and the token that the response carries.
async fn exchange(proxy: &Proxy, number: usize, token: Option<&str>) -> (String, Vec<String>) {
    let mut exchange = proxy.open().await;
    let token =
        token.map(|token| (Bytes::from_static(b"x-session-token"), Bytes::copy_from_slice(token.as_bytes())));
    exchange.say(headers("/v1/chat/completions", token, false)).await;
    exchange.say(body(chat(&format!("turn {number}"), 1, false).to_string(), true)).await;
    let picked = destination(&exchange.answer().await.unwrap().unwrap()).unwrap();
    exchange.answer().await.unwrap().unwrap();
    exchange.say(response_headers("200")).await;
    let answer = exchange.answer().await.unwrap().unwrap();
    (picked, sets(&answer, "x-session-token"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_brings_its_token_back_stays_where_it_was() {
    let fleet = Fleet::start(4, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let flags = ["--secure-serving=false", "--allow-experimental-plugins"];
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
    let proxy = Proxy::connect(pointsman.grpc).await;

    let (first, tokens) = exchange(&proxy, 0, None).await;
    let [token] = tokens.as_slice() else { panic!("not one token: {tokens:?}") };
    let server = fleet.servers.iter().find(|server| server.addr.to_string() == first).unwrap();
    let named = String::from_utf8(STANDARD.decode(token).unwrap()).unwrap();
    assert_eq!(named, format!("default/{}", server.name));

    for number in 1..=20 {
        let (picked, again) = exchange(&proxy, number, Some(token)).await;
        assert_eq!(picked, first, "turn {number}");
        assert_eq!(again, [token.as_str()], "turn {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_names_nobody_is_as_good_as_none() {
    let fleet = Fleet::start(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let flags = ["--secure-serving=false", "--allow-experimental-plugins"];
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    for token in ["", "%%%", &STANDARD.encode("default/gone"), &STANDARD.encode([0xff, 0xfe])] {
        let (_, tokens) = exchange(&proxy, 0, Some(token)).await;
        assert_eq!(tokens.len(), 1, "{token:?}: {tokens:?}");
        assert_ne!(tokens[0], token);
    }
}

#[test]
fn an_alpha_plugin_is_refused_unless_it_is_allowed() {
    let endpoints = EndpointsFile::with([]);
    let text = config(&endpoints.path(), SCORERS);
    let arguments = ["--pool-name", "p", "--grpc-port", "0", "--tracing=false", "--config-text", &text];
    let output = Command::new(program()).args(arguments).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("session-affinity-scorer"), "{said}");
    assert!(said.contains("--allow-experimental-plugins"), "{said}");
    assert!(!said.contains("listening"), "{said}");
}

/// The usual configuration with this row of `plugins` in its profile.
fn with_plugin(endpoints: &EndpointsFile, row: &str, name: &str) -> String {
    let text = config(&endpoints.path(), &[("queue-scorer", 1)]);
    text.replace("- type: queue-scorer\n", &format!("- type: queue-scorer\n{row}"))
        .replace("  plugins:\n", &format!("  plugins:\n  - pluginRef: {name}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_filter_a_session_stays_whatever_the_scorers_say() {
    let fleet = Fleet::start(4, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text = with_plugin(&endpoints, "- type: session-affinity-filter\n", "session-affinity-filter");
    let flags = ["--secure-serving=false", "--allow-experimental-plugins"];
    let pointsman = Pointsman::start(&text, &flags).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    let (first, tokens) = exchange(&proxy, 0, None).await;
    for number in 1..=20 {
        assert_eq!(exchange(&proxy, number, Some(&tokens[0])).await.0, first, "turn {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_a_cookie_stays_where_it_was_bound() {
    let fleet = Fleet::start(4, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let row = "- type: session-id-producer\n  parameters: {cookieName: sid}\n- type: session-affinity-filter\n  \
               parameters: {strategy: session_id, sessionIdConfig: {sources: [{attribute: SessionIDDataKey}]}}\n";
    let text = with_plugin(&endpoints, row, "session-affinity-filter");
    let flags = ["--secure-serving=false", "--allow-experimental-plugins"];
    let pointsman = Pointsman::start(&text, &flags).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    let ask = async |cookie: &'static str| {
        let mut exchange = proxy.open().await;
        let cookie = (Bytes::from_static(b"cookie"), Bytes::from_static(cookie.as_bytes()));
        exchange.say(headers("/v1/chat/completions", [cookie], false)).await;
        exchange.say(body(chat("hello", 1, false).to_string(), true)).await;
        destination(&exchange.answer().await.unwrap().unwrap()).unwrap()
    };
    let first = ask("a=b; sid=one").await;
    for _ in 0..20 {
        assert_eq!(ask("sid=one; c=d").await, first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_says_which_endpoint_served_if_it_is_asked_to() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let row = "- type: destination-endpoint-served-verifier\n";
    let text = config(&endpoints.path(), &[("queue-scorer", 1)])
        .replace("- type: queue-scorer\n", &format!("- type: queue-scorer\n{row}"));
    let pointsman = Pointsman::start(&text, &["--secure-serving=false"]).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    let mut exchange = proxy.open().await;
    exchange.say(headers("/v1/chat/completions", [], false)).await;
    exchange.say(body(chat("hello", 1, false).to_string(), true)).await;
    exchange.answer().await.unwrap().unwrap();
    exchange.answer().await.unwrap().unwrap();
    exchange.say(response_headers("200")).await;
    let answer = exchange.answer().await.unwrap().unwrap();
    let said = sets(&answer, "x-conformance-test-served-endpoint");
    assert_eq!(said, ["fail: missing destination endpoint served metadata"]);
}
