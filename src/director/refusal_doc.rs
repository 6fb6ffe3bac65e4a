//! Writes `docs/refusals.md`, which explains each refusal to the client and to the operator.

use std::fmt::Write;

use super::Reason;
use crate::flow::{DropReason, Outcome, Rejection};
use crate::generated::{keep, wrapped};

const HEAD: &str = "# Refusals

`make docs` makes this page from the code. Pointsman answers a request itself when it cannot send the request on, or
must not. Each such answer has a reason, and each reason has a section below. To find the reason of a 429, a 503 or
another error, look at one of these places:

* `error.code` in the answer's JSON (Anthropic's form has no such field, and gRPC clients get `grpc-message`);
* `pointsman explain --refused`, which explains the last refused request with its load and its bounds;
* `pointsman_extproc_refusals_total{reason=...}`, which counts all of them;
* the log line of the request, from `-v 4` on;
* Envoy's access log, as `%RESPONSE_CODE_DETAILS%`.

An error without any of these comes from Envoy or from the model server. Answers to overload and to an empty pool also
carry the header `x-llm-d-request-dropped-reason`, and `retry-after` in seconds. The text of the answer,
`error.message`, names the value at fault and the bound that was reached.

## One event, its names

";

/// The meaning of a refusal, and the settings to look at or to change.
struct Help {
    meaning: &'static str,
    look: &'static str,
}

const fn help(meaning: &'static str, look: &'static str) -> Help {
    Help { meaning, look }
}

