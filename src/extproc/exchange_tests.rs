//! Whole exchanges as a proxy would lead them, in every pair of body modes.

use super::*;

/// An upgrade or a `CONNECT`, in these modes.
fn tunnel(request: i32, response: i32, names: &[(&'static str, &'static str)]) -> ProcessingRequest {
    let values = names.iter().map(|(key, value)| HeaderValue {
        key: (*key).into(),
        value: Bytes::new(),
        raw_value: (*value).into(),
    });
    let headers = Some(HeaderMap { headers: values.collect() });
    ProcessingRequest {
        protocol_config: Some(ProtocolConfiguration {
            request_body_mode: request,
            response_body_mode: response,
            send_body_without_waiting_for_header_response: false,
        }),
        ..message(Request::RequestHeaders(HttpHeaders { headers, end_of_stream: false }))
    }
}

const WEBSOCKET: &[(&str, &str)] = &[(":method", "GET"), ("upgrade", "websocket"), ("connection", "Upgrade")];
const CONNECT: &[(&str, &str)] = &[(":method", "CONNECT"), (":protocol", "websocket")];

fn response_headers() -> ProcessingRequest {
    message(Request::ResponseHeaders(HttpHeaders { headers: None, end_of_stream: false }))
}

fn response_body(text: &'static str, end_of_stream: bool) -> ProcessingRequest {
    message(Request::ResponseBody(HttpBody { body: text.into(), end_of_stream }))
}

#[test]
fn a_tunnel_is_decided_at_its_headers_in_every_mode_and_its_pieces_pass_at_once() {
    for asked in [WEBSOCKET, CONNECT] {
        for (request, response) in (0..5).flat_map(|request| (0..5).map(move |response| (request, response)))
        {
            let mut machine = machine();
            let log = play(&mut machine, vec![tunnel(request, response, asked)], None);
            assert_eq!(log, ["decide(None,)", "request-headers to"], "{request} {response}");
            let pass = |side: &str, mode: i32, text: &str| {
                if mode == 4 { format!("{side} >{text}") } else { side.to_owned() }
            };
            let log = play(&mut machine, vec![body("hi", false), response_headers()], None);
            assert_eq!(log, [pass("request-body", request, "hi"), "response-headers".to_owned()]);
            if response == 0 {
                continue;
            }
            let log = play(&mut machine, vec![response_body("ho", false), body("x", false)], None);
            let expected = [pass("response-body", response, "ho"), pass("request-body", request, "x")];
            assert_eq!(log, expected, "{request} {response}");
            assert!(machine.exchange.is_some(), "the share of load lasts as long as the tunnel");
            assert!(!machine.is_done());
        }
    }
}

#[test]
fn a_proxy_that_would_wait_for_the_end_of_a_tunnel_is_asked_for_pieces() {
    let asked_for = |request, response| {
        let mut machine = machine();
        machine.on_message(tunnel(request, response, WEBSOCKET));
        let effects = machine.decided(Ok(routed(Bytes::new(), false, false)));
        let Some(Effect::Send(answer)) = effects.into_iter().next() else {
            unreachable!("an answer is sent")
        };
        answer.mode_override.map(|mode| (mode.request_body_mode, mode.response_body_mode))
    };
    assert_eq!(asked_for(2, 2), Some((1, 1)));
    assert_eq!(asked_for(3, 4), Some((1, 4)));
    for other in [0, 1, 4] {
        assert_eq!(asked_for(other, other), None, "{other}");
    }
}

#[test]
fn what_comes_while_a_tunnel_is_being_decided_goes_on_afterwards_and_counts_meanwhile() {
    let shared = settings(0);
    let mut machine = Machine::<Echo>::new(shared.clone());
    machine.on_message(tunnel(4, 4, WEBSOCKET));
    assert!(machine.on_message(body("ab", false)).is_empty());
    assert!(machine.on_message(body("cd", false)).is_empty());
    assert!(shared.budget.used() >= 4);
    let effects = machine.decided(Ok(routed(Bytes::new(), false, false)));
    let mut log = Vec::new();
    perform(&mut machine, effects, None, &mut log);
    assert_eq!(log, ["request-headers to", "request-body >ab", "request-body >cd"]);
    assert_eq!(shared.budget.used(), 0);
}

#[test]
fn what_comes_while_a_request_is_being_decided_is_bounded() {
    let mut shared = settings(0);
    shared.budget = Arc::new(BodyBudget::new(10_000));
    let mut machine = Machine::<Echo>::new(shared.clone());
    machine.on_message(tunnel(4, 4, WEBSOCKET));
    let mut refused = false;
    for _ in 0..1000 {
        let effects = machine.on_message(body("", false));
        refused |= effects.iter().any(|effect| matches!(effect, Effect::Refused(Reason::BuffersFull)));
        assert!(shared.budget.used() <= 10_000);
    }
    assert!(refused, "empty messages take memory too");
    assert_eq!(shared.budget.used(), 0);
}

#[test]
fn small_pieces_that_are_answered_one_by_one_count_more_than_their_bytes() {
    let mut shared = settings(0);
    shared.budget = Arc::new(BodyBudget::new(100_000));
    let mut machine = Machine::<Echo>::new(shared);
    machine.on_message(in_mode(1, true));
    let refused = (0..1000).any(|_| {
        let effects = machine.on_message(body("", false));
        effects.iter().any(|effect| matches!(effect, Effect::Refused(Reason::BuffersFull)))
    });
    assert!(refused);
}

