use std::time::Duration;

use super::*;
use crate::simulate::workload::{Request, Start};

fn file(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn workload(name: &str, text: &str) -> anyhow::Result<Workload> {
    let (_folder, path) = file(name, text);
    read(&path, 1)
}

fn at(request: &Request) -> Duration {
    match request.start {
        Start::At(at) => at,
        Start::After(..) => panic!("it follows another"),
    }
}

#[test]
fn mooncake_lines_become_requests_whose_rounded_times_are_spread() {
    let line = |time, ids| {
        format!(
            "{{\"timestamp\": {time}, \"input_length\": 700, \"output_length\": 5, \"hash_ids\": {ids}}}\n"
        )
    };
    let text = [line(0, "[0, 1]"), line(0, "[0, 2]"), line(3000, "[0, 1]")].concat();
    let workload = workload("conversation.jsonl", &text).unwrap();
    assert_eq!((workload.name.as_str(), workload.block_tokens), ("conversation", 512));
    assert_eq!(workload.infinite_cache(), (6, 3));
    let times: Vec<Duration> = workload.requests.iter().map(at).collect();
    assert!(times.is_sorted() && times[0] > Duration::ZERO && times[1] < Duration::from_secs(3));
    assert!(times[2] >= Duration::from_secs(3));
}

#[test]
fn azure_and_burst_tables_become_requests_that_share_nothing() {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,374,44\n2023-11-16 18:15:50.0,396,109\n";
    let azure = workload("azure.csv", azure).unwrap();
    assert_eq!(at(&azure.requests[1]), Duration::from_millis(3500));
    assert_eq!((azure.requests[1].input, azure.requests[1].output), (396, 109));
    assert_eq!(azure.infinite_cache().1, 0);
    let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,0,1087,API log\n118,ChatGPT,417,276,693,API log\n";
    let burst = workload("burst.csv", burst).unwrap();
    assert_eq!(burst.requests.len(), 2, "a failed request is left out");
    assert_eq!(at(&burst.requests[1]), Duration::from_secs(113));
}

#[test]
fn bailian_lines_keep_their_conversations() {
    let text = "{\"chat_id\": 159, \"parent_chat_id\": -1, \"timestamp\": 61.114, \"input_length\": 20, \"output_length\": 7, \"type\": \"text\", \"turn\": 1, \"hash_ids\": [1, 2]}\n{\"chat_id\": 170, \"parent_chat_id\": 159, \"timestamp\": 70.0, \"input_length\": 40, \"output_length\": 7, \"type\": \"text\", \"turn\": 2, \"hash_ids\": [1, 3, 4]}\n";
    let bailian = workload("qwen.jsonl", text).unwrap();
    assert_eq!(bailian.block_tokens, 16);
    assert_eq!(bailian.requests[0].session, bailian.requests[1].session);
    assert_eq!(bailian.infinite_cache(), (5, 1));
}

#[test]
fn a_session_of_an_agent_waits_for_its_answers_and_shares_nothing_with_others() {
    let session = r#"{"id":"a","block_size":64,"requests":[
        {"t":0.0,"type":"n","in":130,"out":9,"hash_ids":[1,2],"api_time":4.0,"think_time":0.0},
        {"t":9.0,"type":"subagent","requests":[{"t":9.0,"in":64,"out":1,"hash_ids":[7],"think_time":1.0}]},
        {"t":12.0,"type":"s","in":200,"out":9,"hash_ids":[1,2,3],"api_time":4.0,"think_time":8.0}]}"#;
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.json", "b.json"] {
        std::fs::write(folder.path().join(name), session).unwrap();
    }
    let agents = read(folder.path(), 1).unwrap();
    let starts: Vec<Start> = agents.requests.iter().map(|request| request.start).collect();
    assert_eq!(starts[0], Start::At(Duration::ZERO));
    assert_eq!(
        starts[1],
        Start::After(0, Duration::from_secs(6)),
        "5 s after the answer, and 1 s of thought"
    );
    assert_eq!(starts[2], Start::After(0, Duration::from_secs(8)));
    assert!(matches!(starts[3], Start::At(at) if at > Duration::ZERO));
    let (all, found) = agents.infinite_cache();
    assert_eq!((all, found), (16, 4), "two blocks in each session");
}

#[test]
fn faults_name_the_line_and_the_field() {
    for (text, fault) in [
        (
            "{\"timestamp\": 0, \"input_length\": 700, \"output_length\": 5, \"hash_ids\": [1]}",
            "line 1: hash_ids",
        ),
        (
            "{\"timestamp\": -1, \"input_length\": 7, \"output_length\": 5, \"hash_ids\": [1]}",
            "timestamp: is",
        ),
        (
            "{\"input_length\": 99999999999, \"timestamp\": 0, \"output_length\": 5, \"hash_ids\": [1]}",
            "input_length: is",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nnow,1,1", "line 2: TIMESTAMP: is \"now\""),
        ("TIMESTAMP,ContextTokens\n", "no column \"GeneratedTokens\""),
        ("Timestamp,Model,Request tokens,Response tokens\n1,m,x,1", "line 2: Request tokens: is \"x\""),
        ("hello", "no known trace"),
        ("", "no known trace"),
        ("{\"requests\": []}", "has no requests"),
    ] {
        let error = format!("{:#}", workload("x", text).unwrap_err());
        assert!(error.contains(fault), "{error}");
    }
}
