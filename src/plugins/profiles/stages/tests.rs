use serde_json::{Value, json};
use smallvec::smallvec;

use super::*;
use crate::plugins::PluginType;
use crate::plugins::fixture::{Fleet, pod, request};
use crate::plugins::profiles::{disagg, pd};
use crate::scheduling::{Columns, ProfileResult};

/// What each profile does when it runs: chooses the endpoint at that place, or finds nobody.
struct Case {
    plugin: &'static PluginType,
    params: Value,
    names: &'static [&'static str],
    /// Deciders that say yes.
    yes: &'static [&'static str],
    outcomes: &'static [Option<usize>],
    /// Profiles in the order they run, each with the name of the peer it sees.
    runs: &'static [(&'static str, Option<&'static str>)],
    /// Name of the profile that answers.
    answers: Option<&'static str>,
    counted: Option<&'static str>,
}

/// Plays the cycle.
#[track_caller]
fn check(case: &Case) {
    let mut fleet = Fleet::new([pod("a"), pod("b"), pod("c")]);
    let built = fleet.build(case.plugin, Some(case.params.clone())).unwrap();
    Fleet::answer_deciders(&built, |name| case.yes.contains(&name));
    let handler = built.roles.profile_handler.unwrap();
    let names: Vec<Arc<str>> = case.names.iter().map(|name| (*name).into()).collect();
    let snapshot = fleet.snapshot();
    let mut results: Results = names.iter().map(|_| ProfileRun::NotRun).collect();
    let mut errors = SmallVec::new();
    let mut runs = Vec::new();
    let mut explained = Vec::new();
    fleet.call(&request("m"), &Columns::new(), |call| {
        for _ in 0..9 {
            let next = handler.pick(call, &names, &mut results);
            let peer = handler.peer(&names, &results, &next);
            explained.push(handler.explain(&names, &results, &next).unwrap());
            let Some(&index) = next.first() else { break };
            runs.push((names[index].to_string(), peer.map(|peer| peer.id().name().to_owned())));
            let result = case.outcomes[index].map(|place| ProfileResult {
                targets: smallvec![Arc::clone(&snapshot.endpoints()[place])],
                scored: Vec::new(),
            });
            if result.is_none() {
                errors.push((index, ScheduleError::NothingLeft));
            }
            results[index] = result.map_or(ProfileRun::Empty, ProfileRun::Chose);
        }
    });
    let expected: Vec<_> =
        case.runs.iter().map(|(name, peer)| ((*name).to_owned(), peer.map(str::to_owned))).collect();
    assert_eq!(runs, expected, "{} {} {:?}", case.plugin.name, case.params, case.yes);
    let last = explained.pop().unwrap();
    let complete = case.counted.map(|kind| format!("complete_{kind}"));
    assert!(complete.is_none_or(|complete| last.decision == complete), "{last:?}");
    assert_eq!(explained.len(), runs.len());
    for ((name, _), round) in runs.iter().zip(&explained) {
        // Profiles have the names of their stages, but for those of the older handler.
        let expected = format!("run_{name}");
        assert!(
            case.plugin.name == pd::TYPE.name || round.decision == expected || case.names == ["prefill"],
            "{round:?}"
        );
    }
    let answer = handler.conclude(&names, &results, &mut errors);
    let answer_name = answer.as_ref().ok().map(|index| &*names[*index]);
    assert_eq!(answer_name, case.answers, "{answer:?}");
    let page = fleet.page();
    let counted =
        page.lines().find(|line| line.starts_with("llm_d_epp_") && line.contains("_decision_total{"));
    let counted = counted.and_then(|line| line.split("decision_type=\"").nth(1)?.split('"').next());
    assert_eq!(counted, case.counted, "{page}");
}

const ALL: &[&str] = &["encode", "prefill", "decode"];

fn both() -> Value {
    json!({"deciders": {"prefill": "p", "encode": "e"}})
}

fn case(yes: &'static [&'static str], runs: &'static [(&'static str, Option<&'static str>)]) -> Case {
    Case {
        plugin: &disagg::TYPE,
        params: both(),
        names: ALL,
        yes,
        outcomes: &[Some(0), Some(1), Some(2)],
        runs,
        answers: Some("decode"),
        counted: None,
    }
}

#[test]
fn decode_runs_first_and_deciders_say_what_else_runs() {
    let decode = ("decode", None);
    let encode = ("encode", None);
    // Only prefill sees the decode server as its peer.
    let prefill = ("prefill", Some("c"));
    for (yes, runs, counted) in [
        (&[][..], &[decode][..], "decode-only"),
        (&["p"], &[decode, prefill], "prefill-decode"),
        (&["e"], &[decode, encode], "encode-decode"),
        (&["e", "p"], &[decode, encode, prefill], "encode-prefill-decode"),
    ] {
        // Leaked for the static lifetime of a case.
        let runs: &'static [_] = Vec::leak(runs.to_vec());
        let yes: &'static [_] = Vec::leak(yes.to_vec());
        check(&Case { counted: Some(counted), ..case(yes, runs) });
    }
}

#[test]
fn a_stage_that_finds_nobody_is_left_out() {
    check(&Case {
        outcomes: &[Some(0), None, Some(2)],
        counted: Some("encode-decode"),
        ..case(&["e", "p"], &[("decode", None), ("encode", None), ("prefill", Some("c"))])
    });
    check(&Case {
        outcomes: &[None, Some(1), Some(2)],
        counted: Some("prefill-decode"),
        ..case(&["e", "p"], &[("decode", None), ("encode", None), ("prefill", Some("c"))])
    });
}

