//! Plugins that act on a request on its way to the scheduler, and those that go by attributes of endpoints.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use pointsman::extproc::wire::Response;

use crate::support::{
    EndpointsFile, Pointsman, Proxy, Script, Scripted, body, chat, destination, headers, holds,
};

const FLAGS: &[&str] = &["--secure-serving=false", "--allow-experimental-plugins"];

/// Servers whose metrics pages say this, behind the program with these rows of `plugins`, whose profile names these.
struct Bench {
    servers: Vec<Scripted>,
    pointsman: Pointsman,
    proxy: Proxy,
    _endpoints: EndpointsFile,
}

impl Bench {
    async fn start(pages: &[String], plugins: &str, profile: &[&str], objectives: &str) -> Self {
        let plugins = format!("{plugins}- type: random-picker\n");
        Self::start_with(pages, &plugins, profile, "random-picker", objectives).await
    }

    /// The same with a picker out of `plugins`.
    async fn start_with_picker(pages: &[String], plugins: &str, profile: &[&str], picker: &str) -> Self {
        Self::start_with(pages, plugins, profile, picker, "").await
    }

    async fn start_with(
        pages: &[String],
        plugins: &str,
        profile: &[&str],
        picker: &str,
        objectives: &str,
    ) -> Self {
        let mut servers = Vec::new();
        for page in pages {
            let page = page.clone();
            servers.push(Scripted::start(move |_, _| Script::json(&page)).await);
        }
        let named: Vec<(String, SocketAddr)> =
            servers.iter().enumerate().map(|(number, server)| (format!("s-{number}"), server.addr)).collect();
        let listed = EndpointsFile::listed(named.iter().map(|(name, addr)| (name.as_str(), *addr)));
        let endpoints = EndpointsFile::of(&(listed + objectives));
        let rows: String = profile.iter().map(|name| format!("  - pluginRef: {name}\n")).collect();
        let config = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: file-discovery\n  \
             parameters: {{path: {}}}\n{plugins}- type: metrics-data-source\n  parameters: {{path: /figures}}\n\
             schedulingProfiles:\n- name: default\n  \
             plugins:\n{rows}  - pluginRef: {picker}\ndataLayer: {{discovery: {{pluginRef: file-discovery}}}}\n",
            endpoints.path().display()
        );
        let pointsman = Pointsman::start(&config, FLAGS).await;
        let all = pages.len() as f64;
        holds("every server was scraped", async || {
            pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(all)
        })
        .await;
        let proxy = Proxy::connect(pointsman.grpc).await;
        Self { servers, pointsman, proxy, _endpoints: endpoints }
    }

    /// The answer to the headers of a chat request with these further headers.
    async fn ask(&self, further: &[(&str, &str)]) -> Response {
        let mut exchange = self.proxy.open().await;
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let further = further.iter().map(|(name, value)| (bytes(name), bytes(value)));
        exchange.say(headers("/v1/chat/completions", further, false)).await;
        exchange.say(body(chat("hello", 1, false).to_string(), true)).await;
        exchange.answer().await.unwrap().unwrap()
    }

    /// Numbers of the servers that 30 requests go to.
    async fn chosen(&self) -> BTreeSet<usize> {
        let mut chosen = BTreeSet::new();
        for _ in 0..30 {
            let picked = destination(&self.ask(&[]).await).unwrap();
            chosen.extend(self.servers.iter().position(|server| server.addr.to_string() == picked));
        }
        chosen
    }
}

