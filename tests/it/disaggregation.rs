//! Disaggregated serving: requests reach the decode server through a real Envoy, with the servers of the other stages
//! in headers for its sidecar.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{BodyMode, EndpointsFile, Envoy, Fleet, Pointsman, chat, holds};

/// Simulated servers with roles, behind the program behind Envoy.
struct Stage {
    envoy: Envoy,
    pointsman: Pointsman,
    fleet: Fleet,
    _endpoints: EndpointsFile,
}

const ROLES: &[&str] = &["decode", "decode", "prefill", "prefill", "encode"];

/// The part of a configuration that all of them share.
const COMMON: &str = "\
- {type: decode-filter}
- {type: prefill-filter}
- {type: encode-filter}
- {type: queue-scorer}
- {type: random-picker}
schedulingProfiles:
- name: prefill
  plugins: [{pluginRef: prefill-filter}, {pluginRef: random-picker}]
- name: decode
  plugins: [{pluginRef: decode-filter}, {pluginRef: random-picker}]
- name: encode
  plugins: [{pluginRef: encode-filter}, {pluginRef: random-picker}]
";

impl Stage {
    /// `plugins` are further rows of `plugins`; `profiles` is what follows them.
    async fn start(plugins: &str, profiles: &str, flags: &[&str]) -> Self {
        Self::of(Fleet::start(ROLES.len(), &[]).await, plugins, profiles, flags).await
    }

    /// The same with these servers.
    async fn of(fleet: Fleet, plugins: &str, profiles: &str, flags: &[&str]) -> Self {
        Self::with_roles(fleet, ROLES, plugins, profiles, flags).await
    }

    /// The same with these servers in these roles.
    async fn with_roles(fleet: Fleet, roles: &[&str], plugins: &str, profiles: &str, flags: &[&str]) -> Self {
        let count = roles.len() as f64;
        let roles = fleet.list().map(|(_, addr)| addr).zip(roles);
        let mut listed = String::from("endpoints:\n");
        for (number, (addr, role)) in roles.enumerate() {
            listed += &format!(
                "- {{name: {role}-{number}, address: \"{}\", port: \"{}\", labels: {{llm-d.ai/role: {role}}}}}\n",
                addr.ip(),
                addr.port()
            );
        }
        let endpoints = EndpointsFile::of(&listed);
        let config = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\ndataLayer: {{discovery: {{pluginRef: file-discovery}}}}\n\
             plugins:\n- type: file-discovery\n  parameters: {{path: {}}}\n{plugins}{profiles}",
            endpoints.path().display()
        );
        let pointsman = Pointsman::start(&config, &[&["--seed", "7"], flags].concat()).await;
        holds("every server was scraped", async || {
            pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(count)
        })
        .await;
        let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
        Self { envoy, pointsman, fleet, _endpoints: endpoints }
    }

    fn servers(&self, role: &str) -> BTreeSet<SocketAddr> {
        let all = self.fleet.list().zip(ROLES);
        all.filter(|(_, other)| **other == role).map(|((_, addr), _)| addr).collect()
    }

    /// Sends a request with these headers, which must be answered by the server that the picker named. Returns its
    /// address and the headers that reached it.
    async fn ask(&self, headers: &[(&str, &str)], body: &Value) -> (SocketAddr, Vec<(String, String)>) {
        let reply = self.envoy.http1().post_with("/v1/chat/completions", headers, body.to_string()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let server = self.fleet.named(reply.header("x-sim-server"));
        let seen = server.client().get("/sim/requests?n=1").await.json();
        let pairs: Vec<(String, String)> = serde_json::from_value(seen[0]["headers"].clone()).unwrap();
        (server.addr, pairs)
    }

    async fn decisions(&self, kind: &str) -> f64 {
        let labels = [("decision_type", kind), ("plugin_type", "disagg-profile-handler")];
        self.pointsman.metric("llm_d_epp_disagg_decision_total", &labels).await.unwrap_or(0.0)
    }
}

/// All values of a header.
fn values<'h>(headers: &'h [(String, String)], name: &str) -> Vec<&'h str> {
    headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
}

fn address(headers: &[(String, String)], name: &str) -> SocketAddr {
    let values = values(headers, name);
    let [only] = values.as_slice() else { panic!("{name}: {values:?}") };
    only.parse().unwrap()
}

