//! The protocol: every body mode, every order of messages.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::wire::{
    CommonResponse, HeaderMap, HeaderValue, HttpTrailers, Mutation, ProtocolConfiguration, Response,
};
use super::*;
use crate::director::Pieces;

/// A response side that marks what it passes.
#[derive(Debug, Default)]
struct Echo {
    /// Keeps each chunk back until the next one comes.
    hold: bool,
    held: Option<Bytes>,
}

impl ResponseSide for Echo {
    fn on_headers(&mut self, _: &Headers, _: Option<&str>, _: bool) -> HeaderEdits {
        HeaderEdits::default()
    }

    fn on_chunk(&mut self, chunk: Bytes, end: bool) -> Pieces {
        if !self.hold {
            return [chunk].into_iter().collect();
        }
        let mut pieces: Pieces = self.held.replace(chunk).into_iter().collect();
        if end {
            pieces.extend(self.held.take());
        }
        pieces
    }

    fn flush(&mut self) -> Pieces {
        self.held.take().into_iter().collect()
    }

    fn on_end(&mut self) -> Pieces {
        self.held.take().into_iter().collect()
    }
}

fn routed(body: Bytes, changed: bool, hold: bool) -> Routed<Echo> {
    Routed {
        destination: Bytes::from_static(b"10.0.0.1:8000"),
        scores: Vec::new(),
        edits: HeaderEdits::default(),
        body: [body].into_iter().filter(|body| !body.is_empty()).collect(),
        body_changed: changed,
        held: None,
        exchange: Echo { hold, held: None },
    }
}

fn settings(body_limit: u64) -> MachineSettings {
    MachineSettings { modes: Modes::default(), body_limit, budget: Arc::new(BodyBudget::new(0)) }
}

fn machine() -> Machine<Echo> {
    Machine::new(settings(0))
}

fn message(request: Request) -> ProcessingRequest {
    ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }
}

fn headers(end_of_stream: bool) -> ProcessingRequest {
    let header =
        HeaderValue { key: ":path".into(), value: Bytes::new(), raw_value: "/v1/completions".into() };
    let headers = Some(HeaderMap { headers: vec![header] });
    message(Request::RequestHeaders(HttpHeaders { headers, end_of_stream }))
}

fn in_mode(request: i32, early: bool) -> ProcessingRequest {
    let protocol_config = Some(ProtocolConfiguration {
        request_body_mode: request,
        response_body_mode: request,
        send_body_without_waiting_for_header_response: early,
    });
    ProcessingRequest { protocol_config, ..headers(false) }
}

fn body(text: &'static str, end_of_stream: bool) -> ProcessingRequest {
    message(Request::RequestBody(HttpBody { body: text.into(), end_of_stream }))
}

fn trailers() -> ProcessingRequest {
    message(Request::RequestTrailers(HttpTrailers::default()))
}

/// Feeds messages, decides as asked, and describes what was sent, one word a message.
fn play(
    machine: &mut Machine<Echo>,
    messages: Vec<ProcessingRequest>,
    changed: Option<&'static str>,
) -> Vec<String> {
    let mut log = Vec::new();
    for message in messages {
        let effects = machine.on_message(message);
        perform(machine, effects, changed, &mut log);
    }
    log
}

fn perform(
    machine: &mut Machine<Echo>,
    effects: Effects,
    changed: Option<&'static str>,
    log: &mut Vec<String>,
) {
    for effect in effects {
        match effect {
            Effect::Send(message) => log.push(describe(&message)),
            Effect::Refused(_) | Effect::Hold(_) => {}
            Effect::Finish => log.push("finish".into()),
            Effect::Fail(_) => log.push("fail".into()),
            Effect::Decide(ask) => {
                log.push(format!("decide({:?},{})", ask.body_seen, String::from_utf8_lossy(&ask.body)));
                let body = changed.map_or(ask.body, |text| Bytes::from_static(text.as_bytes()));
                let effects = machine.decided(Ok(routed(body, changed.is_some(), false)));
                perform(machine, effects, changed, log);
            }
        }
    }
}

