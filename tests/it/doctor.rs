//! `pointsman doctor` finds each fault where it is set up, and nothing where all is sound.

mod cluster;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    BodyMode, Client, EndpointsFile, Fleet, Pointsman, Recorder, Script, Scripted, Stack, chat, config,
    holds, program,
};

/// What doctor found, as a document, and its exit code.
pub(crate) async fn doctor(arguments: &[&str]) -> (Value, i32) {
    let mut command = tokio::process::Command::new(program());
    command.arg("doctor").args(arguments).arg("--json").env_remove("POINTSMAN_URL");
    let output = command.output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
    (document, output.status.code().unwrap())
}

/// Names of the rules that found something.
pub(crate) fn rules(document: &Value) -> Vec<&str> {
    document["findings"].as_array().unwrap().iter().map(|finding| finding["rule"].as_str().unwrap()).collect()
}

fn url(picker: &Pointsman) -> String {
    format!("http://{}", picker.metrics)
}

/// What doctor finds at a picker.
async fn at(picker: &Pointsman) -> (Value, i32) {
    doctor(&["--url", &url(picker)]).await
}

/// A picker before these endpoints, with these scorers.
async fn picker(endpoints: &EndpointsFile, flags: &[&str]) -> Pointsman {
    let scorers = [("queue-scorer", 1), ("prefix-cache-scorer", 1)];
    Pointsman::start(&config(&endpoints.path(), &scorers), flags).await
}

#[tokio::test]
async fn doctor_says_nothing_of_a_sound_installation_with_envoy() {
    let scorers = [("queue-scorer", 1), ("prefix-cache-scorer", 1)];
    let fleet = Fleet::start(2, &[]).await;
    let stack = Stack::scoring(fleet, BodyMode::FullDuplexStreamed, &scorers, &[]).await;
    assert_eq!(stack.client().post("/v1/chat/completions", &chat("hello", 2, false)).await.status, 200);
    let admin = format!("http://{}", stack.envoy.admin);
    let (found, code) = doctor(&["--url", &url(&stack.pointsman), "--envoy-admin", &admin]).await;
    assert_eq!((rules(&found), code), (vec![], 0), "{found:#}");
    let looked = found["looked_at"].to_string();
    assert!(looked.contains("2 model servers") && looked.contains("Envoy 1."), "{looked}");
    assert_eq!(found["severity"], "sound");
}

