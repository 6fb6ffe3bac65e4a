//! One request through the director, with a scheduler that picks at random.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::metrics::{ExtensionPoint, Metrics};
use crate::plugins::{BuildCx, REGISTRY, Roles};
use crate::pool::{
    EndpointId, EndpointSpec, ModelRewrite, Objectives, Pool, RewriteRule, RewriteTarget, Rewrites,
};
use crate::request::{Headers, Parsers};
use crate::scheduling::{Entry, Profile, ProfilePlugin, Scheduler};
use crate::telemetry::Span;

fn build(kind: &str, metrics: &Arc<Metrics>) -> Roles {
    let row = REGISTRY.iter().find(|row| row.name == kind).expect("a plugin type");
    (row.build)(&mut BuildCx::new(kind, None, metrics, &mut Vec::new(), 1)).expect("it needs no parameters")
}

fn slot<T: ?Sized>(plugin: Option<Arc<T>>, point: ExtensionPoint, metrics: &Metrics) -> ProfilePlugin<T> {
    ProfilePlugin {
        name: "p".into(),
        kind: "p",
        timer: Some(Arc::new(metrics.plugin_timer(point, "p", "p"))),
        plugin: plugin.expect("the role"),
    }
}

/// A director over endpoints on these ports of one address, with the default parsers.
pub(super) fn director(ports: &[u16]) -> Director {
    director_with(ports, &Parsers::default())
}

fn director_with(ports: &[u16], parsers: &Parsers) -> Director {
    Director::new(parts(ports, parsers))
}

pub(super) fn parts(ports: &[u16], parsers: &Parsers) -> DirectorParts {
    let metrics = Arc::new(Metrics::new());
    let pool = Arc::new(Pool::new("default", "pool", Instant::now()));
    let spec = |&port: &u16| {
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        EndpointSpec::new(EndpointId::new("default", &format!("pod-{port}")), address)
    };
    pool.replace_endpoints(ports.iter().map(spec).collect());
    let picker = build("random-picker", &metrics).picker;
    let profile = Profile {
        name: "default".into(),
        filters: Vec::new(),
        scorers: Vec::new(),
        picker: slot(picker, ExtensionPoint::Picker, &metrics),
    };
    let handler = build("single-profile-handler", &metrics).profile_handler;
    let handler = slot(handler, ExtensionPoint::ProfilePicker, &metrics);
    let conclude = metrics.plugin_timer(ExtensionPoint::ProcessProfilesResults, "p", "p");
    DirectorParts {
        pool,
        scheduler: Scheduler::new(vec![profile], handler, Some(Arc::new(conclude))),
        preparers: Vec::new(),
        media: crate::request::MediaEstimate::DEFAULT,
        in_flight: crate::scheduling::InFlightRule::default(),
        in_flight_matches: None,
        entry: Entry::default(),
        producers: Vec::new(),
        hooks: Vec::new(),
        reporters: Vec::new(),
        parsers: parsers
            .kinds()
            .iter()
            .map(|kind| metrics.timed_parser(*kind, kind.type_name(), &kind.type_name().into()))
            .collect(),
        prefix_match: None,
        shown_matches: None,
        admission: None,
        inflight: None,
        budget: Arc::new(BodyBudget::new(0)),
        decisions: None,
        beside: None,
        metrics,
        settings: DirectorSettings { seed: 1, ..DirectorSettings::default() },
    }
}

pub(super) fn ask(body: &'static str, headers: Headers) -> Ask {
    Ask {
        headers,
        body: Bytes::from_static(body.as_bytes()),
        body_seen: BodySeen::Whole,
        hint: SubsetHint::Absent,
    }
}

pub(super) fn handle(director: &Director, ask: Ask) -> Result<Routed<Exchange>, Refusal> {
    director.handle(ask, Instant::now(), &mut Span::off()).now_or_never().expect("nothing holds the request")
}

pub(super) const COMPLETION: &str = r#"{"model":"m","prompt":"hello"}"#;

fn text(pieces: &Pieces) -> String {
    String::from_utf8(pieces.concat()).unwrap()
}

#[test]
fn the_chosen_endpoint_carries_the_request_until_the_exchange_is_dropped() {
    let director = director(&[8000]);
    let routed = handle(&director, ask(COMPLETION, Headers::new())).unwrap();
    assert_eq!(routed.destination, "10.0.0.1:8000");
    assert_eq!((text(&routed.body).as_str(), routed.body_changed), (COMPLETION, false));
    let snapshot = director.pool().snapshot();
    let load = snapshot.endpoints()[0].load();
    assert_eq!(load.in_flight(), 1);
    drop(routed);
    assert_eq!((load.in_flight(), load.in_flight_tokens()), (0, 0));
}

