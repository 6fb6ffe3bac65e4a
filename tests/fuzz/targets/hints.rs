//! Small texts of others: subset hints and the metadata of KEDA's triggers.

use std::collections::HashMap;

use pointsman::pool::Subset;
use pointsman::scaler::Trigger;

use super::path;
use crate::engine::{Target, run};

#[test]
fn a_subset_hint_is_read_or_refused_with_a_short_word() {
    let seeds = ["10.0.0.1:8000,10.0.0.2:8000", "[::1]:80", "::ffff:10.0.0.1", "10.0.0.1"]
        .map(|text| text.as_bytes().to_vec());
    let words = ["[", "]", ":", ",", "::", "::ffff:", "%eth0", "65536", " ", "0x7f"];
    let target = Target {
        name: "subset_hints",
        seeds: seeds.to_vec(),
        words: &words,
        memory_factor: 64,
        memory_base: 64 << 10,
    };
    run(&target, |input| {
        let text = String::from_utf8_lossy(input);
        match Subset::parse(text.split(',')) {
            Ok(_) => Ok(path(text.split(',').count().min(50))),
            Err(error) if error.to_string().len() > 1024 => Err("an error of more than 1 KiB".to_owned()),
            Err(_) => Ok(0),
        }
    });
}

#[test]
fn a_trigger_of_keda_is_read_or_refused_with_a_short_word() {
    let seed = "metric=queueDepth\ntargetValue=10\nactivationValue=0\ncoolDown=30s\npool=p";
    let words = [
        "metric=",
        "targetValue=",
        "coolDown=",
        "saturation",
        "1e-9",
        "inf",
        "h",
        "\n",
        "=",
        "scalerAddress=x\n",
    ];
    let target = Target {
        name: "keda_triggers",
        seeds: vec![seed.as_bytes().to_vec()],
        words: &words,
        memory_factor: 64,
        memory_base: 64 << 10,
    };
    run(&target, |input| {
        let text = String::from_utf8_lossy(input);
        let metadata: HashMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        match Trigger::read(&metadata, "p") {
            Ok(trigger) if !trigger.target.is_finite() || trigger.target <= 0.0 => {
                Err(format!("a target of {}", trigger.target))
            }
            Ok(trigger) => Ok(path(format!("{:?}", trigger.metric))),
            Err(error) if error.to_string().len() > 1024 => Err("an error of more than 1 KiB".to_owned()),
            Err(error) => Ok(path(error.key.chars().take(20).collect::<String>())),
        }
    });
}
