use serde_json::{Value, json};

use super::TYPE;
use crate::plugins::fixture::{Built, Fleet, pod, request};
use crate::request::Headers;
use crate::scheduling::{Columns, HeaderEdits, ResponseCall};

fn fleet(params: Value) -> (Fleet, Built) {
    let mut fleet = Fleet::new(["a", "ab", "b"].map(pod));
    let built = fleet.build(&TYPE, Some(params)).unwrap();
    (fleet, built)
}

fn scores(fleet: &Fleet, built: &Built, header: &str, value: &str) -> Vec<f64> {
    fleet.scores(&built.roles, &request("m").header(header, value), &Columns::new())
}

#[test]
fn the_token_of_a_response_brings_the_next_request_to_the_same_endpoint() {
    let (fleet, built) = fleet(Value::Null);
    let decision = fleet.decision(&[Some(1)], &[]);
    let call = ResponseCall {
        headers: &Headers::new(),
        served: None,
        endpoint: &decision.targets()[0],
        decision: &decision,
        profiles: &["default".into()],
    };
    let mut edits = HeaderEdits::default();
    built.roles.response_headers.as_ref().unwrap().on_response_headers(&call, &mut None, &mut edits);
    let (name, value) = edits.set[0].clone();
    // base64("default/ab")
    assert_eq!((&name[..], &value[..]), (&b"x-session-token"[..], &b"ZGVmYXVsdC9hYg=="[..]));
    assert_eq!(scores(&fleet, &built, "x-session-token", "ZGVmYXVsdC9hYg=="), [0.0, 1.0, 0.0]);
}

#[test]
fn tokens_that_name_nobody_have_no_effect() {
    let (fleet, built) = fleet(json!({"encodedEndpointHeaderConfig": {"header": " X-Mine "}}));
    // "default/c", "b", "other/b", no base64, nothing.
    for token in ["ZGVmYXVsdC9j", "Yg==", "b3RoZXIvYg==", "%%%", ""] {
        assert_eq!(scores(&fleet, &built, "x-mine", token), [0.0; 3], "{token}");
    }
    assert_eq!(scores(&fleet, &built, "x-session-token", "ZGVmYXVsdC9i"), [0.0; 3]);
    assert_eq!(scores(&fleet, &built, "x-mine", "ZGVmYXVsdC9i"), [0.0, 0.0, 1.0]);
}

#[test]
fn the_named_profile_decides_what_the_token_says() {
    let (fleet, built) = fleet(json!({"profileName": "prefill"}));
    for (chosen, expected) in [(Some(2), Some(&b"ZGVmYXVsdC9i"[..])), (None, None)] {
        let decision = fleet.decision(&[Some(0), chosen], &[]);
        let call = ResponseCall {
            headers: &Headers::new(),
            served: None,
            endpoint: &decision.targets()[0],
            decision: &decision,
            profiles: &["default".into(), "prefill".into()],
        };
        let mut edits = HeaderEdits::default();
        built.roles.response_headers.as_ref().unwrap().on_response_headers(&call, &mut None, &mut edits);
        assert_eq!(edits.set.first().map(|(_, value)| &value[..]), expected);
    }
}

#[test]
fn a_session_stays_where_it_was_bound() {
    let (fleet, built) = fleet(json!({"strategy": "session_id"}));
    let forward = |session: &str, place: usize, scored: &[u32]| {
        let request = request("m").header("x-session-id", session);
        fleet.forward_out_of(&built.roles, &request, &Columns::new(), &[Some(place)], scored);
    };
    let bound = |session: &str| scores(&fleet, &built, "x-session-id", session);
    assert_eq!(bound("s"), [0.0; 3]);
    forward("s", 2, &[0, 1, 2]);
    assert_eq!(bound("s"), [0.0, 0.0, 1.0]);
    assert_eq!(bound(" s "), [0.0, 0.0, 1.0]);
    assert_eq!(bound("other"), [0.0; 3]);
    // Another endpoint was picked although the bound one was there: it stays bound.
    forward("s", 0, &[0, 1, 2]);
    assert_eq!(bound("s"), [0.0, 0.0, 1.0]);
    forward("s", 0, &[0, 1]);
    assert_eq!(bound("s"), [1.0, 0.0, 0.0]);
    forward("  ", 0, &[0]);
    assert_eq!(bound("  "), [0.0; 3]);
}

#[test]
fn the_first_source_that_is_not_blank_names_the_session() {
    let sources = json!([{"header": "X-First"}, {"header": "x-second"}]);
    let (fleet, built) = fleet(json!({"strategy": "session_id", "sessionIdConfig": {"sources": sources}}));
    let both = request("m").header("x-first", " ").header("x-second", "s");
    fleet.forward(&built.roles, &both, &Columns::new(), &[Some(1)]);
    assert_eq!(scores(&fleet, &built, "x-first", "s"), [0.0, 1.0, 0.0]);
}

#[test]
fn a_session_expires_by_the_clock_of_the_call() {
    let config = json!({"evictionTtlSeconds": 10});
    let (mut fleet, built) = fleet(json!({"strategy": "session_id", "sessionIdConfig": config}));
    let request = request("m").header("x-session-id", "s");
    fleet.forward(&built.roles, &request, &Columns::new(), &[Some(0)]);
    fleet.now += std::time::Duration::from_secs(9);
    assert_eq!(scores(&fleet, &built, "x-session-id", "s"), [1.0, 0.0, 0.0]);
    fleet.now += std::time::Duration::from_secs(1);
    assert_eq!(scores(&fleet, &built, "x-session-id", "s"), [0.0; 3]);
}

