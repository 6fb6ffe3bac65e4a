use serde_json::{Value, json};

use super::*;
use crate::plugins::fixture::{Built, Fleet, Pod, Request, pod, request};

fn fleet(pods: impl IntoIterator<Item = Pod>, params: Value) -> (Fleet, Built) {
    let mut fleet = Fleet::new(pods);
    let built = fleet.build(&TYPE, Some(params)).unwrap();
    (fleet, built)
}

/// Matched blocks by endpoint, total blocks, block size.
fn produce(fleet: &Fleet, built: &Built, model: &str, prompt: &str) -> (Vec<u32>, u32, u32) {
    let columns = fleet.produce(&built.roles, &request(model).prompt(prompt));
    let matches = columns.slice::<PrefixMatch>(fleet.column(TYPE.name)).unwrap();
    assert!(matches.iter().all(|prefix| prefix.cached == prefix.matched));
    (matches.iter().map(|prefix| prefix.matched).collect(), matches[0].total, matches[0].block_size)
}

fn send(fleet: &Fleet, built: &Built, prompt: &str, chosen: &[Option<usize>]) {
    let request = request("m").prompt(prompt);
    let columns = fleet.produce(&built.roles, &request);
    fleet.forward(&built.roles, &request, &columns, chosen);
}

/// A prompt of `blocks` blocks of 64 tokens that starts like all others of the same letter.
fn prompt(letter: &str, blocks: usize) -> String {
    letter.repeat(256 * blocks)
}

#[test]
fn a_prompt_matches_where_it_was_sent() {
    let (fleet, built) = fleet([pod("a"), pod("b"), pod("c")], Value::Null);
    assert_eq!(produce(&fleet, &built, "m", &prompt("x", 4)), (vec![0, 0, 0], 4, 64));
    send(&fleet, &built, &prompt("x", 4), &[Some(1)]);
    send(&fleet, &built, &prompt("x", 2), &[Some(2)]);
    assert_eq!(produce(&fleet, &built, "m", &prompt("x", 6)).0, [0, 4, 2]);
    // The tail is a block of its own, and what follows makes it another one.
    let tail = prompt("x", 2) + "tail";
    assert_eq!(produce(&fleet, &built, "m", &tail), (vec![0, 2, 2], 3, 64));
    send(&fleet, &built, &tail, &[Some(0)]);
    assert_eq!(produce(&fleet, &built, "m", &tail).0, [3, 2, 2]);
    assert_eq!(produce(&fleet, &built, "m", &(tail + "!")).0, [2, 2, 2]);
    assert_eq!(produce(&fleet, &built, "other model", &prompt("x", 4)).0, [0, 0, 0]);
}

#[test]
fn the_prefill_endpoint_holds_the_prompt_too() {
    let (fleet, built) = fleet([pod("a"), pod("b"), pod("c")], Value::Null);
    send(&fleet, &built, &prompt("x", 3), &[Some(0), Some(2)]);
    assert_eq!(produce(&fleet, &built, "m", &prompt("x", 3)).0, [3, 0, 3]);
}

#[test]
fn a_subset_of_candidates_gets_the_matches_of_its_own_endpoints() {
    let (fleet, built) = fleet([pod("a"), pod("b"), pod("c")], Value::Null);
    send(&fleet, &built, &prompt("x", 3), &[Some(2)]);
    let subset = crate::pool::Subset::parse(["10.0.0.99", "10.0.0.98"]).unwrap();
    let candidates = crate::scheduling::Candidates::within(fleet.snapshot(), &subset);
    let request = request("m").prompt(&prompt("x", 3));
    let columns = crate::scheduling::Columns::new();
    let call = Call::new(request.view(), fleet.now, &candidates, &[0, 1], &columns);
    let mut table = crate::scheduling::Columns::new();
    for produced in built.roles.producer.as_ref().unwrap().produce(&call).unwrap() {
        table.insert(produced);
    }
    let matched: Vec<u32> = table
        .slice::<PrefixMatch>(fleet.column(TYPE.name))
        .unwrap()
        .iter()
        .map(|prefix| prefix.matched)
        .collect();
    assert_eq!(matched, [0, 3]);
}

#[test]
fn the_block_size_is_that_of_the_first_candidate_and_at_least_64() {
    let size = |first: Pod, params: Value| {
        let (fleet, built) = fleet([first, pod("z").cache(512, 9)], params);
        produce(&fleet, &built, "m", "prompt").2
    };
    assert_eq!(size(pod("a"), Value::Null), 64);
    assert_eq!(size(pod("a").cache(16, 100), Value::Null), 64);
    assert_eq!(size(pod("a").cache(128, 100), Value::Null), 128);
    assert_eq!(size(pod("a").cache(128, 100), json!({"autoTune": false})), 64);
    assert_eq!(size(pod("a"), json!({"blockSizeTokens": 100})), 100);
    assert_eq!(size(pod("a").cache(128, 100), json!({"blockSizeTokens": 100})), 128);
    assert_eq!(size(pod("a"), json!({"blockSize": 200})), 200);
    assert_eq!(size(pod("a"), json!({"blockSize": 200, "blockSizeTokens": 16})), 200);
    assert_eq!(size(pod("a"), json!({"blockSize": 200, "blockSizeTokens": 100})), 100);
}

