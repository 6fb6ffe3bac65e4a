//! Pages beside the metrics: the load of clusters, and lists of models.

use std::net::SocketAddr;

use crate::support::{
    Client, EndpointsFile, Pointsman, Proxy, Script, Scripted, body, chat, destination, headers, holds,
};

const PAGES: [&str; 2] = [
    "llm_d_epp_average_queue_size 9\nllm_d_epp_average_kv_cache_utilization 0.5\n",
    "llm_d_epp_average_queue_size 1\nllm_d_epp_average_kv_cache_utilization 0.5\n",
];

async fn started(
    pages: [&'static str; 2],
    plugins: &str,
    source: &str,
) -> (Vec<Scripted>, Pointsman, EndpointsFile) {
    let mut servers = Vec::new();
    for page in pages {
        servers.push(Scripted::start(move |_, _| Script::json(page)).await);
    }
    let named: Vec<(String, SocketAddr)> =
        servers.iter().enumerate().map(|(number, server)| (format!("s-{number}"), server.addr)).collect();
    let listed = EndpointsFile::listed(named.iter().map(|(name, addr)| (name.as_str(), *addr)));
    let endpoints = EndpointsFile::of(&listed);
    let config = format!(
        "plugins:\n- type: file-discovery\n  parameters: {{path: {}}}\n- type: max-score-picker\n{plugins}\
         dataLayer:\n  discovery: {{pluginRef: file-discovery}}\n  sources:\n{source}",
        endpoints.path().display()
    );
    let flags = ["--secure-serving=false", "--allow-experimental-plugins"];
    let pointsman = Pointsman::start(&config, &flags).await;
    (servers, pointsman, endpoints)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_to_the_cluster_whose_page_tells_of_the_shorter_queue() {
    let plugins = "- type: multicluster-metrics-data-source\n  parameters: {scheme: http, path: /figures, interval: 50ms}\n\
                   - type: multicluster-queue-scorer\n";
    let source = "  - pluginRef: multicluster-metrics-data-source\n    extractors: [{pluginRef: multicluster-metrics-extractor}]\n";
    let (servers, pointsman, _endpoints) = started(PAGES, plugins, source).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    let ask = async || {
        let mut exchange = proxy.open().await;
        exchange.say(headers("/v1/chat/completions", [], false)).await;
        exchange.say(body(chat("hello", 1, false).to_string(), true)).await;
        destination(&exchange.answer().await.unwrap().unwrap())
    };
    let quiet = servers[1].addr.to_string();
    holds("eight requests in a row go to the quiet cluster", async || {
        for _ in 0..8 {
            if ask().await.as_ref() != Some(&quiet) {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_models_are_fetched_and_shown() {
    let list = r#"{"object":"list","data":[{"id":"m-one"},{"id":"m-two"}]}"#;
    let plugins = "- type: models-data-source\n  parameters: {interval: 50ms}\n- type: models-data-extractor\n- type: queue-scorer\n";
    let source = "  - pluginRef: models-data-source\n    extractors: [{pluginRef: models-data-extractor}]\n";
    let (_servers, pointsman, _endpoints) = started([list, list], plugins, source).await;
    holds("the page of plugins shows both models on both servers", async || {
        let page = Client::http1(pointsman.metrics).get("/debug/plugins/state").await.text().to_owned();
        page.contains("\"m-one\":2") || page.contains("\"m-one\": 2")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_from_a_file_are_scraped_where_their_labels_say() {
    // What a cluster serves says the opposite of what its metrics say.
    let (mut serving, mut metrics) = (Vec::new(), Vec::new());
    for (own, elsewhere) in [(PAGES[1], PAGES[0]), (PAGES[0], PAGES[1])] {
        serving.push(Scripted::start(move |_, _| Script::json(own)).await);
        metrics.push(Scripted::start(move |_, _| Script::json(elsewhere)).await);
    }
    let rows = serving.iter().zip(&metrics).enumerate().map(|(number, (serves, tells))| {
        let place = ["127.0.0.1", "localhost"][number];
        format!(
            "- {{name: c-{number}, address: localhost, port: \"{}\", labels: {{metricsAddress: {place}, metricsPort: \"{}\"}}}}\n",
            serves.addr.port(),
            tells.addr.port()
        )
    });
    let endpoints = EndpointsFile::of(&format!("endpoints:\n{}", rows.collect::<String>()));
    let config = format!(
        "plugins:\n- type: multicluster-file-discovery\n  parameters: {{path: {}}}\n- type: max-score-picker\n\
         - type: multicluster-metrics-data-source\n  parameters: {{scheme: http, path: /figures, interval: 50ms}}\n\
         - type: multicluster-queue-scorer\ndataLayer:\n  discovery: {{pluginRef: multicluster-file-discovery}}\n  sources:\n\
         \x20 - pluginRef: multicluster-metrics-data-source\n    extractors: [{{pluginRef: multicluster-metrics-extractor}}]\n",
        endpoints.path().display()
    );
    let flags = ["--secure-serving=false", "--allow-experimental-plugins"];
    let pointsman = Pointsman::start(&config, &flags).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    let quiet = serving[1].addr.to_string();
    holds("eight requests in a row go to the cluster whose metrics tell of the shorter queue", async || {
        for _ in 0..8 {
            let mut exchange = proxy.open().await;
            exchange.say(headers("/v1/chat/completions", [], false)).await;
            exchange.say(body(chat("hello", 1, false).to_string(), true)).await;
            if destination(&exchange.answer().await.unwrap().unwrap()).as_ref() != Some(&quiet) {
                return false;
            }
        }
        true
    })
    .await;
}