/// The help for a reason.
#[expect(clippy::too_many_lines, reason = "one entry for each reason")]
fn of(reason: Reason) -> Help {
    match reason {
        Reason::NoParser => help(
            "No configured parser takes the path of the request.",
            "Leave `requestHandler.parsers` out, so that all parsers are active, or add the parser of that path.",
        ),
        Reason::InvalidBody => help(
            "The body is not JSON, or not the JSON that the path needs.",
            "The message says where the body is at fault. Send the same body to a model server directly to compare.",
        ),
        Reason::ModelMissing => help(
            "The InferenceModelRewrite that matches the request has no target model.",
            "Give the rule a `targets` entry with a `modelRewrite`. `/debug/pool` lists the rules.",
        ),
        Reason::RewriteUnseen => help(
            "The model has to be replaced, but Envoy shows no body to this filter.",
            "Set `request_body_mode` of the filter to `FULL_DUPLEX_STREAMED` or `BUFFERED`.",
        ),
        Reason::RewriteCut => help(
            "The model may have to be replaced, but it lies behind the part of the body that Envoy shows.",
            "Use the body mode `FULL_DUPLEX_STREAMED`, or put `model` in front of the prompt.",
        ),
        Reason::MissingBody => help(
            "The body ended without a byte although the headers promised one.",
            "Look for a filter in front of ext_proc that removes the body.",
        ),
        Reason::BodyTooLarge => help(
            "The body is larger than one request may be.",
            "`--max-request-body` is the bound. Envoy's own buffer limit may be smaller.",
        ),
        Reason::RewrittenTooLarge => help(
            "With its target model the body would be larger than one request may be.",
            "`--max-request-body` is the bound.",
        ),
        Reason::DecodedTooLarge => help(
            "The compressed body decodes to more than one request may be, or to far more than its size.",
            "`--max-request-body` is the bound of the decoded size. [limits.md](limits.md) has the ratio.",
        ),
        Reason::DecodersBusy => help(
            "Too many compressed bodies are being decoded at the moment.",
            "Clients should repeat the request. If this lasts, let clients send uncompressed bodies, or add a replica.",
        ),
        Reason::BuffersFull => help(
            "All bodies in memory together have reached their bound.",
            "`--max-buffered-bodies` is the bound; compare `pointsman_buffered_body_bytes` with \
             `pointsman_buffered_body_bytes_limit`. Raise it together with the memory limit, or shorten the queues.",
        ),
        Reason::TooManyStreams => help(
            "More requests are open than allowed.",
            "`--max-concurrent-streams` is the bound; `pointsman_streams` shows the number.",
        ),
        Reason::StreamIdle => help(
            "Envoy sent nothing for too long in the middle of a request.",
            "`--stream-idle-timeout` is the bound. Look for clients that stop in the middle of their body.",
        ),
        Reason::InvalidSubset => help(
            "The subset hint of the gateway cannot be understood.",
            "Look at the metadata `envoy.lb.subset_hint`, key `x-gateway-destination-endpoint-subset`: it is a list of \
             `ADDRESS:PORT`. `--disable-endpoint-subset-filter` ignores it.",
        ),
        Reason::NoEndpoints => help(
            "The pool, or the part of it that the gateway names, has no endpoint. With flow control the request waited first.",
            "`/debug/pool` lists the endpoints. Check the selector of the pool and whether its pods are Ready. For pools that scale to \
             zero, enable flow control and raise `flowControl.noEndpointRequestTTL`.",
        ),
        Reason::Saturated => help(
            "The pool is full. With flow control a queue is full too; without it the request's priority is negative.",
            "The message names the bound: `maxRequests` or `maxBytes` of the priority band, or of `flowControl`. \
             `llm_d_epp_flow_control_pool_saturation` shows how full the pool is. Add model servers, or raise the bound.",
        ),
        Reason::NotAdmitted => help(
            "A plugin that admits requests refused this one, because of the load of the endpoints; the message names it.",
            "Only requests of negative priority are refused in this way. Add model servers, or change the plugin's parameters.",
        ),
        Reason::TtlExpired => help(
            "The request waited in its queue for as long as it may.",
            "`flowControl.defaultRequestTTL` and that of the priority band are the bounds. Add model servers, or raise them.",
        ),
        Reason::ClientGone => help(
            "The client left while its request waited. Only metrics show this answer, because the client is gone.",
            "Compare the client's timeout with `llm_d_epp_flow_control_request_queue_duration_seconds`.",
        ),
        Reason::ShuttingDown => help(
            "This replica ends and its drain time is over.",
            "Clients should repeat the request, which another replica then answers. `--drain-timeout` is the time for requests that wait.",
        ),
        Reason::Evicted => help(
            "A request of higher priority took the place of this one while it was being served.",
            "Requests of negative priority may be stopped where `enableEviction` is set. Give the objective a priority of 0 or more.",
        ),
        Reason::NothingLeft => help(
            "The filters of the scheduling profile left no endpoint.",
            "Compare the filters' labels with those of the endpoints in `/debug/pool`. `-v 5` logs what each filter left.",
        ),
        Reason::NoneOfRole => help(
            "The profile's role filter left no endpoint: no ready server of the pool has that role.",
            "Start servers with the pod label `llm-d.ai/role` that `decode-filter`, `prefill-filter` or `encode-filter` keeps. `/debug/pool` lists the labels.",
        ),
        Reason::SchedulingFailed => help(
            "The profile handler found no endpoint for another reason; the message has it.",
            "`pointsman check` on the configuration shows profiles that can never run.",
        ),
        Reason::NoResult => help(
            "The scheduler answered without an endpoint. This is a fault of a plugin.",
            "Report it with the configuration.",
        ),
        Reason::NoHeaders => help(
            "Envoy sends no request headers to this filter, so it cannot be told a destination.",
            "Set `request_header_mode: SEND` in the filter's processing mode.",
        ),
        Reason::NotCached => help(
            "The client sent `Prefer: if-available`, and no endpoint has the prompt in its cache.",
            "This is what the client asked for. It should send the request without that header.",
        ),
        Reason::PluginFailed => help(
            "A plugin that acts before forwarding failed; the message names it.",
            "Look at the log line of the request and at the plugin's parameters.",
        ),
        Reason::Panic => help(
            "This program has a bug. Only this request is lost.",
            "Report the log line, which has the place in the code. `pointsman_stream_panics_total` counts them.",
        ),
    }
}