#[tokio::test]
async fn a_picker_that_is_not_there_and_a_wrong_flag_have_exit_codes_of_their_own() {
    let (found, code) = doctor(&["--url", "http://127.0.0.1:1"]).await;
    assert_eq!((rules(&found), code), (vec!["picker-unreachable"], 2));
    let (found, code) = doctor(&["--envoy-admin", "http://127.0.0.1:1"]).await;
    assert_eq!(code, 2, "{found}");
    assert!(rules(&found).contains(&"envoy-unreachable"), "{found}");
    let output = Command::new(program()).args(["doctor", "--ulr", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[tokio::test]
async fn a_server_that_does_not_answer_and_a_port_where_nobody_listens_are_found() {
    let fleet = Fleet::start(1, &[]).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoints = EndpointsFile::with(fleet.list().chain([("dead", free)]));
    let picker = picker(&endpoints, &[]).await;
    holds("the good server is read", async || {
        picker.metric("pointsman_scrape_state", &[("state", "fresh")]).await == Some(1.0)
    })
    .await;
    let (found, code) = at(&picker).await;
    assert_eq!((rules(&found), code), (vec!["scrape-failing", "nothing-listens"], 2), "{found:#}");
    let subject = found["findings"][0]["subject"].as_str().unwrap();
    assert!(
        subject.contains("dead") && found["findings"][1]["problem"].as_str().unwrap().contains("refuses")
    );
}

#[tokio::test]
async fn figures_that_went_stale_are_found() {
    let mut fleet = Fleet::start_apart(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let picker = picker(&endpoints, &["--metrics-staleness-threshold", "300ms"]).await;
    holds("both are read", async || {
        picker.metric("pointsman_scrape_state", &[("state", "fresh")]).await == Some(2.0)
    })
    .await;
    fleet.kill(1).await;
    holds("one is lost", async || {
        picker.metric("pointsman_scrape_state", &[("state", "fresh")]).await == Some(1.0)
    })
    .await;
    let (found, _) = at(&picker).await;
    assert!(rules(&found).contains(&"scrape-failing"), "{found:#}");
}

#[tokio::test]
async fn blocks_of_other_sizes_and_a_cache_that_is_off_are_found() {
    let fleet = Fleet::start(1, &["--block-size", "32"]).await;
    let off = Recorder::start_with_page(OFF).await;
    let endpoints = EndpointsFile::with(fleet.list().chain([("off", off.addr)]));
    let text = config(&endpoints.path(), &[("queue-scorer", 1), ("prefix-cache-scorer", 1)]).replace(
        "- type: prefix-cache-scorer\n",
        "- type: approx-prefix-cache-producer\n  parameters: {blockSizeTokens: 16, autoTune: false}\n- type: prefix-cache-scorer\n",
    );
    let picker = Pointsman::start(&text, &[]).await;
    holds("both are read", async || {
        picker.metric("pointsman_scrape_state", &[("state", "fresh")]).await == Some(2.0)
    })
    .await;
    let (found, code) = at(&picker).await;
    let found_rules = rules(&found);
    for rule in
        ["block-size-differs-from-configuration", "block-size-differs-between-servers", "prefix-caching-off"]
    {
        assert!(found_rules.contains(&rule), "{rule}: {found:#}");
    }
    assert_eq!(code, 2);
    let mend = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["mend"].as_str().unwrap())
        .collect::<Vec<_>>();
    assert!(mend.iter().any(|line| line.contains("blockSizeTokens: 32")), "{mend:?}");
}

/// A page of a server whose prefix cache is off.
const OFF: &str = "vllm:num_requests_running{model_name=\"m\"} 0.0\nvllm:num_requests_waiting{model_name=\"m\"} 0.0\n\
    vllm:kv_cache_usage_perc{model_name=\"m\"} 0.0\n\
    vllm:cache_config_info{block_size=\"16\",enable_prefix_caching=\"False\",num_gpu_blocks=\"100\"} 1.0\n";

#[tokio::test]
async fn pages_that_lack_series_are_found() {
    let lacking = Recorder::start_with_page("vllm:num_requests_running{model_name=\"m\"} 0.0\n").await;
    let picker = picker(&EndpointsFile::with([("lacking", lacking.addr)]), &[]).await;
    holds("pages are read", async || {
        picker.metric("llm_d_epp_datalayer_extract_errors_total", &[]).await.unwrap_or(0.0) > 0.0
    })
    .await;
    let (found, _) = at(&picker).await;
    assert!(rules(&found).contains(&"scrape-lacks-series"), "{found:#}");
}

#[tokio::test]
async fn a_page_that_is_filtered_on_the_way_is_found() {
    // The whole page is shown to doctor alone: to the picker, which asks for names, the cache is left out.
    let fleet = Fleet::start(1, &[]).await;
    let server = fleet.servers[0].addr;
    let proxy = filtering(server).await;
    let picker = picker(&EndpointsFile::with([("filtered", proxy)]), &[]).await;
    holds("it is read", async || {
        picker.metric("pointsman_scrape_state", &[("state", "fresh")]).await == Some(1.0)
    })
    .await;
    let (found, _) = at(&picker).await;
    assert!(rules(&found).contains(&"scrape-filtered-wrongly"), "{found:#}");
}

/// A proxy that takes the cache out of every page but those that are asked for on a connection of their own.
async fn filtering(server: std::net::SocketAddr) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.unwrap_or(0) > 0 {
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let doctor = String::from_utf8_lossy(&head).contains("content-type: application/json");
                    let page = Client::http1(server).get("/metrics").await.text().to_owned();
                    let kept: Vec<&str> =
                        page.lines().filter(|line| doctor || !line.contains("cache_config")).collect();
                    let page = kept.join("\n") + "\n";
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{page}",
                        page.len()
                    );
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    head.clear();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn engines_whose_cache_events_are_not_heard_are_found() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text = config(&endpoints.path(), &[("queue-scorer", 1), ("precise-prefix-cache-scorer", 1)]);
    let picker = Pointsman::start(&text, &["--allow-experimental-plugins"]).await;
    fleet.servers[0].client().post("/v1/chat/completions", &chat("hello", 2, false)).await;
    let (found, code) = at(&picker).await;
    assert!(rules(&found).contains(&"kv-events-unconnected"), "{found:#}");
    assert!(rules(&found).contains(&"kv-events-silent"), "{found:#}");
    assert_eq!(code, 2);
}

#[tokio::test]
async fn deprecated_flags_and_fields_in_use_are_found_with_the_new_ones() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text = config(&endpoints.path(), &[("queue-scorer", 1)])
        .replace("llm-d.ai/v1alpha1", "config.x-k8s.io/v1alpha1");
    let picker =
        Pointsman::start(&text, &["--poolNamespace", "n", "--cache-info-metric", "vllm:cache_config_info"])
            .await;
    holds("the server was read", async || {
        picker.metric("pointsman_scrape_state", &[("state", "fresh")]).await == Some(1.0)
    })
    .await;
    let (found, code) = at(&picker).await;
    assert_eq!(code, 1, "{found:#}");
    let told = found["findings"].to_string();
    assert!(told.contains("`--pool-namespace` in its place") && told.contains("cacheInfoSpec"), "{told}");
    assert!(rules(&found).contains(&"configuration-warning"), "{told}");
}

#[tokio::test]
async fn a_refused_reload_and_replicas_that_differ_are_found() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config(&endpoints.path(), &[("queue-scorer", 1)])).unwrap();
    let path = file.path().to_str().unwrap();
    let flags =
        ["--config-file", path, "--tracing=false", "--pool-name", "test-pool", "--watch-config-file=false"];
    let one = Pointsman::start_in(&[], &flags).await;
    let other = picker(&endpoints, &[]).await;
    let (found, code) = doctor(&["--url", &url(&one), "--url", &url(&other)]).await;
    assert_eq!((rules(&found), code), (vec!["configurations-differ"], 2), "{found:#}");
    std::fs::write(file.path(), "plugins: [{type: nobody}]").unwrap();
    let reply = Client::http1(one.metrics).post("/-/reload", &json!({})).await;
    assert_eq!(reply.status, 422);
    let (found, _) = doctor(&["--url", &url(&one), "--config-file", path]).await;
    assert_eq!(rules(&found), ["reload-refused", "configuration-faulty"], "{found:#}");
}