fn describe(message: &ProcessingResponse) -> String {
    let common = |name: &str, response: Option<&CommonResponse>| {
        let response = response.cloned().unwrap_or_default();
        let mut text = name.to_owned();
        for option in response.header_mutation.unwrap_or_default().set_headers {
            let header = option.header.unwrap_or_default();
            if header.key == "content-length" {
                text += &format!(" length={}", String::from_utf8_lossy(&header.raw_value));
            } else if header.key == "x-gateway-destination-endpoint" {
                text.push_str(" to");
            }
        }
        match response.body_mutation.and_then(|mutation| mutation.mutation) {
            Some(Mutation::Body(bytes)) => text += &format!(" ={}", String::from_utf8_lossy(&bytes)),
            Some(Mutation::ClearBody(_)) => text.push_str(" ="),
            Some(Mutation::StreamedResponse(piece)) => {
                let end = if piece.end_of_stream { "." } else { "" };
                text += &format!(" >{}{end}", String::from_utf8_lossy(&piece.body));
            }
            None => {}
        }
        text
    };
    match message.response.as_ref().expect("an answer says what it answers") {
        Response::RequestHeaders(answer) => common("request-headers", answer.response.as_ref()),
        Response::RequestBody(answer) => common("request-body", answer.response.as_ref()),
        Response::RequestTrailers(_) => "request-trailers".into(),
        Response::ResponseHeaders(answer) => common("response-headers", answer.response.as_ref()),
        Response::ResponseBody(answer) => common("response-body", answer.response.as_ref()),
        Response::ResponseTrailers(_) => "response-trailers".into(),
        Response::ImmediateResponse(answer) => format!("status={}", answer.status.unwrap_or_default().code),
    }
}

fn check(messages: Vec<ProcessingRequest>, changed: Option<&'static str>, expected: &[&str]) {
    assert_eq!(play(&mut machine(), messages, changed), expected);
}

#[test]
fn full_duplex_answers_headers_and_body_once_the_body_is_complete() {
    check(
        vec![headers(false), body("ab", false), body("cd", true)],
        None,
        &["decide(Whole,abcd)", "request-headers to length=4", "request-body >abcd."],
    );
}

#[test]
fn trailers_end_a_full_duplex_body() {
    check(
        vec![headers(false), body("ab", false), trailers()],
        None,
        &["decide(Whole,ab)", "request-headers to length=2", "request-body >ab", "request-trailers"],
    );
}

#[test]
fn a_request_without_a_body_is_decided_at_its_headers() {
    check(vec![headers(true)], None, &["decide(None,)", "request-headers to"]);
}

#[test]
fn buffered_modes_go_on_first_and_answer_in_the_body_message() {
    check(
        vec![in_mode(2, false), body("ab", true)],
        None,
        &["request-headers", "decide(Whole,ab)", "request-body to"],
    );
    check(
        vec![in_mode(2, false), body("ab", true)],
        Some("xyz"),
        &["request-headers", "decide(Whole,ab)", "request-body to length=3 =xyz"],
    );
    check(
        vec![in_mode(3, false), body("ab", false)],
        None,
        &["request-headers", "decide(Part,ab)", "request-body to"],
    );
}

#[test]
fn a_buffered_request_that_ends_by_trailers_without_a_body_is_refused() {
    check(vec![in_mode(2, false), trailers()], None, &["request-headers", "status=400", "finish"]);
}

#[test]
fn a_proxy_that_shows_no_body_is_answered_at_the_headers() {
    check(vec![in_mode(0, false)], None, &["decide(Unseen,)", "request-headers to"]);
}

#[test]
fn streamed_mode_decides_at_the_headers_and_lets_the_pieces_pass() {
    check(
        vec![in_mode(1, false), body("ab", false), body("cd", true), trailers()],
        None,
        &["decide(Unseen,)", "request-headers to", "request-body", "request-body", "request-trailers"],
    );
}

