//! W3C trace context and baggage in headers.

use std::str::FromStr;

use bytes::Bytes;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use smallvec::SmallVec;

use crate::request::Headers;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// Headers that [`super::Span::inject`] sets. A client's own must not be passed on beside them.
pub const PROPAGATED: [&str; 3] = [TRACEPARENT, TRACESTATE, BAGGAGE];

/// Names and values of headers to set.
pub type Injected = SmallVec<[(Bytes, Bytes); 3]>;

/// The caller's span, if the headers name a valid one.
pub(super) fn extract(headers: &Headers) -> Option<SpanContext> {
    let (trace, span, flags) = parse_traceparent(headers.text(TRACEPARENT)?.trim())?;
    let state = joined(headers, TRACESTATE)
        .and_then(|state| TraceState::from_str(std::str::from_utf8(&state).ok()?).ok())
        .unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state))
}

/// Trace context and baggage in the metadata of a call, as headers.
pub(super) fn carried(metadata: &http::HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for name in PROPAGATED {
        for value in metadata.get_all(name) {
            headers.push(Bytes::from_static(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        }
    }
    headers
}

/// The caller's baggage, as it came.
pub(super) fn baggage(headers: &Headers) -> Option<Bytes> {
    joined(headers, BAGGAGE).filter(|baggage| !baggage.is_empty())
}

/// Headers that make `context` the parent of what the model server does.
pub(super) fn inject(context: &SpanContext, baggage: Option<&Bytes>) -> Injected {
    let mut headers = Injected::new();
    if context.is_valid() {
        let parent = format!(
            "00-{:032x}-{:016x}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags() & TraceFlags::SAMPLED
        );
        headers.push((Bytes::from_static(TRACEPARENT.as_bytes()), parent.into()));
        let state = context.trace_state();
        if state.into_iter().next().is_some() {
            headers.push((Bytes::from_static(TRACESTATE.as_bytes()), state.header().into()));
        }
    }
    if let Some(baggage) = baggage {
        headers.push((Bytes::from_static(BAGGAGE.as_bytes()), baggage.clone()));
    }
    headers
}

/// Values of all headers called `name`, with commas between. No copy if there is one.
fn joined(headers: &Headers, name: &str) -> Option<Bytes> {
    let mut values = headers.iter().filter(|(key, _)| *key == name).map(|(_, value)| value);
    let first = values.next()?;
    let rest: SmallVec<[&Bytes; 2]> = values.collect();
    if rest.is_empty() {
        return Some(first.clone());
    }
    let mut all = first.to_vec();
    for value in rest {
        all.push(b',');
        all.extend_from_slice(value);
    }
    Some(all.into())
}

/// Trace id, span id and flags of a `traceparent`. Later versions may have more behind the flags; of the flags only
/// "sampled" is known here.
fn parse_traceparent(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let mut fields = text.splitn(5, '-');
    let [version, trace, span, flags] = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
    let is_hex = |field: &str, length| {
        field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let shaped = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !shaped || version == "ff" || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let trace = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
    let span = SpanId::from_hex(span).ok().filter(|id| *id != SpanId::INVALID)?;
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    Some((trace, span, flags))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn injected(headers: &Headers) -> Vec<(String, String)> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let context = extract(headers).unwrap_or(SpanContext::NONE);
        inject(&context, baggage(headers).as_ref()).iter().map(|(k, v)| (text(k), text(v))).collect()
    }

    #[test]
    fn what_came_in_goes_out() {
        let headers = Headers::from([
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
            ("baggage", "user=x;p=1"),
        ]);
        let expected = [("traceparent", PARENT), ("tracestate", "a=1,b=2"), ("baggage", "user=x;p=1")];
        assert_eq!(injected(&headers), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn baggage_travels_without_a_trace() {
        let headers = Headers::from([("baggage", "k=v")]);
        assert_eq!(injected(&headers), [("baggage".to_owned(), "k=v".to_owned())]);
    }

    #[test]
    fn a_malformed_parent_is_no_parent() {
        let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let cases = [
            "",
            "00",
            &PARENT[..54],
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            &format!("{PARENT}-more"),
            &zero_trace,
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-é7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ];
        for text in cases {
            assert_eq!(parse_traceparent(text), None, "{text}");
        }
    }

    #[test]
    fn a_later_version_may_carry_more() {
        let later = format!("{}-more", PARENT.replacen("00", "01", 1));
        assert!(parse_traceparent(&later).is_some());
    }

    #[test]
    fn a_malformed_state_is_dropped_and_the_parent_kept() {
        let headers = Headers::from([("traceparent", PARENT), ("tracestate", "no state")]);
        assert_eq!(injected(&headers), [("traceparent".to_owned(), PARENT.to_owned())]);
    }

    proptest! {
        #[test]
        fn no_header_makes_extraction_fail_otherwise_than_quietly(parent in ".{0,70}", state in ".{0,40}") {
            let headers = Headers::from([("traceparent", parent.as_str()), ("tracestate", state.as_str())]);
            if let Some(context) = extract(&headers) {
                prop_assert!(context.is_valid());
            }
        }
    }
}