#[tokio::test]
async fn a_clock_that_is_ahead_and_series_that_are_absent_are_found() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let picker = picker(&endpoints, &[]).await;
    holds("it is read", async || {
        picker.metric("pointsman_scrape_state", &[("state", "fresh")]).await == Some(1.0)
    })
    .await;
    let metrics = picker.metrics;
    let (pool, plugins) = (page(metrics, "/debug/pool").await, page(metrics, "/debug/plugins/state").await);
    // A picker of another day. The metrics page of this server is a model server's.
    let pool =
        pool.replace(&pool[pool.find("\"timestamp\":\"20").unwrap()..][..23], "\"timestamp\":\"2099-01-01");
    let replica = Scripted::start(move |line, _| {
        let body = match line.split(' ').nth(1).unwrap_or_default() {
            "/debug/pool" => &pool,
            "/debug/plugins/state" => &plugins,
            _ => "null",
        };
        Script::json(body)
    })
    .await;
    let (found, _) = doctor(&["--url", &format!("http://{}", replica.addr)]).await;
    assert!(rules(&found).contains(&"clock-skew"), "{found:#}");
    assert!(rules(&found).contains(&"series-absent"), "{found:#}");
}

async fn page(address: std::net::SocketAddr, path: &str) -> String {
    Client::http1(address).get(path).await.text().to_owned()
}

#[tokio::test]
async fn what_breaks_long_requests_in_envoy_is_found() {
    let fleet = Fleet::start(1, &[]).await;
    let scorers = [("queue-scorer", 1)];
    let stack = Stack::scoring(fleet, BodyMode::BufferedPartial, &scorers, &[]).await;
    let admin = format!("http://{}", stack.envoy.admin);
    let (found, code) = doctor(&["--url", &url(&stack.pointsman), "--envoy-admin", &admin]).await;
    assert_eq!((rules(&found), code), (vec!["envoy-answer-held", "envoy-request-cut"], 2), "{found:#}");
}

#[test]
fn check_has_the_rules_that_need_no_process() {
    let check = |arguments: &[&str]| {
        let output = Command::new(program()).arg("check").args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = root.join("deploy/envoy/envoy.yaml");
    let (code, told) = check(&["--envoy-file", shipped.to_str().unwrap()]);
    assert!(code == 0 && told.ends_with("envoy.yaml is good: 0 errors, 0 warnings\n"), "{told}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("envoy.yaml");
    let text =
        std::fs::read_to_string(shipped).unwrap().replace("message_timeout: 1000s", "message_timeout: 30s");
    std::fs::write(&file, text).unwrap();
    let waits = "featureGates: [flowControl]\nplugins: [{type: queue-scorer}]\n";
    let (code, told) = check(&["--config-text", waits, "--envoy-file", file.to_str().unwrap()]);
    assert!(
        code == 1 && told.contains("# error: ") && told.contains("mend: `message_timeout: 900s`"),
        "{told}"
    );
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, "expr: inference_pool_ready_pods > 0\n").unwrap();
    let (code, told) = check(&["--monitoring", rules.to_str().unwrap()]);
    assert!(code == 0 && told.contains("mend: `llm_d_epp_ready_endpoints`"), "{told}");
    let (code, told) = check(&["--", "--poolName", "x", "--grpc-port", "9002"]);
    assert!(code == 0 && told.contains("`--pool-name` in its place"), "{told}");
    let (code, told) = check(&["--", "--no-such-flag", "x"]);
    assert!(code == 1 && told.contains("no-such-flag"), "{told}");
}
