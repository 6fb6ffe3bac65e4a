use serde_json::{Value, json};

use super::*;
use crate::plugins::fixture::{Fleet, pod, request};
use crate::scheduling::ProfileFault;

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| (*name).into()).collect()
}

#[test]
fn both_forms_of_the_parameters_mean_the_same() {
    let nested = json!({
        "profiles": {"decode": "d", "prefill": "p", "encode": "e"},
        "deciders": {"prefill": "pd", "encode": "ed"},
    });
    let flat = json!({
        "decodeProfile": "d", "prefillProfile": "p", "encodeProfile": "e",
        "prefillDeciderPluginName": "pd", "encodeDeciderPluginName": "ed", "deciderPluginName": "old",
    });
    for (params, warnings) in [(nested, 0), (flat, 1)] {
        let built = Fleet::new([]).build(&TYPE, Some(params)).unwrap();
        assert_eq!(Fleet::answer_deciders(&built, |_| true), ["pd", "ed"]);
        assert_eq!(built.warnings.len(), warnings, "{:?}", built.warnings);
        let handler = built.roles.profile_handler.unwrap();
        assert_eq!(handler.review(&names(&["p", "e", "d"])), []);
        let stages = handler.stages(&names(&["p", "e", "d"]));
        assert_eq!((stages.prefill, stages.encode), (Some(0), Some(1)));
    }
    let oldest = Fleet::new([]).build(&TYPE, Some(json!({"deciderPluginName": "old"}))).unwrap();
    assert_eq!(Fleet::answer_deciders(&oldest, |_| true), ["old"]);
}

#[test]
fn faults_in_parameters_name_the_parameter() {
    for (params, path) in [
        (json!({"profiles": {}, "decodeProfile": "d"}), "decodeProfile"),
        (json!({"deciders": {"prefill": "x"}, "prefillDeciderPluginName": "y"}), "prefillDeciderPluginName"),
        (json!({"stageOrder": "encode-first"}), "stageOrder"),
        (json!({"stageOrder": "prefill-first", "deciders": {"prefill": "x"}}), "deciders.prefill"),
        (json!({"stageOrder": "prefill", "deciderPluginName": "x"}), "deciderPluginName"),
        (json!({"profiles": {"decoder": "d"}}), "profiles.decoder"),
        (json!({"maxPrefillCandidates": 0}), "maxPrefillCandidates"),
        (json!({"maxPrefillCandidates": -1}), "maxPrefillCandidates"),
        (json!({"maxPrefillCandidates": 17}), "maxPrefillCandidates"),
    ] {
        let error = Fleet::new([]).build(&TYPE, Some(params.clone())).unwrap_err();
        assert_eq!(error.path, path, "{params}: {error}");
    }
    for order in ["decode-first", "DECODE_FIRST", "decode", "", "Prefill-First", "prefillfirst"] {
        Fleet::new([]).build(&TYPE, Some(json!({"stageOrder": order}))).unwrap();
    }
}

#[test]
fn empty_names_mean_the_defaults() {
    let params: Value =
        json!({"profiles": {"decode": "", "prefill": ""}, "deciders": {"prefill": "", "encode": ""}});
    let built = Fleet::new([]).build(&TYPE, Some(params)).unwrap();
    assert!(built.deciders.is_empty());
    let handler = built.roles.profile_handler.unwrap();
    let faults = handler.review(&names(&["decode"]));
    assert_eq!(faults, []);
}