#[test]
fn a_request_without_an_id_gets_one_and_a_given_one_stays() {
    let director = director(&[8000]);
    let id = |headers: Headers| {
        let routed = handle(&director, ask(COMPLETION, headers)).unwrap();
        routed.edits.set.iter().find(|(name, _)| name == "x-request-id").map(|(_, value)| value.len())
    };
    assert_eq!(id(Headers::new()), Some(36));
    assert_eq!(id(Headers::from([("x-request-id", "r")])), None);
}

#[test]
fn an_empty_pool_an_empty_subset_and_a_malformed_hint_are_refused_each_with_its_reason() {
    let reason = |director: &Director, hint: SubsetHint| {
        let ask = Ask { hint, ..ask(COMPLETION, Headers::new()) };
        handle(director, ask).err().map(|refusal| refusal.reason)
    };
    assert_eq!(reason(&director(&[]), SubsetHint::Absent), Some(Reason::NoEndpoints));
    let full = director(&[8000, 8001]);
    assert_eq!(reason(&full, SubsetHint::Addresses(Vec::new())), Some(Reason::NoEndpoints));
    assert_eq!(reason(&full, SubsetHint::Addresses(vec!["10.0.0.2".into()])), Some(Reason::NoEndpoints));
    assert_eq!(reason(&full, SubsetHint::Addresses(vec!["pod".into()])), Some(Reason::InvalidSubset));
    assert_eq!(reason(&full, SubsetHint::Malformed("it is a number".into())), Some(Reason::InvalidSubset));
}

#[test]
fn a_subset_with_a_port_admits_that_rank_only() {
    let director = director(&[8000, 8001]);
    for _ in 0..20 {
        let hint = SubsetHint::Addresses(vec!["10.0.0.1:8001".into()]);
        let routed = handle(&director, Ask { hint, ..ask(COMPLETION, Headers::new()) }).unwrap();
        assert_eq!(routed.destination, "10.0.0.1:8001");
    }
}

#[test]
fn a_header_only_request_is_scheduled_like_any_other() {
    let headers = Headers::from([(":path", "/v1/models"), (":method", "GET")]);
    let ask = Ask { body_seen: BodySeen::None, ..ask("", headers) };
    let routed = handle(&director(&[8000]), ask).unwrap();
    assert_eq!((routed.destination.as_ref(), routed.body.len()), (b"10.0.0.1:8000".as_slice(), 0));
}