/// A page with this queue, and a figure of the operator's own.
fn page(waiting: u32, own: f64) -> String {
    format!(
        "vllm:num_requests_waiting {waiting}\nown:figure{{kind=\"a\"}} 9\nown:figure{{kind=\"b\"}} {own}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_an_agent_becomes_the_fairness_id_of_requests_that_send_none() {
    let plugins = "- type: agent-identity\n  parameters: {additionalSessionHeaders: [X-Own-Session]}\n";
    let bench = Bench::start(&[page(0, 0.0)], plugins, &[], "").await;
    bench.ask(&[("session-id", "usual")]).await;
    bench.ask(&[("session-id", "usual"), ("x-own-session", "own")]).await;
    bench.ask(&[("session-id", "usual"), ("x-llm-d-inference-fairness-id", "given")]).await;
    bench.ask(&[]).await;
    for id in ["usual", "own", "given", "default-flow"] {
        let count = bench.pointsman.metric("llm_d_epp_request_total", &[("fairness_id", id)]).await;
        assert_eq!(count, Some(1.0), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sheddable_requests_are_refused_with_429_as_the_pool_fills_and_others_are_not() {
    // The detector would refuse all sheddable requests of a full pool before the admitter is asked.
    let plugins = "- type: probabilistic-admitter\n- type: utilization-detector\n  \
                   parameters: {queueDepthThreshold: 1000}\n";
    let objectives = "objectives: [{name: bulk, priority: -1}]\n";
    let bench = Bench::start(&[page(50, 0.0)], plugins, &[], objectives).await;
    let bulk = ("x-llm-d-inference-objective", "bulk");
    holds("the queue was read", async || matches!(bench.ask(&[bulk]).await, Response::ImmediateResponse(_)))
        .await;
    let Response::ImmediateResponse(refusal) = bench.ask(&[bulk]).await else { panic!("not refused") };
    assert_eq!(refusal.status.unwrap().code, 429);
    let text = String::from_utf8_lossy(&refusal.body).into_owned();
    assert!(text.contains("not_admitted") && text.contains("probabilistic-admitter"), "{text}");
    assert!(destination(&bench.ask(&[]).await).is_some());
    let refused =
        bench.pointsman.metric("pointsman_extproc_refusals_total", &[("reason", "not_admitted")]).await;
    assert!(refused.unwrap() >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_chosen_by_a_figure_of_the_operators_own() {
    let plugins = "- type: core-metrics-extractor\n  parameters:\n    engineConfigs:\n    - name: vllm\n      \
                   queuedRequestsSpec: vllm:num_requests_waiting\n      \
                   customMetrics: [{attributeKey: own, metricSpec: 'own:figure{kind=\"b\"}'}]\n\
                   - type: endpoint-attribute-filter\n  parameters:\n    attribute: own\n    onMissing: Fail\n    \
                   algorithm: {type: threshold, threshold: {operator: LessThan, value: 0.5}}\n";
    let pages = [page(0, 0.9), page(0, 0.2), "vllm:num_requests_waiting 0\n".to_owned(), page(0, 0.4)];
    let bench = Bench::start(&pages, plugins, &["endpoint-attribute-filter"], "").await;
    holds("the figure was read", async || destination(&bench.ask(&[]).await).is_some()).await;
    holds("both servers below the bound are chosen", async || bench.chosen().await == [1, 3].into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_one_prompt_that_come_together_go_to_one_server() {
    let plugins = "- type: burst-prefix-cache-producer\n  parameters: {windowDurationMs: 500}\n\
                   - type: prefix-cache-scorer\n  parameters: {prefixMatchInfoProducerName: burst-prefix-cache-producer}\n\
                   - type: max-score-picker\n";
    let pages = [page(0, 0.0), page(0, 0.0), page(0, 0.0)];
    let bench = Bench::start_with_picker(&pages, plugins, &["prefix-cache-scorer"], "max-score-picker").await;
    let ask = async |prompt: &str| {
        let mut exchange = bench.proxy.open().await;
        exchange.say(headers("/v1/chat/completions", [], false)).await;
        exchange.say(body(chat(&prompt.repeat(200), 1, false).to_string(), true)).await;
        destination(&exchange.answer().await.unwrap().unwrap()).unwrap()
    };
    let began = std::time::Instant::now();
    let prompts = ["one ", "two ", "six ", "six ", "two ", "one "];
    let chosen = futures_util::future::join_all(prompts.map(ask)).await;
    assert!(began.elapsed() >= std::time::Duration::from_millis(400), "they waited for their window");
    let back: Vec<&String> = chosen.iter().rev().collect();
    assert_eq!(chosen.iter().collect::<Vec<_>>(), back, "equal prompts go to one server");
    assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), 3, "each prompt has a server of its own");
    let done = [("outcome", "done"), ("plugin_name", "burst-prefix-cache-producer")];
    assert_eq!(bench.pointsman.metric("pointsman_preparations_total", &done).await, Some(6.0));
}