#[test]
fn profiles_that_do_not_fit_are_told() {
    let review = |params: Value, profiles: &[&str]| {
        let handler = Fleet::new([]).build(&TYPE, Some(params)).unwrap().roles.profile_handler.unwrap();
        handler.review(&names(profiles))
    };
    let decider = json!({"deciders": {"prefill": "x"}});
    assert!(matches!(
        review(decider.clone(), &["a", "prefill"])[..],
        [ProfileFault::Fatal(_), ProfileFault::Idle(..)]
    ));
    // No decider, no such profile, a profile of no stage, one profile for two stages.
    for (params, profiles) in [
        (json!({}), &["decode", "prefill"][..]),
        (decider.clone(), &["decode"]),
        (decider.clone(), &["decode", "prefill", "other"]),
        (json!({"profiles": {"prefill": "decode"}}), &["decode"]),
        (json!({"profiles": {"encode": "images"}}), &["decode"]),
        (json!({}), &["default"]),
        (json!({"deciders": {"prefill": "x"}, "profiles": {"encode": "prefill"}}), &["decode", "prefill"]),
    ] {
        let faults = review(params.clone(), profiles);
        assert!(matches!(faults[..], [ProfileFault::Idle(..)]), "{params} {profiles:?} {faults:?}");
    }
    assert_eq!(review(json!({"stageOrder": "prefill-first"}), &["decode", "prefill"]), []);
    assert_eq!(review(decider, &["prefill", "decode"]), []);
}

#[test]
fn the_first_prefill_server_and_all_encode_servers_are_written() {
    let mut fleet =
        Fleet::new([pod("a"), pod("b").at("[fd00::2]:8000"), pod("c").at("10.0.0.3:1"), pod("d")]);
    let built = fleet.build(&TYPE, None).unwrap();
    let profiles = names(&["decode", "prefill", "encode"]);
    let mut decision = fleet.decision(&[Some(0), Some(1), Some(2)], &[]);
    let others = fleet.snapshot();
    for index in [1, 2] {
        let result = decision.profiles[index].as_mut().unwrap();
        result.targets.push(Arc::clone(&others.endpoints()[3]));
    }
    let forged =
        request("m").header("x-prefiller-host-port", "6.6.6.6:1").header("x-encoder-hosts-ports", "6:1");
    let edits = fleet.edits(&built.roles, &forged, &decision, &profiles);
    let expected = [
        ("x-prefiller-host-port".into(), "[fd00::2]:8000".into()),
        ("x-encoder-hosts-ports".into(), "10.0.0.3:1,10.0.0.100:8000".into()),
    ];
    assert_eq!(edits.set.as_slice(), expected);
    let alone = fleet.decision(&[Some(0), None, None], &[]);
    let edits = fleet.edits(&built.roles, &forged, &alone, &profiles);
    assert_eq!(edits.remove.as_slice(), ["x-prefiller-host-port", "x-encoder-hosts-ports"]);
}

#[test]
fn further_prefill_servers_follow_the_chosen_one_by_their_totals() {
    let profiles = names(&["decode", "prefill"]);
    for (most, expected) in [
        (1, "10.0.0.2:8000"),
        (2, "10.0.0.2:8000,10.0.0.4:8000"),
        (3, "10.0.0.2:8000,10.0.0.4:8000,10.0.0.3:8000"),
        (16, "10.0.0.2:8000,10.0.0.4:8000,10.0.0.3:8000"),
    ] {
        let pods = (1..=4).map(|last| pod(&format!("p{last}")).at(&format!("10.0.0.{last}:8000")));
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(&TYPE, Some(json!({"maxPrefillCandidates": most}))).unwrap();
        let mut decision = fleet.decision(&[Some(0), Some(1)], &[]);
        // The first pod is no prefill server: its filter left the others. Totals that are equal keep the pool's order.
        decision.profiles[1].as_mut().unwrap().scored = vec![(1, 0.5), (2, 0.1), (3, 0.9)];
        let edits = fleet.edits(&built.roles, &request("m"), &decision, &profiles);
        assert_eq!(edits.set.as_slice(), [("x-prefiller-host-port".into(), expected.into())], "{most}");
        let alone = fleet.decision(&[Some(0), None], &[]);
        assert!(fleet.edits(&built.roles, &request("m"), &alone, &profiles).set.is_empty());
    }
}
