//! What a proxy or a client may say about where a request goes, and what the answer says beside the destination.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use pointsman::extproc::wire::{
    Field, Kind, List, Metadata, NamedStruct, ProcessingRequest, Response, Struct, Value,
};

use crate::support::{
    EndpointsFile, Exchange, Fleet, Pointsman, Proxy, SCORERS, body, chat, config, destination, headers,
};

/// A picker for these endpoints, spoken to directly.
struct Picker {
    proxy: Proxy,
    _pointsman: Pointsman,
    _endpoints: EndpointsFile,
}

impl Picker {
    async fn start(servers: &[SocketAddr], flags: &[&str]) -> Self {
        Self::configured(servers, |endpoints| config(&endpoints.path(), SCORERS), flags).await
    }

    async fn configured(
        servers: &[SocketAddr],
        config: impl Fn(&EndpointsFile) -> String,
        flags: &[&str],
    ) -> Self {
        let names: Vec<String> = (0..servers.len()).map(|number| format!("e{number}")).collect();
        let listed = names.iter().map(String::as_str).zip(servers.iter().copied());
        let endpoints = EndpointsFile::with(listed);
        // That nobody answers at some addresses is found out in no particular order.
        let usual = ["--secure-serving=false", "--avoid-unreachable=false"];
        let flags = [&usual, flags].concat();
        let pointsman = Pointsman::start(&config(&endpoints), &flags).await;
        let proxy = Proxy::connect(pointsman.grpc).await;
        Self { proxy, _pointsman: pointsman, _endpoints: endpoints }
    }

    /// The answer to a request with this hint on its headers.
    async fn hinted(&self, hint: Kind) -> Response {
        let mut exchange = self.proxy.open().await;
        let request = Some(headers("/v1/chat/completions", [], false));
        let metadata_context = Some(metadata(hint));
        exchange.tell(ProcessingRequest { request, metadata_context, ..Default::default() }).await;
        exchange.say(body(chat("hint", 1, false).to_string(), true)).await;
        first(&mut exchange).await
    }
}

async fn first(exchange: &mut Exchange) -> Response {
    exchange.answer().await.unwrap().unwrap()
}

fn metadata(hint: Kind) -> Metadata {
    let field = Field {
        name: "x-gateway-destination-endpoint-subset".into(),
        value: Some(Value { kind: Some(hint) }),
    };
    let entry =
        NamedStruct { name: "envoy.lb.subset_hint".into(), fields: Some(Struct { fields: vec![field] }) };
    Metadata { filter_metadata: vec![entry] }
}

fn list(entries: &[String]) -> Kind {
    let values = entries.iter().map(|entry| Value { kind: Some(Kind::Text(entry.clone().into())) });
    Kind::List(List { values: values.collect() })
}

