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

/// The demo's load on the demo's servers.
const DEMO: [&str; 6] = ["--trace", "demo", "--servers", "4", "--engine", "demo"];

#[test]
fn in_the_demo_the_recommended_configuration_is_not_worse_than_the_default() {
    let found = figures(&[&DEMO[..], &["--config", "recommended", "--seeds", "5"]].concat());
    let first_token = |figures: &Value, share: &str| figures["ttft_ms"][share].as_f64().unwrap();
    let [default, recommended] = ["default", "recommended"].map(|name| &chooser(&found, name)["mean"]);
    for share in ["p50", "p95"] {
        let (default, recommended) = (first_token(default, share), first_token(recommended, share));
        assert!(recommended <= 1.05 * default, "{share}: {recommended} ms against {default} ms");
    }
    let hits = |figures: &Value| figures["hit_rate"].as_f64().unwrap();
    assert!(hits(recommended) >= hits(default) - 0.01, "{found}");
    assert!(recommended["shares"][3].as_f64().unwrap() < 0.05, "{found}");
    for seed in chooser(&found, "recommended")["seeds"].as_array().unwrap() {
        assert!(first_token(seed, "p95") <= 3.0 * first_token(seed, "p50"), "{seed}");
    }
}

#[test]
fn two_thousand_simulated_decisions_are_those_of_the_served_programs_code_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let args = ["--trace", "chat", "--for", "10m", "--requests", "2000", "--servers", "4", "--rate", "2x"];
    let output = simulate(&[&args[..], &["--config", "recommended", "--capture", path]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["default", "recommended"] {
        let output = Command::new(program()).arg("replay").arg(folder.path().join(name)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {text}");
        assert!(text.contains("2000 decisions made again"), "{name}: {text}");
        assert!(text.contains("all of them the same, bit for bit"), "{name}: {text}");
    }
}

#[test]
fn the_time_to_the_first_token_is_predicted_within_a_quarter_also_after_a_server_has_slowed_down() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("predicted.yaml");
    std::fs::write(&config, PREDICTED).unwrap();
    let load = ["--trace", "chat", "--servers", "2", "--rate", "3x", "--config", config.to_str().unwrap()];
    // At three times the rate two servers have had 200 requests each after a minute. The second one then works at half its
    // speed for another minute.
    for more in [&["--for", "3m"][..], &["--for", "6m", "--slow", "server=1@60s:0.5"]] {
        let found = figures(&[&load[..], more].concat());
        let mean = &chooser(&found, "predicted")["mean"];
        assert!(mean["requests"].as_u64().unwrap() > 400, "{mean}");
        let error = mean["prediction_error"].as_f64().unwrap();
        assert!(error < 0.25, "{more:?}: {error}");
    }
}

const PREDICTED: &str = "\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: approx-prefix-cache-producer}
- type: predicted-latency-producer
  parameters: {streamingMode: true}
- type: latency-scorer
  parameters: {headroomSelectionStrategy: most}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: latency-scorer}]
";
