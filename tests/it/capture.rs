//! Captures of what decisions were made from, written and read by the running program.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{BodyMode, Client, Fleet, Stack, chat};

/// All lines of a folder of captures, as the zstd of this machine reads them; `None` where there is none.
fn lines(folder: &Path) -> Option<Vec<Value>> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let output = Command::new("zstd").arg("-dc").args(&files).output();
    let Ok(output) = output else {
        println!("skipped: there is no zstd here");
        return None;
    };
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
