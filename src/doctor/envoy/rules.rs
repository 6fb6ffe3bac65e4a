//! The rules about Envoy.

use super::facts::{EnvoyFacts, RouteFacts};
use crate::doctor::waits::{Waits, shown};
use crate::doctor::{Family, Finding, Rule};

const FAMILY: Family = Family::Envoy;

/// Envoy does not answer. The command itself reports this rule.
pub const UNREACHABLE: Rule = Rule::error(
    "envoy-unreachable",
    FAMILY,
    "Envoy's admin port does not answer, or its configuration cannot be read.",
    "Doctor cannot see whether Envoy asks the picker in a way that works.",
);
const NO_PICKER: Rule = Rule::error(
    "envoy-asks-nobody",
    FAMILY,
    "No route of Envoy has the filter ext_proc.",
    "Requests go past the picker.",
);
const FAILS_OPEN: Rule = Rule::warning(
    "envoy-fails-open",
    FAMILY,
    "A route goes on without a picker, and its cluster goes where the picker's header says.",
    "Without a picker there is no such header, so requests fail all the same, and a client that sends the header chooses the server.",
);
const MESSAGE_TIMEOUT: Rule = Rule::error(
    "envoy-message-timeout",
    FAMILY,
    "Envoy waits for the picker's answer for a shorter time than requests may wait in the picker.",
    "Requests that wait for their turn, or for a server, fail with 504 or 500.",
);
const BODY_UNSEEN: Rule = Rule::error(
    "envoy-request-unseen",
    FAMILY,
    "The picker does not see headers or bodies of requests.",
    "The picker does not know the model, the priority and the prefix of a request, so it refuses the request or picks any server.",
);
const BODY_CUT: Rule = Rule::warning(
    "envoy-request-cut",
    FAMILY,
    "The picker sees only the beginning of long prompts.",
    "The picker decides by the part that fits into Envoy's buffer, and cannot rewrite the model.",
);
const ANSWER_HELD: Rule = Rule::error(
    "envoy-answer-held",
    FAMILY,
    "Envoy holds answers back until they are whole.",
    "Clients that stream get nothing until the end, and an answer longer than the buffer is cut off.",
);
const ANSWER_UNSEEN: Rule = Rule::warning(
    "envoy-answer-unseen",
    FAMILY,
    "The picker does not see answers.",
    "The picker does not know the usage, the time to the first token and the outcome of requests, and plugins that learn from answers learn nothing.",
);
const BUFFER: Rule = Rule::warning(
    "envoy-buffer-limit",
    FAMILY,
    "Envoy buffers whole request bodies, and its buffer is small.",
    "Prompts that are longer than the buffer are refused with 413.",
);
const ROUTE_TIMEOUT: Rule = Rule::error(
    "envoy-route-timeout",
    FAMILY,
    "A route gives a whole answer less than 5 minutes.",
    "An answer that takes longer is cut off in the middle.",
);
const IDLE_TIMEOUT: Rule = Rule::warning(
    "envoy-idle-timeout",
    FAMILY,
    "Envoy ends a stream that is silent for less time than a request may wait, or than 5 minutes.",
    "A request that waits in the picker's queue, or whose prompt takes long to read, fails with 504 or 408.",
);
const DURATION: Rule = Rule::warning(
    "envoy-stream-duration",
    FAMILY,
    "A route or a listener bounds the life of a request.",
    "An answer that takes longer is cut off in the middle, even while it streams.",
);
const STREAM_TIMEOUT: Rule = Rule::error(
    "envoy-ext-proc-timeout",
    FAMILY,
    "The stream from Envoy to the picker has a timeout.",
    "The stream lives as long as the request, so each request that takes longer than the timeout fails.",
);
const RETRIES: Rule = Rule::warning(
    "envoy-retries",
    FAMILY,
    "A route sends requests again that a server has already begun to process.",
    "Envoy does not ask the picker again, so the same server, full or broken, does the same work twice.",
);
const TRY_TIMEOUT: Rule = Rule::error(
    "envoy-per-try-timeout",
    FAMILY,
    "A route limits the time of one attempt.",
    "A prompt that takes longer to process is cancelled and begun again, until no attempt is left.",
);
const OLD: Rule = Rule::error(
    "envoy-old",
    FAMILY,
    "Envoy is older than 1.40, and a filter in front of ext_proc stops at headers.",
    "A body that comes while that filter waits can be lost or sent twice, and the request hangs.",
);

