//! Command lines, configuration and names by which deployments start a sidecar.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Output;

use serde_json::json;
use tokio::net::TcpStream;

use super::running::Sidecar;
use super::stub::{Stub, answer, events, json as json_answer};
use crate::support::network::Network;
use crate::support::process::Process;
use crate::support::{Client, holds, program};

async fn refused(environment: &[(&str, &str)], words: &[&str]) -> (i32, String) {
    let mut command = tokio::process::Command::new(program());
    command.arg("sidecar").args(words).envs(environment.iter().copied()).kill_on_drop(true);
    let Output { status, stdout, stderr } =
        crate::support::within(&words.join(" "), command.output()).await.unwrap();
    let said = String::from_utf8([stdout, stderr].concat()).unwrap();
    (status.code().unwrap(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_ends_the_start_and_names_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.yaml");
    std::fs::write(&file, "port: 8000\nkv-conector: nixlv2\n").unwrap();
    let file = format!("--configuration-file={}", file.display());
    let missing = format!("--cert-path={}", folder.path().join("none").display());
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let taken = format!("--port={}", taken.local_addr().unwrap().port());
    let cases: &[(&[&str], &[&str])] = &[
        (&["--port=0"], &["--port: got \"0\""]),
        (&["--port=70000"], &["--port: got \"70000\""]),
        (&["--vllm-port=x"], &["--vllm-port: got \"x\""]),
        (&["--model-server-port=0"], &["--model-server-port: got \"0\""]),
        (&["--kv-connector=nixlv3"], &["--kv-connector: got \"nixlv3\"", "did you mean nixlv2?"]),
        (&["--connector=lmcach"], &["--connector: got \"lmcach\"", "did you mean lmcache?"]),
        (&["--ec-connector=ec-none"], &["--ec-connector: got \"ec-none\""]),
        (&["--data-parallel-size=0"], &["--data-parallel-size: got \"0\""]),
        (&["--data-parallel-size=100", "--port=65500"], &["--port: got \"65500\""]),
        (&["--enable-tls=prefill"], &["--enable-tls: got \"prefill\""]),
        (&["--tls-insecure-skip-verify=all"], &["--tls-insecure-skip-verify: got \"all\""]),
        (&["--enable-ssrf-protection"], &["--inference-pool: got \"\""]),
        (&["--enable-ssrf-protection", "--inference-pool=a/b/c"], &["--inference-pool: got \"a/b/c\""]),
        (&["--enable-ssrf-protection", "--inference-pool=p", "--pool-group=x"], &["--pool-group: got \"x\""]),
        (&["--enable-p2p-pull", "--kv-connector=sglang"], &["--enable-p2p-pull"]),
        (&["--prefill-max-retries=2", "--prefill-retry-backoff=0s"], &["--prefill-retry-backoff"]),
        (&["--prefill-retry-backoff=soon"], &["--prefill-retry-backoff: got \"soon\""]),
        (&["--decode-chunk-size=-1"], &["--decode-chunk-size: got \"-1\""]),
        (&["--secure-proxy=maybe"], &["--secure-proxy: got \"maybe\""]),
        (&["--mooncake-bootstrap-port=0"], &["--mooncake-bootstrap-port: got \"0\""]),
        (&["--moriio-write-mode"], &["--moriio-local-pod-ip"]),
        (&["--moriio-parallel-dispatch"], &["--moriio-parallel-dispatch"]),
        (&["--on-prefill-failure=retry"], &["--on-prefill-failure: got \"retry\""]),
        (&["--metrics-port=x"], &["--metrics-port: got \"x\""]),
        (&["--zap-log-level=loud"], &["--zap-log-level: "]),
        (&["-v=much"], &["--v: got \"much\""]),
        (&[&file], &["--configuration-file: line 2: \"kv-conector\"", "did you mean kv-connector?"]),
        (&["--configuration=port: 1", &file], &["exclude each other"]),
        (&["--configuration=[1]"], &["--configuration: line 1"]),
        (&["--configuration-file=/none/such.yaml"], &["--configuration-file: cannot read /none/such.yaml"]),
        (
            &["--port=1", "--kv-connector=x", "--data-parallel-size=0"],
            &["--kv-connector", "--data-parallel-size"],
        ),
        (&["--allowed-endpoints-file=/none/such.yaml"], &["--allowed-endpoints-file"]),
        (&["--print-addresses", "--port=0", &missing], &["--cert-path"]),
        (&["--secure-proxy=false", &taken], &["--port", "cannot listen"]),
    ];
    let all = cases.iter().map(|(words, expected)| async move {
        let (code, said) = refused(&[], words).await;
        assert_eq!(code, 1, "{words:?}: {said}");
        for part in *expected {
            // In a log line quotes stand behind backslashes.
            assert!(said.replace('\\', "").contains(part), "{words:?}: {part} is not in {said}");
        }
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_flag_ends_the_start_as_a_mistake_of_the_command_line() {
    for (words, expected) in [
        (&["--prot=1"][..], "did you mean --port?"),
        (&["--port"], "--port: its value is missing"),
        (&["-vllm_port=1"], "did you mean --vllm-port?"),
    ] {
        let (code, said) = refused(&[], words).await;
        assert_eq!(code, 2, "{words:?}: {said}");
        assert!(said.contains(expected), "{words:?}: {said}");
    }
    for words in [&["--help"][..], &["-h"], &["--version"]] {
        assert_eq!(refused(&[], words).await.0, 0, "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_starts_a_sidecar_by_the_names_of_all_releases() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("app")).unwrap();
    let engine = Stub::plain().await;
    let port = format!("--vllm-port={}", engine.port());
    for name in ["app/pd-sidecar", "app/llm-d-routing-sidecar"] {
        let path: PathBuf = folder.path().join(name);
        symlink(program(), &path).unwrap();
        let words = ["--port=0", &port, "--connector=nixlv2", "-v=5", "--secure-proxy=false"];
        let sidecar = Sidecar::launch(&[], &path, &words).await;
        assert_eq!(sidecar.client().get("/v1/models").await.text(), "{}", "{name}");
    }
    assert_eq!(engine.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_go_before_the_file_and_the_file_before_the_environment() {
    let (prefill, engine) = (Stub::start(|_| json_answer(200, &json!({}))).await, Stub::plain().await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidecar.json");
    let file = format!(
        r#"{{"model-server-port": {}, "kv-connector": "shared-storage", "secure-proxy": false, "data-parallel-size": 0}}"#,
        engine.port()
    );
    std::fs::write(&path, file).unwrap();
    let path = format!("--configuration-file={}", path.display());
    let sidecar = Sidecar::launch(&[], &program(), &["sidecar", "--port=0", &path]).await;
    let target = prefill.addr.to_string();
    let headers = [("x-prefiller-host-port", target.as_str())];
    let reply = sidecar.client().post_with("/v1/completions", &headers, r#"{"prompt":"x"}"#).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(engine.only().json()["cache_hit_threshold"], 0);
    // The flag says another one.
    let words = ["sidecar", "--port=0", &path, "--kv-connector=sglang"];
    let sidecar = Sidecar::launch(&[("SGLANG_BOOTSTRAP_PORT", "9123")], &program(), &words).await;
    sidecar.client().post_with("/v1/completions", &headers, r#"{"prompt":"x"}"#).await;
    assert_eq!(engine.seen()[1].json()["bootstrap_port"], 9123);
    // As text, with a sampler from the environment.
    let text = format!("--configuration=secure-proxy: false\nvllm-port: {}\n", engine.port());
    let environment = [("ENABLE_PREFILLER_SAMPLING", "true"), ("MOONCAKE_BOOTSTRAP_PORT", "8998")];
    let sidecar = Sidecar::launch(&environment, &program(), &["sidecar", "--port=0", &text]).await;
    let many = format!("{target}, {target},{}", super::running::NOBODY);
    let mut codes = std::collections::BTreeSet::new();
    holds("each of the servers is drawn", async || {
        let headers = [("x-prefiller-host-port", many.as_str())];
        codes.insert(sidecar.client().post_with("/v1/completions", &headers, "{}").await.status);
        codes.len() == 2
    })
    .await;
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), [200, 502]);
}

/// The arguments that charts give: those of the walkthrough, of `llm-d-modelservice` 0.3.0 to 0.3.7 and 0.3.8 to
/// 0.4.12 with what their values can switch on, of KServe's template without TLS, of development overlays, and of
/// manifests for the first releases.
const CHARTS: &[&[&str]] = &[
    &["--port=8000", "--vllm-port=8200", "--connector=nixlv2", "-v=5", "--secure-proxy=false"],
    &[
        "--port=8000",
        "--vllm-port=8200",
        "--connector=nixlv2",
        "-v=5",
        "--secure-proxy=false",
        "--prefiller-use-tls=false",
        "--cert-path=/etc/ssl",
    ],
    &[
        "--port=8000",
        "--vllm-port=8200",
        "--connector=nixlv2",
        "--zap-devel=true",
        "--zap-encoder=json",
        "--zap-log-level=debug",
        "--zap-stacktrace-level=error",
        "--zap-time-encoding=epoch",
        "--secure-proxy=false",
    ],
    &["--port=8000", "--vllm-port=8200", "--connector=nixlv2", "--secure-proxy=false"],
    &[
        "--port=8000",
        "--vllm-port=8200",
        "--kv-connector=nixlv2",
        "--ec-connector=ec-nixl",
        "--secure-proxy=false",
    ],
    &[
        "--port=8000",
        "--vllm-port=8200",
        "--kv-connector=nixlv2",
        "--secure-proxy=false",
        "''",
        "",
        "''",
        "--pool-group=inference.networking.x-k8s.io",
    ],
    &["-port=8000", "-vllm-port=8200", "-connector=nixlv2", "-secure-proxy=false", "-v=6", "-logtostderr"],
    &[
        "--port",
        "8000",
        "--model-server-port",
        "8200",
        "--kv-connector",
        "nixlv2",
        "--secure-proxy",
        "false",
        "--zap-log-level",
        "5",
    ],
];

#[tokio::test(flavor = "multi_thread")]
async fn the_command_lines_of_charts_serve_chat_completions_streams_and_models_and_log_no_prompt() {
    let name = "sidecar::commands::the_command_lines_of_charts_serve_chat_completions_streams_and_models_and_log_no_prompt";
    // On a network of its own, as the ports are those of a pod.
    let Some(_network) = Network::of_test(name) else { return };
    let engine = Stub::start_at(8200, None, |seen| match seen.path() {
        "/v1/models" => json_answer(200, &json!({"data": []})),
        _ if seen.text().contains("\"stream\":true") => events(&["{\"a\":1}", "[DONE]"]),
        _ => json_answer(200, &json!({"text": "a secret answer", "usage": {"prompt_tokens": 3}})),
    })
    .await;
    let prefill =
        Stub::start(|_| json_answer(200, &json!({"kv_transfer_params": {"remote_engine_id": "e"}}))).await;
    let target = prefill.addr.to_string();
    for words in CHARTS {
        let process = Process::start("sidecar", &program(), [&["sidecar"], *words].concat());
        let addr = SocketAddr::from(([127, 0, 0, 1], 8000));
        holds("it listens", async || TcpStream::connect(addr).await.is_ok()).await;
        let client = Client::http1(addr);
        assert_eq!(client.get("/v1/models").await.json(), json!({"data": []}), "{words:?}");
        let prompt = r#"{"messages":[{"role":"user","content":"a secret prompt"}],"max_tokens":7}"#;
        let stream = r#"{"prompt":"a secret prompt","stream":true}"#;
        for headers in [&[][..], &[("x-prefiller-host-port", target.as_str())]] {
            let reply = client.post_with("/v1/chat/completions", headers, prompt).await;
            assert_eq!(reply.json()["text"], "a secret answer", "{words:?}");
            let reply = client.post_with("/v1/completions", headers, stream).await;
            assert_eq!(reply.text(), "data: {\"a\":1}\n\ndata: [DONE]\n\n", "{words:?}");
        }
        process.terminate().await;
        let mut process = process;
        assert!(process.ended().await.success(), "{words:?}");
        let log = process.log().join("\n");
        assert!(!log.contains("secret"), "{words:?}: {log}");
        let deprecated =
            words.iter().any(|word| word.contains("vllm-port") || word.contains("connector=nixlv2 "));
        assert_eq!(log.contains("is deprecated; today it is"), deprecated, "{words:?}: {log}");
    }
    assert_eq!(prefill.seen().len(), 2 * CHARTS.len());
    assert_eq!(engine.seen().len(), 5 * CHARTS.len());
    let handed = engine
        .seen()
        .iter()
        .filter(|seen| {
            seen.path() != "/v1/models"
                && seen.json()["kv_transfer_params"] == json!({"remote_engine_id": "e"})
        })
        .count();
    assert_eq!(handed, 2 * CHARTS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_have_ports_and_engines_of_their_own_and_the_header_chooses_one() {
    let name = "sidecar::commands::ranks_have_ports_and_engines_of_their_own_and_the_header_chooses_one";
    let Some(_network) = Network::of_test(name) else { return };
    let engines = [
        Stub::start_at(8200, None, |_| answer(200, "", "0")).await,
        Stub::start_at(8201, None, |_| answer(200, "", "1")).await,
    ];
    let words = ["sidecar", "--secure-proxy=false", "--data-parallel-size=2", "--kv-connector=nixlv2"];
    for ip in ["10.1.1.1", ""] {
        let environment = [("POD_IP", ip)];
        let mut process = Process::start_in(&environment, "sidecar", &program(), words);
        let of = |rank: u16| SocketAddr::from(([127, 0, 0, 1], 8000 + rank));
        holds("both listen", async || {
            TcpStream::connect(of(0)).await.is_ok() && TcpStream::connect(of(1)).await.is_ok()
        })
        .await;
        let ask = async |rank, value: &str| {
            let headers = [("x-data-parallel-host-port", value)];
            let headers = if value.is_empty() { &[][..] } else { &headers };
            let reply = Client::http1(of(rank)).post_with("/v1/chat/completions", headers, "{}").await;
            (reply.status, reply.text().to_owned())
        };
        assert_eq!(ask(0, "10.1.1.1:8001").await, (200, "1".to_owned()));
        assert_eq!(ask(0, "10.1.1.1:8000").await, (200, "0".to_owned()));
        assert_eq!(ask(0, "").await, (200, "0".to_owned()));
        assert_eq!(ask(1, "").await, (200, "1".to_owned()));
        let (status, body) = ask(0, "10.1.1.1:8005").await;
        assert!(status == 400 && body.contains("x-data-parallel-host-port"), "{status} {body}");
        assert_eq!(ask(0, "10.9.9.9:8001").await.0, if ip.is_empty() { 200 } else { 400 });
        // The header of another rank's port is nobody's.
        assert_eq!(ask(1, "10.1.1.1:8000").await, (200, "1".to_owned()));
        process.kill().await;
    }
    for seen in engines.iter().flat_map(Stub::seen) {
        assert_eq!(seen.all("x-data-parallel-host-port"), [""; 0]);
    }
}
