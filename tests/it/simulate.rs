//! `pointsman simulate`: decisions in virtual time.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::program;

fn simulate(args: &[&str]) -> Output {
    Command::new(program()).arg("simulate").args(args).output().unwrap()
}

fn figures(args: &[&str]) -> Value {
    let output = simulate(&[args, &["--json", "-"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The chooser of this name in the only scenario.
fn chooser<'f>(figures: &'f Value, name: &str) -> &'f Value {
    let choosers = figures["scenarios"][0]["choosers"].as_array().unwrap();
    choosers.iter().find(|chooser| chooser["name"] == name).unwrap()
}

const SMALL: [&str; 6] = ["--trace", "chat", "--for", "40s", "--servers", "3"];

#[test]
fn the_same_seed_gives_the_same_result_byte_for_byte_and_another_a_different_one() {
    let args = |seed| {
        [&SMALL[..], &["--config", "round-robin", "--seeds", "2", "--seed", seed, "--json", "-"]].concat()
    };
    let [one, two, other] = ["1", "1", "5"].map(|seed| simulate(&args(seed)).stdout);
    assert!(!one.is_empty());
    assert_eq!(one, two);
    assert_ne!(one, other);
}

#[test]
fn prefixes_are_found_where_they_are_and_no_chooser_beats_an_infinite_cache() {
    let found = figures(&[&SMALL[..], &["--config", "round-robin"]].concat());
    let [default, turns] = ["default", "round-robin"].map(|name| &chooser(&found, name)["mean"]);
    for mean in [default, turns] {
        assert_eq!(mean["answered"], mean["requests"], "{mean}");
        assert!(mean["hit_rate"].as_f64() <= mean["infinite_hit_rate"].as_f64(), "{mean}");
    }
    assert!(default["hit_rate"].as_f64() > turns["hit_rate"].as_f64());
    assert!(default["ttft_ms"]["p90"].as_f64() < turns["ttft_ms"]["p90"].as_f64());
}

#[test]
fn a_server_that_is_gone_fails_its_requests_and_gets_none_until_it_is_back() {
    let found = figures(&[&SMALL[..], &["--fail", "server=1@10s"]].concat());
    let mean = &chooser(&found, "default")["mean"];
    let (failed, requests) = (mean["failed"].as_u64().unwrap(), mean["requests"].as_u64().unwrap());
    assert!(failed > 0 && failed * 5 < requests, "{mean}");
    let shares: Vec<f64> =
        mean["shares"].as_array().unwrap().iter().map(|share| share.as_f64().unwrap()).collect();
    assert!(shares[1] < 0.25, "{shares:?}");
}

#[test]
fn the_report_is_one_page_and_the_table_names_every_chooser() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("out.html");
    let more = ["--config", "recommended", "--rate", "0.5x,1x", "--report", page.to_str().unwrap()];
    let output = simulate(&[&SMALL[..], &more].concat());
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && table.contains("rate 0.5x") && table.contains("recommended"),
        "{table}"
    );
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg") && !page.contains("src="), "{page}");
}

#[test]
fn what_cannot_be_simulated_is_said_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.yaml");
    std::fs::write(&broken, "plugins: [{type: nobody}]").unwrap();
    for (args, said) in [
        (vec!["--trace", "nowhere.jsonl"], "no file"),
        (vec!["--trace", "chat", "--config", broken.to_str().unwrap()], "nobody"),
        (vec!["--trace", "chat", "--fail", "server=9@1s"], "server=9"),
        (vec!["--trace", "chat", "--rate", "0x"], "rate"),
    ] {
        let output = simulate(&args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(said), "{args:?}: {error}");
    }
}

#[test]
fn no_policy_exceeds_the_infinite_cache_on_mooncakes_traces() {
    let Ok(folder) = std::env::var("POINTSMAN_TRACES") else {
        println!("skipped: POINTSMAN_TRACES names no folder of traces");
        return;
    };
    for name in ["mooncake_conversation.jsonl", "mooncake_synthetic.jsonl"] {
        let path = Path::new(&folder).join(name);
        let args = ["--trace", path.to_str().unwrap(), "--requests", "300", "--config", "round-robin"];
        let found = figures(&[&args[..], &["--config", "recommended"]].concat());
        for name in ["default", "round-robin", "recommended"] {
            let mean = &chooser(&found, name)["mean"];
            assert!(mean["hit_rate"].as_f64() <= mean["infinite_hit_rate"].as_f64(), "{name}: {mean}");
        }
    }
}