/// The rules of this file.
pub const RULES: &[&Rule] = &[
    &UNREACHABLE,
    &NO_PICKER,
    &FAILS_OPEN,
    &MESSAGE_TIMEOUT,
    &BODY_UNSEEN,
    &BODY_CUT,
    &ANSWER_HELD,
    &ANSWER_UNSEEN,
    &BUFFER,
    &ROUTE_TIMEOUT,
    &IDLE_TIMEOUT,
    &DURATION,
    &STREAM_TIMEOUT,
    &RETRIES,
    &TRY_TIMEOUT,
    &OLD,
];

/// The time that a whole answer should be allowed, in seconds.
const LONG: f64 = 300.0;
/// The longest time of a decision if requests do not wait, in seconds.
const DECISION: f64 = 1.0;
/// The size of a buffer, in bytes, that is large enough for most prompts.
const ROOM: u64 = 8 << 20;
/// The filters that stop at the headers of a request until another server has answered.
const STOPPING: [&str; 12] = [
    "ExtAuthz",
    "JwtAuthentication",
    "OAuth2",
    "RateLimit",
    "ExternalProcessor",
    "Lua",
    "Wasm",
    "HTTPFault",
    "Config",
    "GcpAuthnFilterConfig",
    "AwsRequestSigning",
    "FilterConfig",
];
/// The retry conditions that repeat work which a server may have begun.
const REPEATING: [&str; 7] = [
    "5xx",
    "gateway-error",
    "reset",
    "retriable-4xx",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
];

/// Returns what is wrong with an Envoy. `waits` says how long requests may wait in the picker; `None` if they do not
/// wait.
pub fn findings(subject: &str, facts: &EnvoyFacts, waits: Option<Waits>) -> Vec<Finding> {
    if facts.routes.is_empty() {
        return vec![NO_PICKER.found(
            subject,
            "no route with the filter envoy.filters.http.ext_proc was found",
            "`- name: envoy.filters.http.ext_proc` before the router in `http_filters`; deploy/envoy/envoy.yaml has all of it",
        )];
    }
    let mut found: Vec<Finding> = Vec::new();
    for route in &facts.routes {
        let wait = waits.map_or(DECISION, |waits| waits.longest().max(DECISION));
        let all = [
            asking(route, wait),
            bodies(route),
            times(route, wait),
            repeats(route),
            old(facts.version, route),
        ];
        for finding in all.into_iter().flatten() {
            if !found.contains(&finding) {
                found.push(finding);
            }
        }
    }
    found
}

fn asking(route: &RouteFacts, wait: f64) -> Vec<Finding> {
    let mut found = Vec::new();
    if route.fails_open && route.follows_header {
        found.push(FAILS_OPEN.found(
            &route.name,
            "failure_mode_allow is true before a cluster of type ORIGINAL_DST",
            "`failure_mode_allow: false`, or a cluster that lists servers, as in deploy/envoy/envoy-fail-open.yaml",
        ));
    }
    if route.message_timeout < wait {
        found.push(MESSAGE_TIMEOUT.found(
            &route.name,
            format!(
                "message_timeout is {}, and a decision may take {}",
                shown(route.message_timeout),
                shown(wait)
            ),
            format!("`message_timeout: {}s`", (wait * 1.5).ceil()),
        ));
    }
    if let Some(timeout) = route.stream_timeout {
        found.push(STREAM_TIMEOUT.found(
            &route.name,
            format!("grpc_service.timeout is {}", shown(timeout)),
            "`grpc_service` without `timeout`",
        ));
    }
    found
}