#[test]
fn a_rule_beats_a_header_and_a_header_beats_the_body() {
    let director = director(&[8000]);
    let body = |headers: Headers| text(&handle(&director, ask(COMPLETION, headers)).unwrap().body);
    let by_header = [("x-llm-d-model-name-rewrite", "h")];
    assert_eq!(body(Headers::new()), COMPLETION);
    assert_eq!(body(Headers::from(by_header)), r#"{"model":"h","prompt":"hello"}"#);
    let target = RewriteTarget { model: "r".into(), weight: None };
    let rule = RewriteRule { models: vec!["m".into()], targets: vec![target] };
    let resource = ModelRewrite { name: "rules".into(), created: 0, rules: vec![rule] };
    director.pool().set_rewrites(Rewrites::new(vec![resource]));
    assert_eq!(body(Headers::from(by_header)), r#"{"model":"r","prompt":"hello"}"#);
}

#[test]
fn a_body_without_a_model_goes_on_as_it_came_and_gets_one_where_a_header_or_rule_names_it() {
    let director = director(&[8000]);
    for (path, body) in [
        ("/v1/completions", r#"{"prompt":"hello"}"#),
        ("/v1/completions", r#"{"model":null,"prompt":"hello"}"#),
        ("/v1/completions", r#"{"model":"","prompt":"hello"}"#),
        ("/v1/conversations", "{}"),
        ("/v1/conversations", r#"{"metadata":{}}"#),
        ("/v1/conversations", r#"{"items":[]}"#),
        ("/inference/v1/generate", r#"{"token_ids":[1,2]}"#),
        ("/v1/responses", r#"{"input":"hello"}"#),
        ("/openai/deployments/NAME/chat/completions", r#"{"messages":[{"role":"user","content":"x"}]}"#),
    ] {
        let routed = handle(&director, ask(body, Headers::from([(":path", path)])));
        let routed = routed.unwrap_or_else(|refusal| panic!("{path} {body}: {refusal}"));
        assert_eq!((text(&routed.body).as_str(), routed.body_changed), (body, false), "{path}");
    }
    let body = r#"{"prompt":"hello"}"#;
    let headers = Headers::from([("x-gateway-model-name-rewrite", "h")]);
    let routed = handle(&director, ask(body, headers)).unwrap();
    assert_eq!(text(&routed.body), r#"{"model":"h","prompt":"hello"}"#);
    let target = RewriteTarget { model: "r".into(), weight: None };
    let rule = RewriteRule { models: vec![], targets: vec![target] };
    let resource = ModelRewrite { name: "rules".into(), created: 0, rules: vec![rule] };
    director.pool().set_rewrites(Rewrites::new(vec![resource]));
    let routed = handle(&director, ask(body, Headers::new())).unwrap();
    assert_eq!(text(&routed.body), r#"{"model":"r","prompt":"hello"}"#);
}

#[test]
fn the_model_is_replaced_in_the_first_part_of_a_body_if_it_lies_there() {
    let director = director(&[8000]);
    let headers = || Headers::from([("x-llm-d-model-name-rewrite", "h")]);
    let body = |body: &'static str| {
        let ask = Ask { body_seen: BodySeen::Part, ..ask(body, headers()) };
        text(&handle(&director, ask).unwrap().body)
    };
    assert_eq!(body(COMPLETION), r#"{"model":"h","prompt":"hello"}"#);
    assert_eq!(body(r#"{"model":"m","prompt":"hel"#), r#"{"model":"h","prompt":"hel"#);
    let cut = Ask { body_seen: BodySeen::Part, ..ask(r#"{"prompt":"hel"#, headers()) };
    assert_eq!(handle(&director, cut).unwrap_err().reason, Reason::RewriteCut);
    let cut = Ask { body_seen: BodySeen::Part, ..ask(r#"{"prompt":"hel"#, Headers::new()) };
    assert_eq!(text(&handle(&director, cut).unwrap().body), r#"{"prompt":"hel"#, "no rewrite applies");
    let plain = Ask { body_seen: BodySeen::Part, ..ask(COMPLETION, Headers::new()) };
    assert!(!handle(&director, plain).unwrap().body_changed);
}

#[test]
fn a_model_that_is_not_seen_is_refused_where_it_must_be_replaced() {
    let director = director(&[8000]);
    let unseen = |headers: Headers| Ask { body_seen: BodySeen::Unseen, ..ask("", headers) };
    let by_header = || Headers::from([("x-llm-d-model-name-rewrite", "h")]);
    assert_eq!(handle(&director, unseen(by_header())).unwrap_err().reason, Reason::RewriteUnseen);
    let none = Ask { body_seen: BodySeen::None, ..ask("", by_header()) };
    assert!(handle(&director, none).is_ok(), "a request without a body has no model");
    let elsewhere = Headers::from([("x-llm-d-model-name-rewrite", "h"), (":path", "/v1/files")]);
    assert!(handle(&director, unseen(elsewhere)).is_ok(), "the path knows no model");

    let rule = |models: &[&str], target: &str| {
        let targets = vec![RewriteTarget { model: target.into(), weight: None }];
        let rule = RewriteRule { models: models.iter().map(|&model| model.into()).collect(), targets };
        Rewrites::new(vec![ModelRewrite { name: "rules".into(), created: 0, rules: vec![rule] }])
    };
    director.pool().set_rewrites(rule(&["alias"], "real"));
    let piece = |text: &'static str| {
        let mut routed = handle(&director, unseen(Headers::new())).unwrap();
        routed.exchange.on_request_chunk(&Bytes::from_static(text.as_bytes()), false)
    };
    assert_eq!(piece(r#"{"model":"real","prompt":"x"}"#), Ok(()));
    assert_eq!(piece(r#"{"prompt":"\"model\":\"alias\"","model":"re"#), Ok(()));
    assert_eq!(piece(r#"{"model":"alias","#).unwrap_err().reason, Reason::RewriteUnseen);

    let json = [("content-type", "application/json; charset=utf-8"), (":path", "/v1/rerank")];
    let header = ("x-llm-d-model-name-rewrite", "h");
    let elsewhere = |headers: Headers, text: &'static str| {
        let mut routed = handle(&director, unseen(headers)).unwrap();
        routed
            .exchange
            .on_request_chunk(&Bytes::from_static(text.as_bytes()), false)
            .map_err(|refusal| refusal.reason)
    };
    let plain = || Headers::from(json);
    let refused = Err(Reason::RewriteUnseen);
    assert_eq!(elsewhere(plain(), "\u{feff}{\"query\":\"q\",\"model\":\"alias\"}"), refused);
    assert_eq!(elsewhere(plain(), r#"{"model":"real"}"#), Ok(()));
    let asking = || Headers::from([json[0], json[1], header]);
    assert_eq!(elsewhere(asking(), r#"{"model":"any"}"#), refused);
    assert_eq!(elsewhere(asking(), r#"{"query":"no model"}"#), Ok(()));

    director.pool().set_rewrites(rule(&[], "real"));
    assert_eq!(elsewhere(plain(), r#"{"model":"any"}"#), refused);
    assert_eq!(handle(&director, unseen(Headers::new())).unwrap_err().reason, Reason::RewriteUnseen);
}

#[test]
fn priority_comes_from_the_objective_and_control_headers_do_not_reach_the_model_server() {
    let director = director(&[8000]);
    director.pool().set_objectives([("gold".to_owned(), 7)].into_iter().collect::<Objectives>());
    let headers =
        Headers::from([("x-llm-d-inference-objective", "gold"), ("x-prefiller-host-port", "1.2.3.4:5")]);
    let routed = handle(&director, ask(COMPLETION, headers)).unwrap();
    assert_eq!(routed.edits.remove.as_slice(), ["x-llm-d-inference-objective", "x-prefiller-host-port"]);
}

#[test]
fn a_path_that_no_parser_takes_is_refused_only_without_a_fallback() {
    let headers = || Headers::from([(":path", "/anything")]);
    assert!(handle(&director(&[8000]), ask("raw", headers())).is_ok());
    let strict = director_with(&[8000], &Parsers::new([crate::request::ParserKind::OpenAi]));
    let refusal = handle(&strict, ask("raw", headers())).unwrap_err();
    assert_eq!(refusal.message, "no parser registered matching path suffix for: /anything");
}

/// Admits everyone and notes what each response cost.
#[derive(Clone, Default)]
struct Bill(Arc<parking_lot::Mutex<Vec<(u64, u64)>>>);

impl Admission for Bill {
    fn admit<'a>(
        &'a self,
        _: AdmissionCall<'a>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<AdmissionPlace, Refusal>> + Send + 'a>> {
        let place: Box<dyn Place> = Box::new(self.clone());
        Box::pin(std::future::ready(Ok(Some(place))))
    }
}

impl Place for Bill {
    fn poll_revoked(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        std::task::Poll::Ready(())
    }

    fn served(&mut self, usage: &crate::request::Usage) {
        self.0.lock().push((usage.prompt_tokens, usage.completion_tokens));
    }
}

#[test]
fn whoever_leaves_behind_the_usage_and_before_the_end_pays_for_it_once() {
    let bill = Bill::default();
    let admission: Option<Arc<dyn Admission>> = Some(Arc::new(bill.clone()));
    let director = Director::new(DirectorParts { admission, ..parts(&[8000], &Parsers::default()) });
    let headers = || Headers::from([(":status", "200"), ("content-type", "text/event-stream")]);
    let event = Bytes::from_static(b"data: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n");
    for properly in [false, true] {
        let mut exchange = handle(&director, ask(COMPLETION, Headers::new())).unwrap().exchange;
        exchange.on_headers(&headers(), None, false);
        exchange.on_chunk(event.clone(), false);
        if properly {
            exchange.on_end();
        }
        drop(exchange);
    }
    drop(handle(&director, ask(COMPLETION, Headers::new())));
    assert_eq!(*bill.0.lock(), [(7, 2), (7, 2)]);
}

#[test]
fn the_wait_that_a_refused_client_is_told_is_the_same_for_the_same_seed() {
    let waits = || {
        let director = director(&[]);
        let waits =
            (0..20).map(|_| handle(&director, ask(COMPLETION, Headers::new())).unwrap_err().retry_after);
        waits.collect::<Vec<_>>()
    };
    assert_eq!(waits(), waits());
    assert!(waits().iter().all(|wait| matches!(wait, Some(5..=8))));
    assert!(waits().iter().any(|wait| *wait != waits()[0]), "they are spread");
}

/// The part of a response that a proxy shows before the exchange is over.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    Nothing,
    Status(&'static str),
    Event(&'static str),
    Revocation,
    End,
}

#[test]
fn responses_are_counted_by_how_they_ended() {
    const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7}}\n\n";
    const EACH: &str = "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":7}}\n\n";
    const ERROR: &str = "data: {\"error\":{\"code\":500}}\n\n";
    let ok = Shown::Status("200");
    for (shown, end) in [
        (vec![ok, Shown::Event(USAGE), Shown::End], "complete"),
        (vec![ok, Shown::Event(ERROR), Shown::End], "error_event"),
        (vec![ok, Shown::Event(ERROR)], "error_event"),
        (vec![Shown::Status("503"), Shown::Event(ERROR), Shown::End], "error_status"),
        (vec![ok, Shown::Event(USAGE)], "closed_after_usage"),
        (vec![ok, Shown::Event("data: {}\n\n")], "cut_off"),
        (vec![ok, Shown::Event(EACH), Shown::Event(EACH)], "cut_off"),
        (
            vec![ok, Shown::Event(EACH), Shown::Event("data: [DO"), Shown::Event("NE]\n\n")],
            "closed_after_usage",
        ),
        (vec![ok], "cut_off"),
        (vec![Shown::Nothing], "no_response"),
        (vec![ok, Shown::Event(USAGE), Shown::Revocation], "evicted"),
    ] {
        let admission: Option<Arc<dyn Admission>> = Some(Arc::new(Bill::default()));
        let parts = DirectorParts { admission, ..parts(&[8000], &Parsers::default()) };
        let metrics = Arc::clone(&parts.metrics);
        let director = Director::new(parts);
        let mut exchange = handle(&director, ask(COMPLETION, Headers::new())).unwrap().exchange;
        for step in shown {
            match step {
                Shown::Nothing => {}
                Shown::Status(status) => {
                    let headers = Headers::from([(":status", status), ("content-type", "text/event-stream")]);
                    exchange.on_headers(&headers, None, false);
                }
                Shown::Event(event) => {
                    exchange.on_chunk(Bytes::from_static(event.as_bytes()), false);
                }
                Shown::Revocation => {
                    let waker = futures_util::task::noop_waker();
                    let revoked = exchange.poll_revoked(&mut std::task::Context::from_waker(&waker));
                    assert!(revoked.is_ready());
                }
                Shown::End => {
                    exchange.on_end();
                }
            }
        }
        drop(exchange);
        let page = metrics.encode(crate::metrics::Format::Text);
        let counted: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("pointsman_responses_total{") && line.ends_with(" 1"))
            .collect();
        assert_eq!(counted, [format!("pointsman_responses_total{{end=\"{end}\"}} 1")]);
    }
}

#[test]
fn a_rule_for_every_model_tells_the_client_of_a_body_that_cannot_get_another() {
    let director = director_with(&[8000], &Parsers::default());
    let form = "multipart/form-data; boundary=B";
    let cases = [
        ("/v1/completions", COMPLETION, [("content-encoding", "gzip, br"), ("x", "")]),
        ("/v1/completions", COMPLETION, [("content-encoding", "lz4"), ("x", "")]),
        ("/v1/completions", "{\0\"\0", [("content-type", "application/json"), ("x", "")]),
        ("/v1/audio/transcriptions", "--B\r\n\r\nx\r\n--B--", [("content-type", form), ("x", "")]),
        ("/v1/audio/transcriptions", "--B\r\n\r\nx", [("content-type", form), ("x", "")]),
    ];
    let outcome =
        |(path, body, [one, two]): (&'static str, &'static str, [(&'static str, &'static str); 2])| {
            handle(&director, ask(body, Headers::from([(":path", path), one, two])))
                .map(|routed| text(&routed.body))
        };
    for case in cases {
        assert_eq!(outcome(case).as_deref(), Ok(case.1), "without a rule it goes on");
    }
    let target = RewriteTarget { model: "r".into(), weight: None };
    let rule = RewriteRule { models: vec![], targets: vec![target] };
    let resource = ModelRewrite { name: "rules".into(), created: 0, rules: vec![rule] };
    director.pool().set_rewrites(Rewrites::new(vec![resource]));
    for case in cases {
        let refusal = outcome(case).unwrap_err();
        assert!(refusal.to_string().ends_with("the body cannot get another model"), "{refusal}");
    }
}