#[test]
fn the_common_header_name_serves_both_strategies_and_their_own_goes_first() {
    let read = |params: Value| {
        let (fleet, built) = fleet(params);
        let scored = |header: &&str| scores(&fleet, &built, header, "ZGVmYXVsdC9hYg==") == [0.0, 1.0, 0.0];
        ["x-mine", "x-own", "x-session-token"].into_iter().filter(scored).collect::<Vec<_>>()
    };
    assert_eq!(read(json!({"headerName": " X-Mine "})), ["x-mine"]);
    let own = json!({"headerName": "x-mine", "encodedEndpointHeaderConfig": {"header": "x-own"}});
    assert_eq!(read(own), ["x-own"]);
    let empty = json!({"headerName": "", "encodedEndpointHeaderConfig": {"header": " "}});
    assert_eq!(read(empty), ["x-session-token"]);
    let (fleet, built) = fleet(json!({"strategy": "session_id", "headerName": "X-Mine"}));
    fleet.forward(&built.roles, &request("m").header("x-mine", "s"), &Columns::new(), &[Some(0)]);
    assert_eq!(scores(&fleet, &built, "x-mine", "s"), [1.0, 0.0, 0.0]);
}

#[test]
fn wrong_parameters_name_their_field() {
    let session = |config: Value| json!({"strategy": "session_id", "sessionIdConfig": config});
    let cases = [
        (json!({"strategy": "sticky"}), "strategy"),
        (json!({"sessionIdConfig": {"evictionTtlSeconds": -1}}), "sessionIdConfig.evictionTtlSeconds"),
        (json!({"sessionIdConfig": {"evictionSweepSeconds": -1}}), "sessionIdConfig.evictionSweepSeconds"),
        (session(json!({"evictionTtlSeconds": -1})), "sessionIdConfig.evictionTtlSeconds"),
        (session(json!({"evictionSweepSeconds": -1})), "sessionIdConfig.evictionSweepSeconds"),
        (session(json!({"sources": [{}]})), "sessionIdConfig.sources[0]"),
        (session(json!({"sources": [{"header": "a", "attribute": "b"}]})), "sessionIdConfig.sources[0]"),
        (
            session(json!({"sources": [{"header": "a", "producer": "p"}]})),
            "sessionIdConfig.sources[0].producer",
        ),
        (
            session(json!({"sources": [{"header": "a"}, {"attribute": "Tenant"}]})),
            "sessionIdConfig.sources[1].attribute",
        ),
    ];
    for (params, path) in cases {
        let error = Fleet::new([]).build(&TYPE, Some(params.clone())).map(|_| ()).unwrap_err();
        assert_eq!(error.path, path, "{params}: {error}");
    }
    let swept = session(json!({"evictionSweepSeconds": 10}));
    assert_eq!(Fleet::new([]).build(&TYPE, Some(swept)).unwrap().warnings.len(), 1);
}

#[test]
fn as_a_filter_the_sessions_endpoint_stays_alone_and_without_one_all_stay() {
    for plugin in [&super::FILTER, &super::MULTICLUSTER_FILTER] {
        let mut fleet = Fleet::new(["a", "ab", "b"].map(pod));
        let built = fleet.build(plugin, None).unwrap();
        let kept = |token: &str| fleet.kept(&built.roles, &request("m").header("x-session-token", token));
        assert_eq!(kept("ZGVmYXVsdC9hYg=="), ["ab"]);
        for token in ["", "%%%", "ZGVmYXVsdC9j"] {
            assert_eq!(kept(token), ["a", "ab", "b"], "{token}");
        }
        assert!(built.roles.scorer.is_none() && built.roles.response_headers.is_some());
        let mut empty = Fleet::new([]);
        let built = empty.build(plugin, None).unwrap();
        assert!(empty.kept(&built.roles, &request("m").header("x-session-token", "ZGVmYXVsdC9j")).is_empty());
    }
}

#[test]
fn a_session_that_a_producer_found_binds_like_one_of_a_header() {
    use crate::plugins::producers::session_id::{self, SessionIdData};
    use crate::scheduling::{DecidedCall, Produced};
    let mut fleet = Fleet::new(["a", "ab", "b"].map(pod));
    fleet.build(&session_id::TYPE, Some(json!({"cookieName": "sid"}))).unwrap();
    let sources = json!([{"header": "x-none"}, {"attribute": "SessionIDDataKey"}]);
    let params = json!({"strategy": "session_id", "sessionIdConfig": {"sources": sources}});
    let built = fleet.build(&TYPE, Some(params)).unwrap();
    assert_eq!(built.consumed[0].key.producer, "session-id-producer");
    let columns = |id: &'static str| {
        let mut columns = Columns::new();
        let cell = SessionIdData(id.into());
        columns.insert(Produced::new(fleet.column("session-id-producer"), vec![cell]));
        columns
    };
    let decision = fleet.decision(&[Some(1)], &[]);
    fleet.call(&request("m"), &columns("s1"), |call| {
        let decided = DecidedCall { call: *call, decision: &decision, profiles: &["default".into()] };
        let hook = built.roles.pre_request.as_ref().unwrap();
        hook.before_forward(&decided, &mut HeaderEdits::default()).unwrap();
    });
    assert_eq!(fleet.scores(&built.roles, &request("m"), &columns("s1")), [0.0, 1.0, 0.0]);
    assert_eq!(fleet.scores(&built.roles, &request("m"), &columns("s2")), [0.0; 3]);
    assert_eq!(fleet.scores(&built.roles, &request("m"), &Columns::new()), [0.0; 3]);
}