fn bodies(route: &RouteFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    let (request, response) = (route.request.body.as_str(), route.response.body.as_str());
    if !route.request.headers || request == "NONE" {
        found.push(BODY_UNSEEN.found(
            &route.name,
            if route.request.headers { "request_body_mode is NONE" } else { "request_header_mode is SKIP" },
            "`request_header_mode: SEND`, `request_body_mode: FULL_DUPLEX_STREAMED` and `request_trailer_mode: SEND`",
        ));
    }
    if request == "BUFFERED_PARTIAL" {
        found.push(BODY_CUT.found(
            &route.name,
            format!("request_body_mode is BUFFERED_PARTIAL, with a buffer of {} bytes", route.buffer),
            "`request_body_mode: FULL_DUPLEX_STREAMED` and `request_trailer_mode: SEND`",
        ));
    }
    if request == "BUFFERED" && route.buffer < ROOM {
        found.push(BUFFER.found(
            &route.name,
            format!(
                "request_body_mode is BUFFERED, and per_connection_buffer_limit_bytes is {}",
                route.buffer
            ),
            "`request_body_mode: FULL_DUPLEX_STREAMED`, or `per_connection_buffer_limit_bytes: 33554432`",
        ));
    }
    if response.starts_with("BUFFERED") {
        found.push(ANSWER_HELD.found(
            &route.name,
            format!("response_body_mode is {response}"),
            "`response_body_mode: FULL_DUPLEX_STREAMED` and `response_trailer_mode: SEND`",
        ));
    }
    if !route.response.headers || response == "NONE" {
        found.push(ANSWER_UNSEEN.found(
            &route.name,
            if route.response.headers { "response_body_mode is NONE" } else { "response_header_mode is SKIP" },
            "`response_header_mode: SEND`, `response_body_mode: FULL_DUPLEX_STREAMED` and `response_trailer_mode: SEND`",
        ));
    }
    found
}

fn times(route: &RouteFacts, wait: f64) -> Vec<Finding> {
    let mut found = Vec::new();
    if route.timeout > 0.0 && route.timeout < LONG.max(wait) {
        let given = if route.timeout_given { "" } else { ", as it is without one" };
        found.push(ROUTE_TIMEOUT.found(
            &route.name,
            format!("the route's timeout is {}{given}", shown(route.timeout)),
            "`timeout: 86400s` in the route",
        ));
    }
    if route.idle_timeout > 0.0 && route.idle_timeout < LONG.max(wait) {
        found.push(IDLE_TIMEOUT.found(
            &route.name,
            format!(
                "a stream may be silent for {}, and a request may wait for {}",
                shown(route.idle_timeout),
                shown(wait)
            ),
            "`idle_timeout: 86400s` in the route",
        ));
    }
    if let Some(duration) = route.duration {
        found.push(DURATION.found(
            &route.name,
            format!("max_stream_duration is {}", shown(duration)),
            "no `max_stream_duration`; the client decides when to give up",
        ));
    }
    found
}

fn repeats(route: &RouteFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    let repeating: Vec<&str> =
        route.retry_on.split(',').map(str::trim).filter(|condition| REPEATING.contains(condition)).collect();
    if !repeating.is_empty() {
        found.push(RETRIES.found(
            &route.name,
            format!("retry_on has {}", repeating.join(", ")),
            "`retry_on: connect-failure`, or no `retry_policy` in the route",
        ));
    }
    if let Some(timeout) = route.per_try_timeout {
        found.push(TRY_TIMEOUT.found(
            &route.name,
            format!("per_try_timeout is {}", shown(timeout)),
            "`retry_policy` without `per_try_timeout`",
        ));
    }
    found
}

fn old(version: Option<(u32, u32)>, route: &RouteFacts) -> Vec<Finding> {
    let Some((major, minor)) = version.filter(|version| *version < (1, 40)) else { return Vec::new() };
    let stopping: Vec<&str> =
        route.in_front.iter().map(String::as_str).filter(|kind| STOPPING.contains(kind)).collect();
    if stopping.is_empty() {
        return Vec::new();
    }
    vec![OLD.found(
        &route.name,
        format!("Envoy is {major}.{minor}, and {} stands before ext_proc", stopping.join(", ")),
        "`envoyproxy/envoy:v1.40.0` or newer, or ext_proc as the first filter of `http_filters`",
    )]
}