#[test]
fn only_so_much_of_a_prompt_is_matched() {
    let total = |params: Value| {
        let (fleet, built) = fleet([pod("a")], params);
        produce(&fleet, &built, "m", &prompt("x", 2100)).1
    };
    assert_eq!(total(Value::Null), 2048);
    assert_eq!(total(json!({"maxPrefixTokensToMatch": 640})), 10);
    assert_eq!(total(json!({"maxPrefixTokensToMatch": 63})), 0);
    assert_eq!(total(json!({"maxPrefixTokensToMatch": 0})), 2048);
    assert_eq!(total(json!({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 7})), 7);
    assert_eq!(total(json!({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 0})), 2100);
    assert_eq!(total(json!({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": -1})), 0);
}

#[test]
fn capacity_is_what_the_endpoint_says_or_else_what_is_configured() {
    let held = |first: Pod, params: Value| {
        let (fleet, built) = fleet([first, pod("b")], params);
        // An anchor that holds everything, so that what endpoint 0 forgot at the front does not hide the rest.
        send(&fleet, &built, &prompt("x", 10), &[Some(1)]);
        send(&fleet, &built, &prompt("x", 10), &[Some(0)]);
        produce(&fleet, &built, "m", &prompt("x", 10)).0[0]
    };
    assert_eq!(held(pod("a"), Value::Null), 10);
    assert_eq!(held(pod("a").cache(16, 4), Value::Null), 4);
    assert_eq!(held(pod("a").cache(16, 8), json!({"capacityInTokens": true})), 2, "128 tokens");
    assert_eq!(held(pod("a").cache(128, 4), json!({"capacityInTokens": true})), 4, "its blocks are as large");
    assert_eq!(held(pod("a").cache(16, 0), Value::Null), 10);
    assert_eq!(held(pod("a").cache(16, 4), json!({"autoTune": false})), 10);
    assert_eq!(held(pod("a"), json!({"lruCapacityPerServer": 0})), 10);
}

#[test]
fn a_request_without_a_prompt_matches_nothing_and_leaves_nothing() {
    let (fleet, built) = fleet([pod("a"), pod("b")], Value::Null);
    let opaque = request("m");
    let columns = fleet.produce(&built.roles, &opaque);
    let matches = columns.slice::<PrefixMatch>(fleet.column(TYPE.name)).unwrap();
    assert_eq!(matches.len(), 2);
    assert!(matches.iter().all(|prefix| prefix.total == 0 && prefix.matched == 0));
    fleet.forward(&built.roles, &opaque, &columns, &[Some(0)]);
    assert_eq!(produce(&fleet, &built, "m", &prompt("x", 1)).0, [0, 0]);
}

#[test]
fn wrong_parameters_name_their_field() {
    let cases = [
        (json!({"autoTune": false, "blockSizeTokens": 0}), "blockSizeTokens"),
        (json!({"autoTune": false, "blockSizeTokens": -64}), "blockSizeTokens"),
        (json!({"maxPrefixTokensToMatch": -1}), "maxPrefixTokensToMatch"),
    ];
    for (params, path) in cases {
        let error = Fleet::new([]).build(&TYPE, Some(params.clone())).map(|_| ()).unwrap_err();
        assert_eq!(error.path, path, "{params}: {error}");
    }
    let warnings = |params: Value| Fleet::new([]).build(&TYPE, Some(params)).unwrap().warnings.len();
    assert_eq!(warnings(Value::Null), 0);
    assert_eq!(warnings(json!({"blockSize": 64})), 1);
    assert_eq!(warnings(json!({"blockSizeTokens": 5, "lruCapacityPerServer": -1})), 2);
}

#[test]
fn huge_block_sizes_are_no_trouble() {
    let (fleet, built) = fleet([pod("a").cache(u32::MAX, 1)], json!({"maxPrefixTokensToMatch": 0}));
    assert_eq!(produce(&fleet, &built, "m", "prompt").1, 1);
}

#[test]
fn exact_tokens_are_cut_into_blocks_instead_of_the_text() {
    let (fleet, built) = fleet([pod("a")], Value::Null);
    let ask = |text: &str, ids: std::ops::Range<u32>| request("m").prompt(text).tokens(ids);
    let matches = |request: &Request| {
        let columns = fleet.produce(&built.roles, request);
        let found = columns.slice::<PrefixMatch>(fleet.column("approx-prefix-cache-producer")).unwrap();
        (found[0].matched, found[0].total)
    };
    let first = ask("one text", 0..640);
    fleet.forward(&built.roles, &first, &fleet.produce(&built.roles, &first), &[Some(0)]);
    // Other text with the same tokens is the same prompt, and the same text with other tokens is not.
    assert_eq!(matches(&ask("another text", 0..640)), (10, 10));
    assert_eq!(matches(&ask("one text", 1..641)), (0, 10));
    assert_eq!(matches(&request("m").prompt("one text")), (0, 1));
}

#[test]
fn a_prompt_without_a_whole_block_is_a_look_that_found_nothing() {
    let looks = |fleet: &Fleet| {
        let page = fleet.page();
        ["hit_bytes_count", "hit_ratio_count"].map(|name| {
            let line =
                page.lines().find(|line| line.starts_with(&format!("llm_d_epp_prefix_indexer_{name}{{")));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default()
        })
    };
    let (fleet, built) = fleet([pod("a")], json!({"maxPrefixTokensToMatch": 10}));
    send(&fleet, &built, &prompt("x", 4), &[Some(0)]);
    assert_eq!(looks(&fleet), [1, 0]);
    let opaque = request("m");
    fleet.forward(&built.roles, &opaque, &fleet.produce(&built.roles, &opaque), &[Some(0)]);
    assert_eq!(looks(&fleet), [1, 0], "a request without a prompt is none");
}