#[test]
fn streamed_mode_with_an_early_body_answers_every_piece() {
    let messages = || vec![in_mode(1, true), body("ab", false), body("cd", true)];
    check(messages(), None, &["decide(Whole,abcd)", "request-headers to", "request-body", "request-body"]);
    check(
        messages(),
        Some("xyz"),
        &["decide(Whole,abcd)", "request-headers to length=3", "request-body =xy", "request-body =z"],
    );
}

#[test]
fn a_proxy_that_sends_no_headers_is_routed_only_while_it_buffers() {
    check(vec![body("ab", true)], None, &["status=500", "finish"]);
    let buffered =
        ProcessingRequest { protocol_config: in_mode(2, false).protocol_config, ..body("ab", true) };
    check(vec![buffered], None, &["decide(Whole,ab)", "request-body to"]);
}

#[test]
fn a_second_request_on_an_answered_stream_ends_it() {
    let mut machine = machine();
    let log = play(&mut machine, vec![headers(true), headers(true)], None);
    assert_eq!(log, ["decide(None,)", "request-headers to", "fail"]);
    assert!(machine.exchange.is_none());
}

#[test]
fn a_request_is_evicted_once_and_only_while_it_is_being_served() {
    let answer = |machine: &mut Machine<Echo>| {
        let mut log = Vec::new();
        let effects = machine.evict();
        perform(machine, effects, None, &mut log);
        log
    };
    let mut machine = machine();
    assert!(answer(&mut machine).is_empty(), "nothing is being served yet");
    play(&mut machine, vec![headers(true)], None);
    assert_eq!(answer(&mut machine), ["status=429", "finish"]);
    assert!(answer(&mut machine).is_empty());
    assert!(machine.exchange.is_none(), "its share of load is given back");
}

#[test]
fn response_chunks_pass_at_once_and_trailers_end_the_body() {
    let response =
        |end_of_stream| message(Request::ResponseHeaders(HttpHeaders { headers: None, end_of_stream }));
    let chunk = |text: &'static str, end_of_stream| {
        message(Request::ResponseBody(HttpBody { body: text.into(), end_of_stream }))
    };
    let end = message(Request::ResponseTrailers(HttpTrailers::default()));
    let mut machine = machine();
    play(&mut machine, vec![headers(true)], None);
    assert_eq!(
        play(&mut machine, vec![response(false), chunk("a", false), chunk("b", false), end], None),
        ["response-headers", "response-body >a", "response-body >b", "response-trailers"]
    );
}

#[test]
fn a_body_over_the_limit_is_refused_as_soon_as_it_is_known() {
    let mut machine = Machine::new(settings(3));
    assert_eq!(
        play(
            &mut machine,
            vec![headers(false), body("ab", false), body("cd", false), body("ef", true)],
            None
        ),
        ["status=413", "finish"]
    );
    let mut machine = Machine::new(settings(3));
    let mut first = headers(false);
    if let Some(Request::RequestHeaders(message)) = &mut first.request {
        let length = HeaderValue { key: "content-length".into(), value: "4".into(), raw_value: Bytes::new() };
        message.headers.as_mut().unwrap().headers.push(length);
    }
    assert_eq!(play(&mut machine, vec![first], None), ["status=413", "finish"]);
}

#[test]
fn a_large_body_goes_on_in_pieces_that_every_proxy_takes() {
    let mut machine = machine();
    let big = Bytes::from(vec![b'x'; 150_000]);
    machine.on_message(headers(false));
    let effects = machine
        .on_message(message(Request::RequestBody(HttpBody { body: big.clone(), end_of_stream: true })));
    assert!(matches!(effects.as_slice(), [Effect::Decide(_)]));
    let sent = machine.decided(Ok(routed(big, false, false)));
    let lengths: Vec<usize> = sent
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(message) => streamed_length(message),
            _ => None,
        })
        .collect();
    assert_eq!(lengths, [62_000, 62_000, 26_000]);
}

fn streamed_length(message: &ProcessingResponse) -> Option<usize> {
    let Some(Response::RequestBody(answer)) = &message.response else { return None };
    match answer.response.as_ref()?.body_mutation.as_ref()?.mutation.as_ref()? {
        Mutation::StreamedResponse(piece) => Some(piece.body.len()),
        _ => None,
    }
}

