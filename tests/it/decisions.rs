//! Records of decisions: why a request went where it went, asked of the running program.

use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{BodyMode, Client, Fleet, Stack, chat, eventually, program};

const FAIRNESS: &str = "x-llm-d-inference-fairness-id";

/// Clients at once.
const CLIENTS: usize = 16;

/// One request and what its client saw.
struct Sent {
    fairness_id: String,
    status: u16,
    server: String,
    header: String,
}

/// Sends `count` mixed requests: chats with and without streaming, completions, pages, and bodies that are no JSON.
async fn traffic(stack: &Stack, count: usize) -> Vec<Sent> {
    let client = Arc::new(stack.envoy.http2());
    let mut sent = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..count {
        let client = Arc::clone(&client);
        if tasks.len() == CLIENTS {
            sent.push(tasks.join_next().await.unwrap().unwrap());
        }
        tasks.spawn(async move {
            let fairness_id = format!("flow-{index}");
            let headers = [(FAIRNESS, fairness_id.as_str())];
            let text = format!("tell me story {} ", index % 7).repeat(40 + index % 5);
            let chats = "/v1/chat/completions";
            let (path, body) = match index % 10 {
                0 => ("/v1/models", String::new()),
                1 => (chats, "no object".to_owned()),
                2..=4 => (chats, chat(&text, 2, true).to_string()),
                5 | 6 => {
                    let body = json!({"model": "sim-model", "prompt": text, "max_tokens": 2});
                    ("/v1/completions", body.to_string())
                }
                _ => (chats, chat(&text, 2, false).to_string()),
            };
            let reply = match body.as_str() {
                "" => client.get_with(path, &headers).await,
                _ => client.post_with(path, &headers, body).await,
            };
            let header = |name| {
                if reply.headers.contains_key(name) { reply.header(name).to_owned() } else { String::new() }
            };
            Sent {
                fairness_id,
                status: reply.status,
                server: header("x-sim-server"),
                header: header("x-pointsman-decision"),
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        sent.push(done.unwrap());
    }
    sent
}

async fn page(stack: &Stack, path: &str) -> Value {
    let reply = Client::http1(stack.pointsman.metrics).get(path).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}

/// The record of the request that this flow sent.
async fn record(stack: &Stack, fairness_id: &str) -> Value {
    let list = page(stack, &format!("/debug/decisions?fairness_id={fairness_id}&limit=2")).await;
    assert_eq!(list["decisions"].as_array().unwrap().len(), 1, "one record of {fairness_id}: {list}");
    let id = list["decisions"][0]["id"].as_str().unwrap().to_owned();
    page(stack, &format!("/debug/decisions/{id}")).await
}

/// The pick of `max-score-picker`, made again from the record: of the highest totals, one is drawn.
fn drawn_again(profile: &Value) -> String {
    let rows = profile["rows"].as_array().unwrap();
    let total = |row: &Value| row["total"].as_f64().unwrap();
    let highest = rows.iter().map(total).fold(f64::MIN, f64::max);
    let ties: Vec<&Value> = rows.iter().filter(|row| total(row) >= highest).collect();
    let seed = profile["draw"].as_str().unwrap().parse().unwrap();
    let mut rng = fastrand::Rng::with_seed(seed);
    let chosen = if ties.len() > 1 { rng.usize(..ties.len()) } else { 0 };
    ties[chosen]["endpoint"].as_str().unwrap().to_owned()
}

fn assert_sums(profile: &Value) {
    let weights: Vec<f64> = profile["scorers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|scorer| scorer["weight"].as_f64().unwrap())
        .collect();
    assert_eq!(weights.len(), 3, "{profile}");
    for row in profile["rows"].as_array().unwrap() {
        let scores = row["scores"].as_array().unwrap();
        assert_eq!(scores.len(), weights.len(), "{row}");
        let sum: f64 =
            scores.iter().zip(&weights).map(|(score, weight)| score.as_f64().unwrap() * weight).sum();
        assert!((sum - row["total"].as_f64().unwrap()).abs() < 1e-5, "{row} is no sum of {weights:?}");
    }
}

async fn stack(flags: &[&str]) -> Stack {
    let fleet = Fleet::start(4, &[]).await;
    let scorers = [("queue-scorer", 2), ("kv-cache-utilization-scorer", 1), ("prefix-cache-scorer", 3)];
    Stack::scoring(fleet, BodyMode::FullDuplexStreamed, &scorers, flags).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_a_thousand_mixed_requests_has_a_record_that_names_its_server_and_adds_up() {
    let stack = stack(&["--decision-header"]).await;
    let sent = traffic(&stack, 1000).await;
    stack.assert_idle().await;
    let list = page(&stack, "/debug/decisions?limit=1000").await;
    assert_eq!(
        (list["kept"].as_u64(), list["one_in"].as_u64()),
        (Some(1000), Some(1)),
        "nothing was sampled out"
    );
    for (index, sent) in sent.iter().enumerate() {
        let record = record(&stack, &sent.fairness_id).await;
        if sent.server.is_empty() {
            assert_eq!(record["refusal"]["status"].as_u64(), Some(u64::from(sent.status)), "{record}");
            assert_eq!(record["outcome"]["state"], "refused");
            continue;
        }
        let candidates = record["candidates"].as_array().unwrap();
        assert_eq!(candidates.len(), 4);
        let winner = record["endpoint"].as_str().unwrap();
        let address = candidates.iter().find(|row| row["endpoint"] == winner).unwrap()["address"].as_str();
        assert_eq!(
            address.unwrap(),
            stack.fleet.named(&sent.server).addr.to_string(),
            "the winner served: {record}"
        );
        assert_eq!(record["outcome"]["served_by"], winner);
        assert_eq!(record["outcome"]["status"].as_u64(), Some(u64::from(sent.status)));
        let profile = &record["profiles"][0];
        assert_sums(profile);
        assert_eq!(profile["picked"][0], winner);
        assert_eq!(drawn_again(profile), winner, "the draw makes the pick again: {profile}");
        assert!(sent.header.starts_with(&format!("endpoint={winner}; score=")), "{}", sent.header);
        if index % 50 == 0 {
            assert!(!record.to_string().contains("tell me story"), "no text of a prompt: {record}");
        }
    }
    let usage = sent.iter().filter(|sent| !sent.server.is_empty()).count();
    assert!(usage >= 800, "{usage} requests were served");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_can_be_chosen_from_and_a_person_can_have_one_explained() {
    let stack = stack(&[]).await;
    let sent = traffic(&stack, 40).await;
    stack.assert_idle().await;
    let count = async |query: &str| {
        page(&stack, &format!("/debug/decisions?{query}")).await["decisions"].as_array().unwrap().len()
    };
    let refused = sent.iter().filter(|sent| sent.server.is_empty()).count();
    assert_eq!(count("outcome=refused").await, refused);
    assert_eq!(count("outcome=invalid_body").await, refused);
    assert_eq!(count("outcome=complete").await, 40 - refused);
    assert_eq!(count("limit=7").await, 7);
    assert_eq!(count("model=nobody").await, 0);
    assert_eq!(count("since=1h").await, 40);
    assert_eq!(count("since=2100-01-01T00:00:00Z").await, 0);
    let first = &stack.fleet.servers[0].addr.to_string();
    let of_first = sent
        .iter()
        .filter(|sent| !sent.server.is_empty() && stack.fleet.named(&sent.server).addr.to_string() == *first);
    assert_eq!(count(&format!("endpoint={first}")).await, of_first.count());
    let wrong = Client::http1(stack.pointsman.metrics).get("/debug/decisions?limit=many").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("1 to 1000"), "{wrong:?}");
    let unknown = Client::http1(stack.pointsman.metrics).get("/debug/decisions/nobody").await;
    assert_eq!(unknown.status, 404);

    let last = page(&stack, "/debug/decisions?outcome=complete&limit=1").await;
    let id = last["decisions"][0]["id"].as_str().unwrap().to_owned();
    let words = explain(&stack, &[&id]).await;
    let winner = last["decisions"][0]["endpoint"].as_str().unwrap();
    for part in
        ["queue-scorer×2", "prefix-cache-scorer×3", &format!("→ {winner}"), "outcome: complete, status 200"]
    {
        assert!(words.contains(part), "{part}\n{words}");
    }
    assert!(explain(&stack, &["--refused"]).await.contains("refused with 400: invalid_body"));
    assert!(explain(&stack, &["--slowest"]).await.contains("in all"));
    assert!(explain(&stack, &["--last", "--json"]).await.trim_start().starts_with('{'));
    let other = last["decisions"][0]["endpoint"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert!(explain(&stack, &[&id, "--why-not", &other]).await.contains(&format!("→ {winner}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_control_characters_and_markup_reach_the_terminal_as_text() {
    let stack = stack(&[]).await;
    let model = "\u{1b}]0;owned\u{7}\u{202e}<script>alert(1)</script>\r\n";
    let body = json!({"model": model, "prompt": "hello", "max_tokens": 1});
    stack.client().post("/v1/completions", &body).await;
    eventually("the record", async || {
        let list = page(&stack, "/debug/decisions?limit=1").await;
        (list["decisions"][0]["model"].as_str() == Some(model)).then_some(())
    })
    .await;
    let words = explain(&stack, &["--last"]).await;
    assert!(words.contains("\\u{1b}]0;owned\\u{7}\\u{202e}<script>alert(1)</script>\\u{d}\\u{a}"), "{words}");
    assert!(!words.chars().any(|c| c.is_control() && c != '\n'), "{words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_bytes_for_records_none_are_kept_and_the_page_says_so() {
    let stack = stack(&["--decision-records", "0"]).await;
    let reply = stack.client().post("/v1/chat/completions", &chat("hello", 1, false)).await;
    assert_eq!(reply.status, 200);
    assert!(!reply.headers.contains_key("x-pointsman-decision"));
    let page = Client::http1(stack.pointsman.metrics).get("/debug/decisions").await;
    assert_eq!(page.status, 404);
    assert!(page.text().contains("--decision-records"), "{page:?}");
}

/// What `pointsman explain` prints.
async fn explain(stack: &Stack, arguments: &[&str]) -> String {
    let mut command = Command::new(program());
    command.arg("explain").args(arguments).args(["--url", &format!("http://{}", stack.pointsman.metrics)]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A dry run of this document: its status, and its answer or what is wrong.
async fn dry_run(stack: &Stack, document: &Value) -> (u16, Value) {
    let reply = Client::http1(stack.pointsman.metrics).post("/debug/decide", document).await;
    let answer = serde_json::from_slice(&reply.body).unwrap_or_else(|_| Value::from(reply.text()));
    (reply.status, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_a_request_would_get_and_books_nothing() {
    let stack = stack(&[]).await;
    let body = chat(&"the same long story ".repeat(80), 1, false);
    let document = json!({"path": "/v1/chat/completions", "headers": {FAIRNESS: "nobody"}, "body": body});
    let (status, cold) = dry_run(&stack, &document).await;
    assert_eq!((status, cold["cached_tokens"].as_u64()), (200, Some(0)), "{cold}");
    assert_eq!(
        (cold["would_wait"].as_bool(), cold["queue_wait_estimate_ms"].as_u64()),
        (Some(false), Some(0))
    );
    let (_, again) = dry_run(&stack, &document).await;
    assert_eq!(again["cached_tokens"], 0, "the first dry run taught no index anything");
    assert_eq!(page(&stack, "/debug/decisions").await["kept"], 0, "it has no record");
    stack.assert_idle().await;

    let reply = stack.client().post("/v1/chat/completions", &body).await;
    assert_eq!(reply.status, 200);
    stack.assert_idle().await;
    let (_, warm) = dry_run(&stack, &document).await;
    let tokens = warm["prompt"]["tokens"].as_u64().unwrap();
    let cached = warm["cached_tokens"].as_u64().unwrap();
    assert!(cached > 0 && cached <= tokens, "{warm}");
    assert_eq!(warm["prefill_tokens"].as_u64(), Some(tokens - cached));
    let winner =
        warm["candidates"].as_array().unwrap().iter().find(|row| row["endpoint"] == warm["endpoint"]);
    let served = stack.fleet.named(reply.header("x-sim-server")).addr.to_string();
    assert_eq!(winner.unwrap()["address"], served, "it would go where the prompt is");
    assert_sums(&warm["profiles"][0]);
    assert_eq!(drawn_again(&warm["profiles"][0]), warm["endpoint"].as_str().unwrap());

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), body.to_string()).unwrap();
    let words = explain(&stack, &["--request", file.path().to_str().unwrap()]).await;
    assert!(words.contains("outcome: dry_run") && words.contains("cached tokens predicted"), "{words}");
}

/// Hashes of this text's blocks of 64 tokens of four bytes, by the formula of the documentation.
fn block_hashes(model: &str, text: &str) -> Vec<u64> {
    use xxhash_rust::xxh64::xxh64;
    let mut before = xxh64(model.as_bytes(), 0);
    let chain = text.as_bytes().chunks(256).map(|block| {
        let both = [xxh64(block, 0).to_le_bytes(), before.to_le_bytes()].concat();
        before = xxh64(&both, 0);
        before
    });
    chain.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_by_hashes_says_what_the_pool_holds_of_a_prompt_that_nobody_shows_it() {
    let stack = stack(&[]).await;
    let text = "a".repeat(256) + &"b".repeat(256) + &"c".repeat(256);
    let body = json!({"model": "sim-model", "prompt": text, "max_tokens": 1});
    let reply = stack.client().post("/v1/completions", &body).await;
    assert_eq!(reply.status, 200);
    stack.assert_idle().await;
    let served = stack.fleet.named(reply.header("x-sim-server")).addr.to_string();
    // It shares two blocks of the three, and goes on otherwise.
    let other = "a".repeat(256) + &"b".repeat(256) + &"x".repeat(512);
    let hashes: Vec<String> =
        block_hashes("sim-model", &other).iter().map(|hash| format!("{hash:016x}")).collect();
    let question = json!({"model": "sim-model", "prompt_tokens": 256, "prefix_hashes": hashes});
    let (status, answer) = dry_run(&stack, &question).await;
    assert_eq!(status, 200, "{answer}");
    let winner = answer["candidates"].as_array().unwrap();
    let winner = winner.iter().find(|row| row["endpoint"] == answer["endpoint"]).unwrap();
    assert_eq!((winner["address"].as_str(), winner["matched_blocks"].as_u64()), (Some(&*served), Some(2)));
    let figure = |name: &str| answer[name].as_u64();
    assert_eq!((figure("cached_tokens"), figure("prefill_tokens")), (Some(128), Some(128)), "{answer}");
    assert_eq!((&answer["prompt"]["tokens"], &answer["prompt"]["blocks"]), (&json!(256), &json!(4)));
    let unknown = json!({"model": "other", "prompt_tokens": 256, "prefix_hashes": ["1", 2]});
    let (_, answer) = dry_run(&stack, &unknown).await;
    assert_eq!(answer["cached_tokens"], 0, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_runs_that_are_malformed_or_too_large_are_turned_away() {
    let stack = stack(&[]).await;
    let (status, problem) = dry_run(&stack, &json!({"modle": "m"})).await;
    assert_eq!(status, 400);
    assert!(problem.as_str().unwrap().contains("modle"), "{problem}");
    let (status, refused) =
        dry_run(&stack, &json!({"path": "/v1/chat/completions", "body": "no object"})).await;
    assert_eq!((status, refused["refusal"]["reason"].as_str()), (200, Some("invalid_body")), "{refused}");
    assert_eq!(refused["endpoint"], Value::Null);
    let (status, _) = dry_run(&stack, &json!({"body": "x".repeat(3 << 20)})).await;
    assert_eq!(status, 413);
    let other =
        Client::http1(stack.pointsman.metrics).post("/debug/log-level", &json!("x".repeat(2000))).await;
    assert_ne!(other.status, 200, "other pages take small bodies alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_dry_runs_keep_nobody_out() {
    let stack = stack(&[]).await;
    let head = "POST /debug/decide HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    let mut half_sent = Vec::new();
    for bytes in [1, 1000, 200_000].into_iter().cycle().take(30) {
        let mut connection = TcpStream::connect(stack.pointsman.metrics).await.unwrap();
        connection.write_all(format!("{head}{}", " ".repeat(bytes)).as_bytes()).await.unwrap();
        half_sent.push(connection);
    }
    for words in [1, 40_000] {
        let question =
            json!({"path": "/v1/completions", "body": {"model": "m", "prompt": "word ".repeat(words)}});
        let (status, decision) = dry_run(&stack, &question).await;
        assert_eq!(status, 200, "{decision}");
    }
}
