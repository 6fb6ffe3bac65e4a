//! Captures of what decisions were made from, written and read by the running program.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{BodyMode, Client, Fleet, Stack, chat, program};

/// Clients at once.
const CLIENTS: usize = 16;

/// All lines of a folder of captures, as the zstd of this machine reads them; `None` where there is none.
fn lines(folder: &Path) -> Option<Vec<Value>> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let output = Command::new("zstd").arg("-dc").args(&files).output();
    let output = output.ok()?;
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn of_kind<'l>(lines: &'l [Value], kind: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

async fn stack(flags: &[&str]) -> Stack {
    let fleet = Fleet::start(3, &[]).await;
    let scorers = [("queue-scorer", 2), ("prefix-cache-scorer", 3)];
    Stack::scoring(fleet, BodyMode::FullDuplexStreamed, &scorers, flags).await
}

async fn send(stack: &Stack, count: usize) {
    let client = stack.envoy.http2();
    for index in 0..count {
        let text = format!("a secret story {} ", index % 3).repeat(60);
        let reply = client.post("/v1/chat/completions", &chat(&text, 2, false)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_is_switched_while_serving_and_holds_no_text_of_a_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let stack = stack(&["--capture", path, "--capture-at-start=false"]).await;
    let admin = Client::http1(stack.pointsman.metrics);
    send(&stack, 2).await;
    let page = admin.get("/debug/capture").await.json();
    assert_eq!(page["on"], json!(false));
    let wrong = admin.put("/debug/capture", r#"{"on": true, "for": "soon"}"#).await;
    assert_eq!(wrong.status, 400, "{wrong:?}");
    let page = admin.put("/debug/capture", r#"{"on": true, "bytes": "64Mi"}"#).await.json();
    assert_eq!((&page["on"], &page["limits"]["bytes"]), (&json!(true), &json!(64 << 20)));
    send(&stack, 6).await;
    let page = admin.put("/debug/capture", r#"{"on": false}"#).await.json();
    assert_eq!(page["on"], json!(false));
    assert!(page["bytes"].as_u64().unwrap() > 0, "{page}");
    send(&stack, 2).await;
    let metrics = stack.pointsman.page().await;
    assert!(metrics.contains("pointsman_capture_active 0"), "{metrics}");
    let Some(lines) = lines(folder.path()) else { return };
    assert_eq!(lines[0]["kind"], "start");
    assert_eq!((lines[0]["schema"].as_u64(), lines[0]["first"].as_u64()), (Some(1), Some(2)));
    let decisions = of_kind(&lines, "decision");
    assert_eq!(decisions.len(), 6, "{lines:#?}");
    assert!(of_kind(&lines, "outcome").len() >= 5);
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains("secret"), "text of a prompt: {text}");
    let pool = of_kind(&lines, "pool")[0]["endpoints"].as_array().unwrap().len();
    assert_eq!(pool, 3);
    for decision in decisions {
        let run = &decision["runs"][0];
        assert_eq!(
            (run["totals"].as_array().unwrap().len(), run["scores"].as_array().unwrap().len()),
            (3, 2)
        );
        assert_eq!(run["picked"][0], decision["targets"][0], "{decision}");
        assert!(decision["request"]["tokens"].as_u64().unwrap() > 100, "{decision}");
    }
}

/// Sends mixed requests from several clients at once: chats with and without streaming, completions, and pages.
async fn crowd(stack: &Stack, count: usize) {
    let client = Arc::new(stack.envoy.http2());
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..count {
        let client = Arc::clone(&client);
        if tasks.len() == CLIENTS {
            tasks.join_next().await.unwrap().unwrap();
        }
        tasks.spawn(async move {
            let text = format!("tell me story {} ", index % 7).repeat(20 + index % 50);
            let reply = match index % 10 {
                0 => client.get("/v1/models").await,
                1..=4 => client.post("/v1/chat/completions", &chat(&text, 2, true)).await,
                5 | 6 => {
                    let body = json!({"model": "sim-model", "prompt": text, "max_tokens": 2});
                    client.post("/v1/completions", &body).await
                }
                _ => client.post("/v1/chat/completions", &chat(&text, 2, false)).await,
            };
            assert_eq!(reply.status, 200, "{reply:?}");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Captures so many requests, decided on so many threads.
async fn captured(folder: &Path, threads: &str, requests: usize) {
    let stack = stack(&["--capture", folder.to_str().unwrap(), "--threads", threads]).await;
    crowd(&stack, requests).await;
    let dropped = stack.pointsman.metric("pointsman_capture_lines_total", &[("result", "dropped")]).await;
    assert_eq!(dropped, Some(0.0));
    Client::http1(stack.pointsman.metrics).put("/debug/capture", r#"{"on": false}"#).await;
}

fn replay(folder: &Path, flags: &[&str]) -> Output {
    Command::new(program()).arg("replay").arg(folder).args(flags).output().unwrap()
}

fn replayed(folder: &Path, flags: &[&str]) -> Value {
    let output = replay(folder, &[flags, &["--json", "-"]].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_several_threads_decided_is_decided_the_same_by_another_process() {
    for (threads, requests) in [("2", 200), ("8", 2000)] {
        let folder = tempfile::tempdir().unwrap();
        captured(folder.path(), threads, requests).await;
        let output = replay(folder.path(), &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{threads} threads: {text}");
        assert!(text.contains(&format!("{requests} decisions made again")), "{text}");
        assert!(text.contains("all of them the same, bit for bit"), "{text}");
    }
}

/// The pick of `max-score-picker` among these totals: of the highest, one is drawn.
fn picked(totals: &[f64], draw: &str) -> usize {
    let highest = totals.iter().copied().fold(f64::MIN, f64::max);
    let ties: Vec<usize> = (0..totals.len()).filter(|index| totals[*index] >= highest).collect();
    let mut rng = fastrand::Rng::with_seed(draw.parse().unwrap());
    ties[if ties.len() > 1 { rng.usize(..ties.len()) } else { 0 }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_weight_changes_the_decisions_that_a_calculation_by_hand_changes() {
    let folder = tempfile::tempdir().unwrap();
    captured(folder.path(), "2", 150).await;
    let Some(lines) = lines(folder.path()) else { return };
    let text = of_kind(&lines, "config")[0]["text"].as_str().unwrap();
    let flipped = text.replace("weight: 3", "weight: -3");
    assert_ne!(flipped, text);
    let other = folder.path().join("other.yaml");
    std::fs::write(&other, flipped).unwrap();
    let page = folder.path().join("report.html");
    let (other, page) = (other.to_str().unwrap(), page.to_str().unwrap());
    let result = replayed(folder.path(), &["--config", other, "--report", page]);
    assert_eq!(result["differing"], json!(0), "{result:#}");
    let comparison = &result["comparison"];
    let endpoints = of_kind(&lines, "pool")[0]["endpoints"].as_array().unwrap();
    let name = |place: &Value| {
        let endpoint = &endpoints[place.as_u64().unwrap() as usize];
        format!("{}/{}", endpoint["namespace"].as_str().unwrap(), endpoint["name"].as_str().unwrap())
    };
    let weights: Vec<f64> = of_kind(&lines, "config")[0]["profiles"][0]["scorers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|scorer| scorer["weight"].as_f64().unwrap())
        .map(|weight| if weight == 3.0 { -3.0 } else { weight })
        .collect();
    let listed = comparison["differences"].as_array().unwrap();
    let mut changed = 0;
    for decision in of_kind(&lines, "decision").into_iter().take(60) {
        let run = &decision["runs"][0];
        let survivors = run["survivors"].as_array().unwrap();
        let scores = run["scores"].as_array().unwrap();
        let total = |at: usize| -> f64 {
            let terms = scores.iter().zip(&weights);
            terms.map(|(scores, weight)| scores[at].as_f64().unwrap().clamp(0.0, 1.0) * weight).sum()
        };
        let totals: Vec<f64> = (0..survivors.len()).map(total).collect();
        let choice = picked(&totals, run["draw"].as_str().unwrap());
        let (then, now) = (name(&run["picked"][0]), name(&survivors[choice]));
        let difference = listed.iter().find(|difference| difference["n"] == decision["n"]);
        assert_eq!(difference.is_some(), then != now, "{decision}");
        if let Some(difference) = difference {
            changed += 1;
            assert_eq!((&difference["captured"], &difference["other"]), (&json!(then), &json!(now)));
            assert!(difference["regret_of_other"].as_f64().unwrap() >= -1e-9, "{difference}");
            assert!(difference["regret_of_captured"].as_f64().unwrap() >= -1e-9, "{difference}");
        }
    }
    assert!(changed >= 20, "only {changed} of 60 differ: {comparison:#}");
    let shares = comparison["endpoints"].as_object().unwrap().values();
    let sum = |field: &str, side: usize| -> u64 {
        shares.clone().map(|share| share[field][side].as_u64().unwrap()).sum()
    };
    assert_eq!((sum("requests", 0), sum("requests", 1)), (150, 150));
    assert!(sum("cached_tokens", 0) > sum("cached_tokens", 1), "{comparison:#}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<svg") && page.contains("latency is not predicted"), "{page}");
    assert!(!page.contains("http://") && !page.contains("src="), "the page needs nothing else");
}