/// Addresses that nobody listens on: where a request would go can be asked all the same.
fn nobody(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// Status and body of a refusal.
fn refusal(answer: &Response) -> (i32, String) {
    let Response::ImmediateResponse(answer) = answer else { panic!("not refused: {answer:?}") };
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    (answer.status.unwrap().code, body["error"]["message"].as_str().unwrap().to_owned())
}

fn field<'a>(fields: &'a Struct, name: &str) -> &'a Kind {
    let found = fields.fields.iter().find(|field| field.name == name);
    found
        .and_then(|field| field.value.as_ref()?.kind.as_ref())
        .unwrap_or_else(|| panic!("no {name}: {fields:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_on_the_headers_narrows_the_pool() {
    let servers = nobody(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.2:1"]);
    let picker = Picker::start(&servers, &[]).await;
    for server in &servers {
        for hint in [list(&[server.to_string()]), Kind::Text(format!(" {server} ,").into())] {
            let answer = picker.hinted(hint).await;
            assert_eq!(destination(&answer), Some(server.to_string()));
        }
    }
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        let answer = picker.hinted(list(&["127.0.0.1".to_owned()])).await;
        seen.insert(destination(&answer).unwrap());
    }
    assert_eq!(seen, servers[..3].iter().map(ToString::to_string).collect(), "every port of the address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_on_the_body_replaces_that_on_the_headers() {
    let servers = nobody(&["127.0.0.1:1", "127.0.0.1:2"]);
    let picker = Picker::start(&servers, &[]).await;
    for (on_headers, on_body, expected) in [(None, 1, 1), (Some(0), 1, 1), (Some(1), 0, 0)] {
        let hint = |number: usize| metadata(list(&[servers[number].to_string()]));
        let mut exchange = picker.proxy.open().await;
        let request = Some(headers("/v1/chat/completions", [], false));
        let metadata_context = on_headers.map(hint);
        exchange.tell(ProcessingRequest { request, metadata_context, ..Default::default() }).await;
        let request = Some(body(chat("hint", 1, false).to_string(), true));
        let metadata_context = Some(hint(on_body));
        exchange.tell(ProcessingRequest { request, metadata_context, ..Default::default() }).await;
        let picked = destination(&first(&mut exchange).await);
        assert_eq!(picked, Some(servers[expected].to_string()), "{on_headers:?} {on_body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_and_destinations_may_be_ipv6() {
    let servers = nobody(&["[::1]:1", "[::1]:2", "127.0.0.1:1"]);
    let picker = Picker::start(&servers, &[]).await;
    for (hint, expected) in [
        ("[::1]:2", vec!["[::1]:2"]),
        ("[0:0:0:0:0:0:0:1]:1", vec!["[::1]:1"]),
        ("::1", vec!["[::1]:1", "[::1]:2"]),
        ("[::1]", vec!["[::1]:1", "[::1]:2"]),
    ] {
        let answer = picker.hinted(list(&[hint.to_owned()])).await;
        let picked = destination(&answer).unwrap();
        assert!(expected.contains(&picked.as_str()), "{hint}: {picked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_with_the_port_of_a_service_stands_for_the_address() {
    let servers = nobody(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.2:1"]);
    let picker = Picker::start(&servers, &[]).await;
    for (hint, expected) in [
        ("127.0.0.2:80", &servers[2..]),
        ("127.0.0.1:80", &servers[..2]),
        ("127.0.0.1:2", &servers[1..2]),
        ("[::ffff:127.0.0.2]:1", &servers[2..]),
        ("::ffff:127.0.0.2", &servers[2..]),
    ] {
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            let answer = picker.hinted(list(&[hint.to_owned()])).await;
            seen.insert(destination(&answer).unwrap_or_else(|| panic!("{hint}: {answer:?}")));
        }
        assert_eq!(seen, expected, "{hint}");
    }
    assert_eq!(refusal(&picker.hinted(list(&["127.0.0.3:1".to_owned()])).await).0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_that_is_no_address_is_refused_by_name() {
    let picker = Picker::start(&nobody(&["127.0.0.1:1"]), &[]).await;
    for entry in ["pod-1", "127.0.0.1:http", "[::1", "127.0.0.1:99999"] {
        let answer = picker.hinted(list(&["127.0.0.1:1".to_owned(), entry.to_owned()])).await;
        let (status, message) = refusal(&answer);
        assert_eq!(status, 503, "{entry}: {message}");
        assert!(message.contains(entry), "{entry}: {message}");
    }
    let (status, message) = refusal(&picker.hinted(Kind::Number(1.0)).await);
    assert_eq!(status, 503, "{message}");
    assert!(message.contains("x-gateway-destination-endpoint-subset"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_that_leaves_nobody_is_refused() {
    let picker = Picker::start(&nobody(&["127.0.0.1:1"]), &[]).await;
    for hint in [list(&[]), Kind::Text(Bytes::new()), list(&["127.0.0.2:1".to_owned()])] {
        let (status, message) = refusal(&picker.hinted(hint.clone()).await);
        assert_eq!(status, 503, "{hint:?}: {message}");
        assert!(message.contains("failed to find endpoint candidates"), "{hint:?}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_makes_hints_count_for_nothing() {
    let picker = Picker::start(&nobody(&["127.0.0.1:1"]), &["--disable-endpoint-subset-filter"]).await;
    for hint in [list(&["127.0.0.1:2".to_owned()]), list(&[]), Kind::Number(1.0)] {
        let answer = picker.hinted(hint).await;
        assert_eq!(destination(&answer).as_deref(), Some("127.0.0.1:1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picker_of_several_endpoints_gives_a_list() {
    let servers = nobody(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
    let two = |endpoints: &EndpointsFile| {
        config(&endpoints.path(), SCORERS).replace(
            "- type: max-score-picker\n",
            "- {type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}\n",
        )
    };
    let picker = Picker::configured(&servers, two, &[]).await;
    let mut exchange = picker.proxy.open().await;
    exchange.say(headers("/v1/chat/completions", [], false)).await;
    exchange.say(body(chat("two", 1, false).to_string(), true)).await;
    let message = exchange.message().await.unwrap().unwrap();
    let picked = destination(message.response.as_ref().unwrap()).unwrap();
    let listed: BTreeSet<SocketAddr> = picked.split(',').map(|entry| entry.parse().unwrap()).collect();
    assert_eq!(listed.len(), 2, "{picked}");
    assert!(listed.iter().all(|entry| servers.contains(entry)), "{picked}");
    let metadata = message.dynamic_metadata.unwrap();
    let Kind::Struct(lb) = field(&metadata, "envoy.lb") else { panic!("{metadata:?}") };
    assert_eq!(field(lb, "x-gateway-destination-endpoint"), &Kind::Text(picked.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scores_of_all_candidates_come_along_if_asked_for() {
    let servers = nobody(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
    for asked in [false, true] {
        let flag = format!("--emit-endpoint-scores={asked}");
        let picker = Picker::start(&servers, &[&flag]).await;
        let mut exchange = picker.proxy.open().await;
        exchange.say(headers("/v1/chat/completions", [], false)).await;
        exchange.say(body(chat("scores", 1, false).to_string(), true)).await;
        let metadata = exchange.message().await.unwrap().unwrap().dynamic_metadata.unwrap();
        let Kind::Struct(lb) = field(&metadata, "envoy.lb") else { panic!("{metadata:?}") };
        if !asked {
            assert_eq!(lb.fields.len(), 1, "{lb:?}");
            continue;
        }
        let Kind::Struct(scores) = field(lb, "x-gateway-destination-endpoint-scores") else {
            panic!("{lb:?}")
        };
        assert_eq!(scores.fields.len(), 3, "{scores:?}");
        for server in &servers {
            // Two scorers of weight 2, and nobody has any load.
            assert_eq!(field(scores, &server.to_string()), &Kind::Number(4.0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_available_is_served_only_where_the_prompt_is_cached() {
    let fleet = Fleet::start(2, &[]).await;
    let servers: Vec<SocketAddr> = fleet.servers.iter().map(|server| server.addr).collect();
    let scorers = [("prefix-cache-scorer", 1)];
    let picker = Picker::configured(&servers, |endpoints| config(&endpoints.path(), &scorers), &[]).await;
    let prompt = "the night train has a dining car and two sleepers ".repeat(40);
    let ask = async |prefer: Option<&'static str>| {
        let mut exchange = picker.proxy.open().await;
        let prefer =
            prefer.map(|prefer| (Bytes::from_static(b"prefer"), Bytes::from_static(prefer.as_bytes())));
        exchange.say(headers("/v1/chat/completions", prefer, false)).await;
        exchange.say(body(chat(&prompt, 1, false).to_string(), true)).await;
        first(&mut exchange).await
    };
    for _ in 0..2 {
        let (status, message) = refusal(&ask(Some("if-available")).await);
        assert_eq!(status, 412, "{message}");
    }
    let served = destination(&ask(None).await).unwrap();
    let again = destination(&ask(Some("respond-async, if-available")).await);
    assert_eq!(again, Some(served));
}