#[test]
fn a_body_counts_until_the_proxy_has_taken_it() {
    let shared = settings(0);
    let mut machine = Machine::<Echo>::new(shared.clone());
    machine.on_message(headers(false));
    machine.on_message(body("abcd", true));
    let effects = machine.decided(Ok(routed("abcd".into(), false, false)));
    assert_eq!(shared.budget.used(), 4);
    drop(effects);
    assert_eq!(shared.budget.used(), 0);
}

#[test]
fn nothing_is_held_back_where_an_answer_to_trailers_carries_no_body() {
    for mode in [1, 2, 3] {
        let mut machine = machine();
        machine.on_message(in_mode(0, false));
        machine.modes.response = if mode == 1 { BodyMode::Streamed } else { BodyMode::Buffered };
        machine.decided(Ok(routed(Bytes::new(), false, true)));
        machine.on_message(response_headers());
        let log = play(&mut machine, vec![response_body("{\"model\":\"al", false)], None);
        assert_eq!(log.len(), 1);
        assert!(log[0] == "response-body" || log[0].ends_with("={\"model\":\"al"), "{log:?}");
        let end = message(Request::ResponseTrailers(HttpTrailers::default()));
        assert_eq!(play(&mut machine, vec![end], None), ["response-trailers"]);
    }
}

/// One body as the proxy has it, and what it forwards after the answers.
fn forwarded(mode: i32, chunks: &[Vec<u8>], answers: &[ProcessingResponse]) -> Vec<u8> {
    let mutations: Vec<Option<Mutation>> = answers
        .iter()
        .filter_map(|answer| match answer.response.as_ref()? {
            Response::RequestBody(body) | Response::ResponseBody(body) => body.response.clone(),
            _ => None,
        })
        .map(|common| common.body_mutation.and_then(|mutation| mutation.mutation))
        .collect();
    if mode == 4 {
        let piece = |mutation| match mutation {
            Some(Mutation::StreamedResponse(piece)) => piece.body,
            other => unreachable!("{other:?} in full-duplex mode"),
        };
        return mutations.into_iter().map(piece).collect::<Vec<_>>().concat();
    }
    assert_eq!(mutations.len(), chunks.len(), "one answer a piece");
    let pieces = chunks.iter().zip(mutations).map(|(chunk, mutation)| match mutation {
        None => chunk.clone(),
        Some(Mutation::Body(bytes)) => bytes.to_vec(),
        Some(Mutation::ClearBody(_)) => Vec::new(),
        Some(other) => unreachable!("{other:?} outside of full-duplex mode"),
    });
    pieces.collect::<Vec<_>>().concat()
}

/// Feeds messages, decides as asked without changing anything, and gives all answers.
fn answers(
    machine: &mut Machine<Echo>,
    messages: Vec<ProcessingRequest>,
    hold: bool,
) -> Vec<ProcessingResponse> {
    let mut sent = Vec::new();
    let mut queue: std::collections::VecDeque<Effect> = std::collections::VecDeque::new();
    for message in messages {
        queue.extend(machine.on_message(message));
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Send(answer) => sent.push(answer),
                Effect::Decide(ask) => queue.extend(machine.decided(Ok(routed(ask.body, false, hold)))),
                Effect::Hold(_) => {}
                other => unreachable!("{other:?}"),
            }
        }
    }
    sent
}

fn pieces_of(mode: i32, chunks: &[Vec<u8>]) -> Vec<Vec<u8>> {
    // A proxy that buffers sends one message.
    if matches!(mode, 2 | 3) { vec![chunks.concat()] } else { chunks.to_vec() }
}

fn bodies(chunks: &[Vec<u8>], trailers: bool, side: fn(HttpBody) -> Request) -> Vec<ProcessingRequest> {
    let last = chunks.len().saturating_sub(1);
    let ends = |index| index == last && !trailers;
    let pieces = chunks.iter().enumerate();
    pieces
        .map(|(index, chunk)| {
            message(side(HttpBody { body: chunk.clone().into(), end_of_stream: ends(index) }))
        })
        .collect()
}

proptest! {
    #[test]
    fn in_every_pair_of_modes_the_bytes_that_came_go_on(
        modes in (1..5i32, 1..5i32),
        early in any::<bool>(),
        request in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..5),
        response in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..5),
        trailers in (any::<bool>(), any::<bool>()),
        hold in any::<bool>(),
    ) {
        let shared = settings(0);
        let mut machine = Machine::<Echo>::new(shared.clone());
        let protocol_config = Some(ProtocolConfiguration {
            request_body_mode: modes.0,
            response_body_mode: modes.1,
            send_body_without_waiting_for_header_response: early,
        });
        let request = pieces_of(modes.0, &request);
        let mut messages = vec![ProcessingRequest { protocol_config, ..headers(false) }];
        messages.extend(bodies(&request, trailers.0, Request::RequestBody));
        if trailers.0 {
            messages.push(message(Request::RequestTrailers(HttpTrailers::default())));
        }
        let sent = answers(&mut machine, messages, hold);
        prop_assert_eq!(forwarded(modes.0, &request, &sent), request.concat());
        prop_assert!(machine.is_forwarded());

        let response = pieces_of(modes.1, &response);
        let mut messages = vec![response_headers()];
        messages.extend(bodies(&response, trailers.1, Request::ResponseBody));
        if trailers.1 {
            messages.push(message(Request::ResponseTrailers(HttpTrailers::default())));
        }
        let sent = answers(&mut machine, messages, hold);
        prop_assert_eq!(forwarded(modes.1, &response, &sent), response.concat());
        prop_assert!(machine.is_done(), "the end of the response ends the exchange");
        drop(machine);
        prop_assert_eq!(shared.budget.used(), 0);
    }
}