#[test]
fn buffered_bytes_are_given_back_when_a_stream_is_dropped_or_answered() {
    let shared = settings(0);
    let mut first = Machine::<Echo>::new(shared.clone());
    first.on_message(headers(false));
    first.on_message(body("abcd", false));
    assert_eq!(shared.budget.used(), 4);
    first.on_message(body("", true));
    first.decided(Ok(routed("abcd".into(), false, false)));
    assert_eq!(shared.budget.used(), 0);
    let mut second = Machine::<Echo>::new(shared.clone());
    second.on_message(headers(false));
    second.on_message(body("abcd", false));
    drop(second);
    assert_eq!(shared.budget.used(), 0);
}

fn any_message() -> impl Strategy<Value = ProcessingRequest> {
    let map = prop::option::of(prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..3).prop_map(
        |list| {
            let headers = list.into_iter().map(|(key, value)| HeaderValue {
                key: key.into(),
                value: Bytes::new(),
                raw_value: value.into(),
            });
            HeaderMap { headers: headers.collect() }
        },
    ));
    let head =
        (map, any::<bool>()).prop_map(|(headers, end_of_stream)| HttpHeaders { headers, end_of_stream });
    let piece = (any::<Vec<u8>>(), any::<bool>())
        .prop_map(|(body, end_of_stream)| HttpBody { body: body.into(), end_of_stream });
    let request = prop_oneof![
        head.clone().prop_map(|message| Some(Request::RequestHeaders(message))),
        head.prop_map(|message| Some(Request::ResponseHeaders(message))),
        piece.clone().prop_map(|message| Some(Request::RequestBody(message))),
        piece.prop_map(|message| Some(Request::ResponseBody(message))),
        Just(Some(Request::RequestTrailers(HttpTrailers::default()))),
        Just(Some(Request::ResponseTrailers(HttpTrailers::default()))),
        Just(None),
    ];
    let config = prop::option::weighted(0.2, (0..6i32, 0..6i32, any::<bool>()));
    (request, config, any::<bool>(), 0..20u8).prop_map(|(request, config, metadata, observe)| {
        ProcessingRequest {
            request,
            metadata_context: metadata.then(Metadata::default),
            observability_mode: observe == 0,
            protocol_config: config.map(|(request, response, early)| ProtocolConfiguration {
                request_body_mode: request,
                response_body_mode: response,
                send_body_without_waiting_for_header_response: early,
            }),
        }
    })
}

proptest! {
    #[test]
    fn any_order_of_messages_is_decided_at_most_once_and_leaves_nothing_buffered(
        messages in prop::collection::vec(any_message(), 0..12),
        refuse in any::<bool>(),
        hold in any::<bool>(),
    ) {
        let shared = settings(1000);
        let mut machine = Machine::<Echo>::new(shared.clone());
        let (mut decisions, mut refusals, mut ended) = (0, 0, false);
        for message in messages {
            let mut queue: Vec<Effect> = machine.on_message(message).into_vec();
            queue.reverse();
            while let Some(effect) = queue.pop() {
                prop_assert!(!ended, "nothing follows the end of a stream");
                match effect {
                    Effect::Decide(ask) => {
                        decisions += 1;
                        let result = if refuse {
                            Err(Refusal::new(Reason::NoEndpoints, "none"))
                        } else {
                            Ok(routed(ask.body, false, hold))
                        };
                        let effects = machine.decided(result);
                        queue.extend(effects.into_iter().rev());
                    }
                    Effect::Send(message) => {
                        refusals += usize::from(matches!(message.response, Some(Response::ImmediateResponse(_))));
                        prop_assert!(message.response.is_some());
                    }
                    Effect::Refused(_) | Effect::Hold(_) => {}
                    Effect::Finish | Effect::Fail(_) => ended = true,
                }
            }
        }
        prop_assert!(decisions <= 1);
        prop_assert!(refusals <= 1);
        drop(machine);
        prop_assert_eq!(shared.budget.used(), 0);
    }
}

#[path = "exchange_tests.rs"]
mod exchanges;