#[test]
fn without_a_decode_server_nothing_else_runs_and_the_request_fails() {
    check(&Case {
        outcomes: &[Some(0), Some(1), None],
        answers: None,
        ..case(&["e", "p"], &[("decode", None)])
    });
    // No profile of that name: nothing runs at all.
    check(&Case { names: &["encode", "prefill", "other"], answers: None, ..case(&["e", "p"], &[]) });
}

#[test]
fn a_stage_without_profile_or_decider_does_not_run() {
    check(&Case {
        params: json!({}),
        counted: Some("decode-only"),
        ..case(&["p", "e"], &[("decode", None)])
    });
    check(&Case {
        names: &["decode"],
        outcomes: &[Some(2)],
        counted: Some("decode-only"),
        ..case(&["p", "e"], &[("decode", None)])
    });
    // The only profile decodes, whatever it is called.
    check(&Case {
        names: &["prefill"],
        outcomes: &[Some(2)],
        answers: Some("prefill"),
        counted: Some("decode-only"),
        ..case(&["p", "e"], &[("prefill", None)])
    });
    // A profile that is another stage's runs once, for that one.
    check(&Case {
        params: json!({"profiles": {"prefill": "decode"}, "deciders": {"prefill": "p"}}),
        counted: Some("decode-only"),
        ..case(&["p"], &[("decode", None)])
    });
}

#[test]
fn prefill_first_always_prefills_and_decode_sees_the_prefill_server() {
    let first = |params: Value| Case {
        params,
        counted: Some("prefill-decode"),
        ..case(&[], &[("prefill", None), ("decode", Some("b"))])
    };
    check(&first(json!({"stageOrder": "prefill-first"})));
    check(&Case {
        yes: &["e"],
        runs: &[("prefill", None), ("encode", None), ("decode", Some("b"))],
        counted: Some("encode-prefill-decode"),
        ..first(json!({"stageOrder": "prefill-first", "deciders": {"encode": "e"}}))
    });
    // Prefill found nobody: decode does all of it.
    check(&Case {
        outcomes: &[Some(0), None, Some(2)],
        runs: &[("prefill", None), ("decode", None)],
        counted: Some("decode-only"),
        ..first(json!({"stageOrder": "PREFILL_FIRST"}))
    });
    check(&Case {
        outcomes: &[Some(0), Some(1), None],
        answers: None,
        counted: None,
        ..first(json!({"stageOrder": "prefill-first"}))
    });
}

#[test]
fn the_older_handler_knows_no_encode_stage() {
    check(&Case {
        plugin: &pd::TYPE,
        params: json!({"deciderPluginName": "p"}),
        counted: Some("prefill-decode"),
        ..case(&["p", "e"], &[("decode", None), ("prefill", Some("c"))])
    });
    check(&Case {
        plugin: &pd::TYPE,
        params: json!({"decodeProfile": "encode", "prefillProfile": "decode", "deciderPluginName": "p"}),
        answers: Some("encode"),
        counted: Some("decode-only"),
        ..case(&[], &[("encode", None)])
    });
}

#[test]
fn a_failure_names_the_profiles_in_alphabetical_order() {
    let built = Fleet::new([]).build(&disagg::TYPE, Some(both())).unwrap();
    let handler = built.roles.profile_handler.unwrap();
    let names: Vec<Arc<str>> = ALL.iter().map(|name| (*name).into()).collect();
    let results: Results = [ProfileRun::NotRun, ProfileRun::Empty, ProfileRun::Empty].into_iter().collect();
    let mut errors: SmallVec<[_; 1]> =
        smallvec![(1, ScheduleError::NothingLeft), (2, ScheduleError::NothingLeft)];
    let error = handler.conclude(&names, &results, &mut errors).unwrap_err();
    assert!(error.is_nothing_left());
    assert_eq!(
        error.to_string(),
        "failed to find available decode workers; profile 'decode': no endpoints available for the given request; \
         profile 'prefill': no endpoints available for the given request"
    );
}

#[test]
fn a_failure_says_what_decode_lacks_and_not_what_the_others_lack() {
    let built = Fleet::new([]).build(&disagg::TYPE, Some(both())).unwrap();
    let handler = built.roles.profile_handler.unwrap();
    let names: Vec<Arc<str>> = ["decode", "prefill"].map(Into::into).to_vec();
    let lacks = |role| ScheduleError::NoneOfRole { role };
    for (decode, prefill, role) in [
        (lacks("decode"), ScheduleError::NothingLeft, Some("decode")),
        (ScheduleError::NothingLeft, lacks("prefill"), None),
        (lacks("decode"), lacks("prefill"), Some("decode")),
    ] {
        let results: Results = [ProfileRun::Empty, ProfileRun::Empty].into_iter().collect();
        let mut errors: SmallVec<[_; 1]> = smallvec![(0, decode.clone()), (1, prefill)];
        let error = handler.conclude(&names, &results, &mut errors).unwrap_err();
        assert_eq!(error.missing_role(), role, "{decode:?}");
        assert_eq!(error.is_nothing_left(), role.is_none(), "{decode:?}");
    }
}