/// The setting that an operator changes to refuse fewer requests for this reason; empty if there is none.
fn setting(reason: Reason) -> &'static str {
    match reason {
        Reason::NoParser => "`requestHandler.parsers`",
        Reason::ModelMissing => "`targets` of the InferenceModelRewrite",
        Reason::RewriteUnseen | Reason::RewriteCut => "Envoy's `request_body_mode`",
        Reason::BodyTooLarge | Reason::RewrittenTooLarge | Reason::DecodedTooLarge => "`--max-request-body`",
        Reason::BuffersFull => "`--max-buffered-bodies`",
        Reason::TooManyStreams => "`--max-concurrent-streams`",
        Reason::StreamIdle => "`--stream-idle-timeout`",
        Reason::InvalidSubset => "`--disable-endpoint-subset-filter`",
        Reason::NoEndpoints => "the selector of the pool; `flowControl.noEndpointRequestTTL`",
        Reason::Saturated => "the number of model servers; `maxRequests` and `maxBytes`",
        Reason::NotAdmitted => "the parameters of the plugin; the priority of the objective",
        Reason::TtlExpired => "the number of model servers; `defaultRequestTTL`",
        Reason::ShuttingDown => "`--drain-timeout`",
        Reason::Evicted => "`enableEviction`; the priority of the objective",
        Reason::NothingLeft | Reason::SchedulingFailed => "the filters of the profile",
        Reason::NoneOfRole => "the pod label `llm-d.ai/role`",
        Reason::NoHeaders => "Envoy's `request_header_mode`",
        Reason::NotCached => "the client's header `Prefer`",
        Reason::PluginFailed => "the parameters of the plugin",
        Reason::InvalidBody
        | Reason::MissingBody
        | Reason::DecodersBusy
        | Reason::ClientGone
        | Reason::NoResult
        | Reason::Panic => "",
    }
}

/// The outcomes of flow control that lead to this reason.
fn outcomes(reason: Reason) -> Vec<&'static str> {
    let dropped = match reason {
        Reason::Saturated => DropReason::Saturated,
        Reason::TtlExpired => DropReason::TtlExpired,
        Reason::NoEndpoints => DropReason::NoEndpoints,
        Reason::ClientGone => DropReason::ContextCancelled,
        Reason::ShuttingDown => DropReason::ShuttingDown,
        _ => return Vec::new(),
    };
    let ends = Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Dispatched);
    let so = ends.filter(|outcome| {
        [false, true].into_iter().any(|empty| Rejection::new(*outcome, empty).drop_reason() == dropped)
    });
    so.map(Outcome::label).collect()
}

fn coded(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str(
        "| reason | status | `error_code` | header | outcome of flow control | cause | setting to change |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let (label, code) = (reason.label(), reason.code());
        let header = reason.dropped().map_or_else(String::new, |dropped| format!("`{dropped}`"));
        writeln!(
            page,
            "| [`{label}`](#{label}) | {} | `{}` | {header} | {} | {} | {} |",
            code.status(),
            code.name(),
            coded(&outcomes(reason)),
            of(reason).meaning,
            setting(reason)
        )
        .unwrap();
    }
    page.push_str("\n## Outcomes of flow control\n\n");
    let text = "`llm_d_epp_flow_control_requests_total` has these values of `outcome`. Names that begin with `Rejected` mean that the request \
        never entered a queue, names that begin with `Evicted` that its wait ended; the reference chose them. A running request that was \
        stopped for a more important one is another event, `evicted`.";
    page.push_str(&wrapped(text, ""));
    page.push_str("\n\n");
    for outcome in Outcome::ALL {
        let (text, label) = (outcome_text(outcome), outcome.label());
        page.push_str(&wrapped(&format!("* `{label}`: {text}"), "  "));
        page.push('\n');
    }
    for reason in Reason::ALL {
        let Help { meaning, look } = of(reason);
        write!(page, "\n## {}\n\n", reason.label()).unwrap();
        let code = reason.code();
        let seen = format!("The client gets a {} with the code `{}`. {meaning}", code.status(), code.name());
        page.push_str(&wrapped(&seen, ""));
        page.push_str("\n\n");
        page.push_str(&wrapped(look, ""));
        page.push('\n');
    }
    page
}

fn outcome_text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Dispatched => "the request was released and scheduled.",
        Outcome::RejectedCapacity => "a queue was full, and the pool had endpoints.",
        Outcome::RejectedNoEndpoints => "a queue was full, and the pool had no endpoint.",
        Outcome::RejectedOther => "the queues were closed, because this replica ends.",
        Outcome::EvictedTtl => "the wait reached its bound while the pool had endpoints.",
        Outcome::EvictedNoEndpoints => "the wait reached the bound for a pool without endpoints.",
        Outcome::EvictedContextCancelled => "the client left during the wait.",
        Outcome::EvictedOther => "the queues closed during the wait, because this replica ends.",
    }
}

#[test]
fn the_generated_page_of_refusals_has_every_reason() {
    for reason in Reason::ALL {
        let Help { meaning, look } = of(reason);
        assert!(meaning.ends_with('.') && look.ends_with('.'), "{} has no help", reason.label());
    }
    keep("docs/refusals.md", &page());
}