fn with_image(text: &str) -> Value {
    let image = json!({"type": "image_url", "image_url": {"url": format!("https://example.com/{text}.png")}});
    let content = json!([{"type": "text", "text": text}, image]);
    json!({"model": "sim-model", "max_tokens": 2, "messages": [{"role": "user", "content": content}]})
}

const FORGED: &[(&str, &str)] = &[
    ("x-prefiller-host-port", "127.0.0.1:1"),
    ("x-encoder-hosts-ports", "127.0.0.1:2"),
    ("x-kv-cache-source-host-port", "127.0.0.1:3"),
    ("x-data-parallel-host-port", "127.0.0.1:4"),
    ("x-prefiller-url", "http://127.0.0.1:5"),
];

#[tokio::test(flavor = "multi_thread")]
async fn decode_servers_get_the_request_and_are_told_which_server_prefills() {
    let plugins = "- {type: always-disagg-pd-decider}\n- type: disagg-profile-handler\n  \
                   parameters: {deciders: {prefill: always-disagg-pd-decider}}\n";
    let stage = Stage::start(plugins, COMMON, &[]).await;
    let (mut decoders, mut prefillers) = (BTreeSet::new(), BTreeSet::new());
    for number in 0..12 {
        let forged = if number % 2 == 0 { FORGED } else { &[] };
        let body = chat(&format!("question {number}"), 2, number % 3 == 0);
        let (server, headers) = stage.ask(forged, &body).await;
        decoders.insert(server);
        let prefiller = address(&headers, "x-prefiller-host-port");
        prefillers.insert(prefiller);
        for name in ["x-encoder-hosts-ports", "x-kv-cache-source-host-port", "x-data-parallel-host-port"] {
            assert_eq!(values(&headers, name), [""; 0], "{name}");
        }
        // What the sidecar of the decode server does next.
        let leg = crate::support::Client::http1(prefiller).post("/v1/chat/completions", &body).await;
        assert_eq!(leg.status, 200, "{leg:?}");
    }
    assert!(decoders.is_subset(&stage.servers("decode")), "{decoders:?}");
    assert!(prefillers.is_subset(&stage.servers("prefill")), "{prefillers:?}");
    assert_eq!((decoders.len(), prefillers.len()), (2, 2), "random pickers reach all of them");
    assert_eq!(stage.decisions("prefill-decode").await, 12.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn media_is_encoded_apart_and_short_prompts_are_not_prefilled_apart() {
    let plugins = "- {type: always-disagg-multimodal-decider}\n\
                   - {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 100}}\n- type: disagg-profile-handler\n  \
                   parameters: {deciders: {prefill: prefix-based-pd-decider, encode: always-disagg-multimodal-decider}}\n";
    let stage = Stage::start(plugins, COMMON, &[]).await;
    let long = "every train has a number and a name ".repeat(40);
    for (body, prefills, encodes, kind) in [
        (chat("short", 2, false), false, false, "decode-only"),
        (chat(&long, 2, false), true, false, "prefill-decode"),
        (with_image("cat"), true, true, "encode-prefill-decode"),
    ] {
        let (server, headers) = stage.ask(FORGED, &body).await;
        assert!(stage.servers("decode").contains(&server), "{server}");
        let named = |name: &str| values(&headers, name).len();
        assert_eq!(named("x-prefiller-host-port"), usize::from(prefills), "{kind} {headers:?}");
        assert_eq!(named("x-encoder-hosts-ports"), usize::from(encodes), "{kind} {headers:?}");
        if prefills {
            assert!(stage.servers("prefill").contains(&address(&headers, "x-prefiller-host-port")));
        }
        if encodes {
            assert!(stage.servers("encode").contains(&address(&headers, "x-encoder-hosts-ports")));
        }
        assert_eq!(stage.decisions(kind).await, 1.0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_prefill_servers_goes_on_without_them() {
    let plugins = "- {type: always-disagg-pd-decider}\n- {type: label-selector-filter, name: nobody, parameters: {matchLabels: {role: none}}}\n\
                   - type: disagg-profile-handler\n  parameters: {stageOrder: prefill-first}\n";
    let profiles = COMMON.replace("{pluginRef: prefill-filter}", "{pluginRef: nobody}");
    let stage = Stage::start(plugins, &profiles, &[]).await;
    let (server, headers) = stage.ask(FORGED, &chat("hello", 2, false)).await;
    assert!(stage.servers("decode").contains(&server), "{server}");
    assert_eq!(values(&headers, "x-prefiller-host-port"), [""; 0]);
    assert_eq!(stage.decisions("decode-only").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_handlers_write_the_same_headers() {
    let plugins = "- {type: always-disagg-pd-decider}\n- {type: prefill-header-handler}\n- type: pd-profile-handler\n  \
                   parameters: {deciderPluginName: always-disagg-pd-decider}\n";
    let stage = Stage::start(plugins, COMMON, &[]).await;
    let (server, headers) = stage.ask(FORGED, &chat("hello", 2, false)).await;
    assert!(stage.servers("decode").contains(&server), "{server}");
    assert!(stage.servers("prefill").contains(&address(&headers, "x-prefiller-host-port")));
    let decided =
        stage.pointsman.metric("llm_d_epp_pd_decision_total", &[("decision_type", "prefill-decode")]).await;
    assert_eq!(decided, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_reaches_each_phase_by_its_header() {
    let stage =
        Stage::start("- {type: header-profile-handler}\n", COMMON, &["--allow-experimental-plugins"]).await;
    for (headers, role) in [
        (&[("EPP-Profile", "encode")][..], "encode"),
        (&[("EPP-Profile", "prefill")], "prefill"),
        (&[("epp-profile", " decode ")], "decode"),
        (&[("EPP-Profile", "")], "decode"),
        (&[], "decode"),
    ] {
        let (server, _) = stage.ask(headers, &chat("a phase", 2, false)).await;
        assert!(stage.servers(role).contains(&server), "{headers:?} {server}");
    }
    let (client, body) = (stage.envoy.http1(), chat("a phase", 2, false).to_string());
    let unknown = client.post_with("/v1/chat/completions", &[("EPP-Profile", "no-such")], body).await;
    assert_eq!(unknown.status, 429, "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_are_reached_on_the_primary_port_and_named_in_the_header() {
    let fleet = Fleet::start(2, &[]).await;
    let (primary, rank) = (fleet.servers[0].addr, fleet.servers[1].addr);
    let endpoints = EndpointsFile::with([("rank", rank)]);
    let config = format!(
        "plugins:\n- type: file-discovery\n  parameters: {{path: {}}}\n- {{type: queue-scorer}}\n- type: data-parallel-profile-handler\n  \
         parameters: {{primaryPort: {}}}\ndataLayer: {{discovery: {{pluginRef: file-discovery}}}}\n",
        endpoints.path().display(),
        primary.port()
    );
    let pointsman = Pointsman::start(&config, &[]).await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    let body = chat("which rank", 2, false).to_string();
    let reply = envoy.http1().post_with("/v1/chat/completions", FORGED, body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("x-picked"), primary.to_string());
    assert_eq!(fleet.named(reply.header("x-sim-server")).addr, primary);
    let seen = fleet.servers[0].client().get("/sim/requests?n=1").await.json();
    let headers: Vec<(String, String)> = serde_json::from_value(seen[0]["headers"].clone()).unwrap();
    assert_eq!(values(&headers, "x-data-parallel-host-port"), [rank.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_holds_the_prompt_is_named_to_one_that_does_not() {
    let plugins = "- {type: p2p-source-producer}\n- {type: header-profile-handler}\n";
    let stage = Stage::start(plugins, COMMON, &["--allow-experimental-plugins"]).await;
    let body = chat(&"every station has a clock ".repeat(60), 2, false);
    // The one encode server computes the prompt first; then a decode server can fetch it there.
    let (first, headers) = stage.ask(&[&[("EPP-Profile", "encode")], FORGED].concat(), &body).await;
    assert_eq!(values(&headers, "x-kv-cache-source-host-port"), [""; 0]);
    let (second, headers) = stage.ask(FORGED, &body).await;
    assert!(stage.servers("decode").contains(&second));
    assert_eq!(address(&headers, "x-kv-cache-source-host-port"), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_back_to_the_server_that_encoded_it() {
    let plugins = "- {type: mm-embeddings-cache-scorer}\n- {type: max-score-picker}\n- {type: single-profile-handler}\n";
    let profiles = "schedulingProfiles:\n- name: default\n  plugins: [{pluginRef: mm-embeddings-cache-scorer}, {pluginRef: max-score-picker}]\n";
    let stage = Stage::start(plugins, profiles, &[]).await;
    let (first, _) = stage.ask(&[], &with_image("a dog")).await;
    for _ in 0..6 {
        let (again, _) = stage.ask(&[], &with_image("a dog")).await;
        assert_eq!(again, first);
    }
    let queries =
        stage.pointsman.metric("llm_d_epp_encoder_cache_queries_total", &[("modality", "image")]).await;
    assert_eq!(queries, Some(7.0));
    let hits = stage.pointsman.metric("llm_d_epp_encoder_cache_hits_total", &[("modality", "image")]).await;
    assert_eq!(hits, Some(6.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_other_stages_count_as_busy_until_the_answer_begins() {
    let fleet = Fleet::start(ROLES.len(), &["--first-token-base-ms", "1500", "--inter-token-ms", "50"]).await;
    let plugins = "- {type: always-disagg-pd-decider}\n- {type: always-disagg-multimodal-decider}\n- type: disagg-profile-handler\n  \
                   parameters: {deciders: {prefill: always-disagg-pd-decider, encode: always-disagg-multimodal-decider}}\n";
    let stage = Stage::of(fleet, plugins, COMMON, &[]).await;
    let mut body = with_image("bird");
    (body["stream"], body["max_tokens"]) = (json!(true), json!(10_000));
    let client = stage.envoy.http1();
    let busy = async |count: f64| {
        holds(&format!("{count} servers are busy"), async || {
            let name = "pointsman_endpoint_in_flight_requests";
            stage.pointsman.metric(name, &[]).await.unwrap_or(0.0) == count
        })
        .await;
    };
    let tokens = async || {
        let page = stage.pointsman.page().await;
        let rows = page.lines().filter(|line| line.starts_with("pointsman_endpoint_in_flight_tokens{"));
        let of = |role: &str| -> f64 {
            let rows = rows.clone().filter(|row| row.contains(role));
            rows.map(|row| row.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
        };
        (of("decode-"), of("prefill-"))
    };
    let while_prefilled = async {
        busy(3.0).await;
        tokens().await
    };
    let (response, (decode, prefill)) =
        tokio::join!(client.open("/v1/chat/completions", &body), while_prefilled);
    assert!(decode == 0.0 && prefill > 0.0, "the prompt counts where it is processed: {decode} {prefill}");
    busy(1.0).await;
    drop(response);
    busy(0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_stays_on_its_decode_server_and_its_prompts_go_to_prefill_servers() {
    let stage =
        Stage::start("- {type: header-profile-handler}\n", COMMON, &["--allow-experimental-plugins"]).await;
    let client = stage.envoy.http1();
    let mut body = json!({"model": "sim-model", "input": "which platform", "max_output_tokens": 2});
    let first = client.post("/v1/responses", &body).await;
    assert_eq!(first.status, 200, "{first:?}");
    body["previous_response_id"] = first.json()["id"].clone();
    for _ in 0..4 {
        let text = body.to_string();
        let prefill = client.post_with("/v1/responses", &[("EPP-Profile", "prefill")], text.clone()).await;
        assert_eq!(prefill.status, 200, "{prefill:?}");
        let server = stage.fleet.named(prefill.header("x-sim-server")).addr;
        assert!(stage.servers("prefill").contains(&server), "{server}");
        let decode = client.post_with("/v1/responses", &[("EPP-Profile", "decode")], text).await;
        assert_eq!(decode.header("x-sim-server"), first.header("x-sim-server"));
    }
}

const SPLIT: &str = "- {type: always-disagg-pd-decider}\n- type: disagg-profile-handler\n  \
                     parameters: {maxPrefillCandidates: 3, deciders: {prefill: always-disagg-pd-decider}}\n";

#[tokio::test(flavor = "multi_thread")]
async fn all_prefill_servers_that_may_serve_are_named_in_order_where_that_is_configured() {
    let stage = Stage::start(SPLIT, COMMON, &[]).await;
    let mut firsts = BTreeSet::new();
    for number in 0..10 {
        let (_, headers) = stage.ask(FORGED, &chat(&format!("question {number}"), 2, false)).await;
        let values = values(&headers, "x-prefiller-host-port");
        let [one] = values.as_slice() else { panic!("{values:?}") };
        let named: Vec<SocketAddr> = one.split(',').map(|address| address.parse().unwrap()).collect();
        assert_eq!(named.iter().copied().collect::<BTreeSet<_>>(), stage.servers("prefill"), "{one}");
        assert_eq!(named.len(), 2, "nobody is named twice: {one}");
        firsts.insert(named[0]);
    }
    assert_eq!(firsts.len(), 2, "the picker's choice comes first");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_routing_headers_are_removed_in_any_spelling_and_number() {
    const SPELLINGS: &[(&str, &str)] = &[
        ("X-Prefiller-Host-Port", "127.0.0.1:1"),
        ("x-prefiller-host-port", "127.0.0.1:2, 127.0.0.1:3"),
        ("X-PREFILLER-HOST-PORT", ""),
        ("X-Encoder-Hosts-Ports", "127.0.0.1:4"),
        ("x-encoder-hosts-ports", "127.0.0.1:5"),
        ("X-Kv-Cache-Source-Host-Port", "127.0.0.1:6"),
        ("x-kv-cache-source-host-port", " "),
        ("X-Data-Parallel-Host-Port", "127.0.0.1:7"),
        ("x-data-parallel-host-port", "127.0.0.1:8"),
        ("X-Prefiller-Url", "http://127.0.0.1:9"),
    ];
    let never = "- {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 100000}}\n- type: disagg-profile-handler\n  \
                 parameters: {deciders: {prefill: prefix-based-pd-decider}}\n";
    for (plugins, prefills) in [(SPLIT, 1), (never, 0)] {
        let stage = Stage::start(plugins, COMMON, &[]).await;
        let (_, headers) = stage.ask(SPELLINGS, &chat("whose header", 2, true)).await;
        let prefillers = values(&headers, "x-prefiller-host-port");
        assert_eq!(prefillers.len(), prefills, "{prefillers:?}");
        for address in prefillers.iter().flat_map(|value| value.split(',')) {
            assert!(stage.servers("prefill").contains(&address.parse().unwrap()), "{address}");
        }
        for (name, _) in FORGED.iter().skip(1) {
            assert_eq!(values(&headers, name), [""; 0], "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_no_server_has_is_told_and_is_no_overload() {
    let roles = &["prefill", "prefill"];
    let fleet = Fleet::start(2, &[]).await;
    let stage = Stage::with_roles(fleet, roles, SPLIT, COMMON, &[]).await;
    let reply = stage.envoy.http1().post("/v1/chat/completions", &chat("anybody", 2, false)).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.json()["error"]["code"], "none_of_role", "{reply:?}");
    assert_eq!(reply.header("x-llm-d-request-dropped-reason"), "rejected-no-endpoints");
    assert!(reply.text().contains("no endpoint has the role decode"), "{reply:?}");
    let refused =
        stage.pointsman.metric("pointsman_extproc_refusals_total", &[("reason", "none_of_role")]).await;
    assert_eq!(refused, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn phases_of_the_coordinator_are_told_where_nobody_is_there_for_them_or_has_the_prompt() {
    let roles = &["decode", "prefill"];
    let stage = Stage::with_roles(
        Fleet::start(2, &[]).await,
        roles,
        "- {type: approx-prefix-cache-producer}\n- {type: header-profile-handler}\n",
        COMMON,
        &["--allow-experimental-plugins"],
    )
    .await;
    let (client, body) = (stage.envoy.http1(), chat(&"a long way to go ".repeat(60), 2, false).to_string());
    let ask = async |profile: &str, prefer: &str| {
        let headers = [("EPP-Profile", profile), ("Prefer", prefer), ("x-request-id", "one-request")];
        client.post_with("/v1/chat/completions", &headers, body.clone()).await
    };
    assert_eq!(ask("encode", "wait=1").await.status, 503);
    // One request, several picks: decode has nothing yet, prefill computes, decode answers and has the prompt then.
    assert_eq!(ask("decode", "If-Available;x=1").await.status, 412);
    let prefill = ask("prefill", "wait=1").await;
    assert_eq!((prefill.status, prefill.header("x-sim-server")), (200, "sim-1"), "{prefill:?}");
    assert_eq!(ask("decode", "if-available").await.status, 412, "the decode server has nothing of it");
    let decode = ask("decode", "wait=1").await;
    assert_eq!((decode.status, decode.header("x-sim-server")), (200, "sim-0"), "{decode:?}");
    assert_eq!(ask("decode", "wait=5, If-Available").await.status, 200);
}
