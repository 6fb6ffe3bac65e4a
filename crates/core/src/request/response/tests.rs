//! Usage from JSON bodies and event streams, however they are cut into chunks.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const LIMIT: usize = 4096;

type Read = (Option<Usage>, bool, bool);

fn read_chunks<'c>(
    api: Api,
    event_stream: bool,
    limit: usize,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> Read {
    let mut reader = ResponseReader::new(api, event_stream, limit);
    for chunk in chunks {
        reader.feed(chunk);
    }
    reader.finish();
    (reader.usage(), reader.failed(), reader.clipped())
}

/// Reads `body` whole and byte by byte, which must agree.
fn read(api: Api, event_stream: bool, body: &str) -> Option<Usage> {
    let whole = read_chunks(api, event_stream, LIMIT, [body.as_bytes()]);
    let single = read_chunks(api, event_stream, LIMIT, body.as_bytes().chunks(1));
    assert_eq!(whole, single, "{body}");
    assert!(!whole.2, "{body}");
    whole.0
}

fn usage(prompt: u64, completion: u64, total: u64, cached: Option<u64>) -> Usage {
    Usage { prompt_tokens: prompt, completion_tokens: completion, total_tokens: total, cached_tokens: cached }
}

#[test]
fn usage_is_read_from_the_top_of_a_json_body() {
    for (body, expected) in [
        (
            r#"{"id":"x","choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":9} }"}}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":2}}}"#,
            Some(usage(3, 4, 7, Some(2))),
        ),
        (r#" { "usage" : { "prompt_tokens" : 3 } , "x" : [ ] } "#, Some(usage(3, 0, 3, None))),
        (r#"{"us\u0061ge":{"input_tokens":3,"output_tokens":1}}"#, Some(usage(3, 1, 4, None))),
        (r#"{"usage":{"prompt_tokens":1},"usage":{"prompt_tokens":2}}"#, Some(usage(2, 0, 2, None))),
        (r#"{"usage":{}}"#, Some(usage(0, 0, 0, None))),
        (r#"{"usage":null}"#, None),
        (r#"{"usage":[{"prompt_tokens":3}]}"#, None),
        (r#"{"usage":"{}"}"#, None),
        (r#"{"x":{"usage":{"prompt_tokens":3}}}"#, None),
        (r#"{"x":"usage","y":{"prompt_tokens":3}}"#, None),
        (r#"{"x":["usage",{"prompt_tokens":3}]}"#, None),
        (r#"[{"usage":{"prompt_tokens":3}}]"#, None),
        (r#"{"usage":{"prompt_tokens":3"#, None),
        ("upstream connect error", None),
        ("", None),
    ] {
        assert_eq!(read(Api::ChatCompletions, false, body), expected, "{body}");
    }
}

#[test]
fn an_openai_stream_reports_usage_in_its_last_event() {
    let body = "data: {\"choices\":[{\"delta\":{\"content\":\"usage\"}}],\"usage\":null}\r\n\r\n: ping\r\n\r\n\
                data:{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}\r\n\r\n\
                data: [DONE]\r\n\r\n";
    for (from, to) in [("\r\n", "\r\n"), ("\r\n", "\n"), ("\r\n", "\r")] {
        let body = body.replace(from, to);
        assert_eq!(read(Api::ChatCompletions, true, &body), Some(usage(3, 4, 7, None)), "{body:?}");
        assert_eq!(read(Api::Generate, true, &body), Some(usage(3, 4, 7, None)));
    }
}

#[test]
fn continuous_usage_counts_once() {
    let event = |completion| {
        format!(
            "data: {{\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":{completion},\"total_tokens\":{}}}}}\n\n",
            completion + 3
        )
    };
    let body: String = (1..=5).map(event).collect();
    assert_eq!(read(Api::Completions, true, &body), Some(usage(3, 5, 8, None)));
}

#[test]
fn every_way_a_responses_stream_ends_reports_usage() {
    for end in ["completed", "incomplete", "failed"] {
        let body = format!(
            "event: response.created\ndata: {{\"type\":\"response.created\",\"response\":{{\"usage\":null}}}}\n\n\
             event: response.{end}\ndata: {{\"type\":\"response.{end}\",\"response\":{{\"id\":\"r\",\"usage\":{{\"input_tokens\":3,\"input_tokens_details\":{{\"cached_tokens\":1}},\"output_tokens\":4,\"total_tokens\":7}}}}}}\n\n"
        );
        assert_eq!(read(Api::Responses, true, &body), Some(usage(3, 4, 7, Some(1))), "{end}");
    }
}

#[test]
fn an_anthropic_stream_reports_in_two_events() {
    let body = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":30,\"cache_read_input_tokens\":20,\"output_tokens\":1}}}\n\n\
                event: ping\ndata: {\"type\": \"ping\"}\n\n\
                event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":15}}\n\n";
    assert_eq!(read(Api::Messages, true, body), Some(usage(30, 15, 45, Some(20))));
    let start_only = body.split("event: ping").next().unwrap();
    assert_eq!(read(Api::Messages, true, start_only), Some(usage(30, 0, 30, Some(20))));
    let json = r#"{"type":"message","usage":{"input_tokens":3,"output_tokens":4}}"#;
    assert_eq!(read(Api::Messages, false, json), Some(usage(3, 4, 7, None)));
}

#[test]
fn usage_at_the_edges_is_read_alike_from_bodies_and_streams() {
    let stream = |json: &str| format!("data: {json}\n\ndata: [DONE]\n\n");
    for (what, json, expected) in [
        ("a count with a point", r#"{"usage":{"prompt_tokens":7.0}}"#, Some(usage(7, 0, 7, None))),
        ("a count as text", r#"{"usage":{"prompt_tokens":"7"}}"#, Some(usage(7, 0, 7, None))),
        ("a text with blanks", r#"{"usage":{"prompt_tokens":" 7"}}"#, Some(usage(7, 0, 7, None))),
        ("a text with underscores", r#"{"usage":{"prompt_tokens":"1_0"}}"#, Some(usage(0, 0, 0, None))),
        (
            "details of the other name",
            r#"{"usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":4}}}"#,
            Some(usage(7, 0, 7, Some(4))),
        ),
        (
            "nothing beside the other name",
            r#"{"usage":{"prompt_tokens":null,"input_tokens":9}}"#,
            Some(usage(9, 0, 9, None)),
        ),
        (
            "cached tokens below zero",
            r#"{"usage":{"prompt_tokens":7,"prompt_tokens_details":{"cached_tokens":-4}}}"#,
            Some(usage(7, 0, 7, Some(0))),
        ),
        (
            "cached tokens that are nothing",
            r#"{"usage":{"prompt_tokens":7,"prompt_tokens_details":{"cached_tokens":null}}}"#,
            Some(usage(7, 0, 7, None)),
        ),
        (
            "details without a count",
            r#"{"usage":{"prompt_tokens":7,"prompt_tokens_details":{}}}"#,
            Some(usage(7, 0, 7, None)),
        ),
        ("a count that no integer holds", r#"{"usage":{"prompt_tokens":1e30}}"#, Some(usage(0, 0, 0, None))),
        ("another letter case", r#"{"Usage":{"prompt_tokens":7}}"#, None),
        ("a number instead of it", r#"{"usage":5}"#, None),
    ] {
        assert_eq!(read(Api::Completions, false, json), expected, "{what}, body");
        assert_eq!(read(Api::Completions, true, &stream(json)), expected, "{what}, stream");
    }
    let cut = r#"{"usage":{"prompt_tokens":7},"choices":[{"text":"a"#;
    assert_eq!(read(Api::Completions, false, cut), Some(usage(7, 0, 7, None)), "the object is whole");
    let rubbish = r#"{"usage":{"prompt_tokens":7}} <html>"#;
    assert_eq!(read(Api::Completions, false, rubbish), Some(usage(7, 0, 7, None)), "rubbish behind it");
    let empty_first = format!("data: {{\"usage\":{{}}}}\n\n{}", stream(r#"{"usage":{"prompt_tokens":7}}"#));
    assert_eq!(read(Api::Completions, true, &empty_first), Some(usage(7, 0, 7, None)), "an empty one first");
}

#[test]
fn counts_of_anthropic_are_read_wherever_its_events_have_them() {
    let delta = "data: {\"type\":\"message_delta\",\"usage\":{\"input_tokens\":30,\"cache_read_input_tokens\":20,\"output_tokens\":5}}\n\n";
    assert_eq!(read(Api::Messages, true, delta), Some(usage(30, 5, 35, Some(20))), "in the delta alone");
    let untyped = "data: {\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}\n\n";
    assert_eq!(read(Api::Messages, true, untyped), Some(usage(3, 4, 7, None)), "without a type");
    let texts = r#"{"usage":{"input_tokens":"7","output_tokens":"1"}}"#;
    assert_eq!(read(Api::Messages, false, texts), Some(usage(7, 1, 8, None)), "as texts");
}

#[test]
fn lines_that_are_no_json_are_passed_over() {
    let body = "data: {\"usage\":{\"prompt_tokens\":1}\n\ndata: usage\n\nusage\n\ndata\n\ndata: {\"usage\":{\"prompt_tokens\":2}}";
    assert_eq!(read(Api::Completions, true, body), Some(usage(2, 0, 2, None)));
}

#[test]
fn apis_without_usage_are_not_read() {
    assert_eq!(read(Api::Opaque, false, r#"{"usage":{"prompt_tokens":1}}"#), None);
    assert_eq!(read(Api::CountTokens, true, "data: {\"usage\":{\"prompt_tokens\":1}}\n"), None);
}

#[test]
fn what_is_longer_than_the_limit_is_reported_as_clipped() {
    let padding = "x".repeat(200);
    let json = format!(r#"{{"usage":{{"x":"{padding}","prompt_tokens":1}}}}"#);
    let lines = format!("data: {json}\n\ndata: {{\"usage\":{{\"prompt_tokens\":2}}}}\n\n");
    for size in [1, 7, 100, 1000] {
        assert_eq!(
            read_chunks(Api::Completions, false, 100, json.as_bytes().chunks(size)),
            (None, false, true)
        );
        assert_eq!(
            read_chunks(Api::Completions, true, 100, lines.as_bytes().chunks(size)),
            (Some(usage(2, 0, 2, None)), false, true)
        );
    }
}

#[test]
fn usage_of_a_line_of_any_length_is_read_wherever_it_stands() {
    let padding = "I".repeat(300_000);
    let usage_text = r#""usage":{"input_tokens":12,"input_tokens_details":{"cached_tokens":4},"output_tokens":6,"total_tokens":18}"#;
    let expected = Some(usage(12, 6, 18, Some(4)));
    for (before, after) in [("", padding.as_str()), (&padding, ""), (&padding, &padding)] {
        let response = format!(r#"{{"id":"r","instructions":"{before}",{usage_text},"text":"{after}"}}"#);
        let nested = format!(
            "event: response.completed\ndata: {{\"response\":{response},\"type\":\"response.completed\"}}\n\n"
        );
        let top = format!("data:{response}\r\n\r\n");
        let before_it = "data: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\n";
        for body in [format!("{before_it}{nested}"), top] {
            for size in [1, 4096, 70_000, body.len()] {
                let read = read_chunks(Api::Responses, true, 65_536, body.as_bytes().chunks(size));
                assert_eq!(read, (expected, false, false), "{size}");
            }
        }
    }
}

#[test]
fn both_reports_of_an_anthropic_stream_are_read_from_lines_of_any_length() {
    let padding = "I".repeat(100_000);
    let body = format!(
        "data: {{\"type\":\"message_start\",\"message\":{{\"x\":\"{padding}\",\"usage\":{{\"input_tokens\":30,\"output_tokens\":1}}}}}}\n\n\
         data: {{\"type\":\"message_delta\",\"x\":\"{padding}\",\"usage\":{{\"output_tokens\":15}}}}\n\n"
    );
    for size in [1, 4096, body.len()] {
        let read = read_chunks(Api::Messages, true, 65_536, body.as_bytes().chunks(size));
        assert_eq!(read, (Some(usage(30, 15, 45, None)), false, false), "{size}");
    }
}

#[test]
fn a_stream_that_reports_an_error_is_told_from_a_good_one() {
    let failed = |body: &str| {
        let whole = read_chunks(Api::ChatCompletions, true, LIMIT, [body.as_bytes()]);
        assert_eq!(
            whole,
            read_chunks(Api::ChatCompletions, true, LIMIT, body.as_bytes().chunks(1)),
            "{body}"
        );
        whole.1
    };
    let good = "data: {\"choices\":[{\"delta\":{\"content\":\"an \\\"error\\\": {}\"}}],\"error\":null}\n\n";
    let end = "data: [DONE]\n\n";
    let long = format!("data: {{\"x\":\"{}\",\"response\":{{\"error\":{{}}}}}}\n\n", "x".repeat(2 * LIMIT));
    for bad in [
        "data: {\"error\":{\"message\":\"engine died\",\"type\":\"InternalServerError\",\"code\":500}}\n\n",
        "data: {\"id\":\"gen-1\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"error\":{\"code\":502}}\r\n\r\n",
        "event: error\ndata: the engine died\n\n",
        "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\"}}}\n\n",
        &long,
    ] {
        assert!(failed(&format!("{good}{bad}{end}")), "{bad}");
    }
    assert!(!failed(&format!("{good}event: ping\ndata: {{}}\n\n{end}")));
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let mut lines = ResponseReader::new(Api::Completions, true, 100);
    let mut json = ResponseReader::new(Api::Completions, false, 100);
    json.feed(br#"{"usage":{"x":""#);
    for _ in 0..1000 {
        lines.feed(&[b'x'; 1000]);
        json.feed(&[b'x'; 1000]);
    }
    for reader in [&lines, &json] {
        assert!(format!("{reader:?}").len() < 2500, "{reader:?}");
    }
}

/// Arbitrary documents in which `usage` often stands where it counts.
fn document() -> impl Strategy<Value = Value> {
    let count = prop_oneof![
        any::<u32>().prop_map(Value::from),
        Just(Value::Null),
        any::<u16>().prop_map(|count| Value::from(count.to_string())),
    ];
    let counts = proptest::collection::hash_map("(prompt|completion|total|input|output)_tokens", count, 0..4);
    let usage = prop_oneof![
        4 => counts.prop_map(|counts| Value::Object(counts.into_iter().collect())),
        1 => Just(Value::Null),
    ];
    let leaf = prop_oneof![any::<String>().prop_map(Value::from), any::<f64>().prop_map(Value::from), usage];
    let name =
        || prop_oneof![2 => Just("usage".to_owned()), 2 => Just("response".to_owned()), 1 => any::<String>()];
    leaf.prop_recursive(3, 20, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(name(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn cut_up(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #[test]
    fn usage_is_found_where_a_tree_has_it(value in document(), pretty in any::<bool>()) {
        let body = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let found = read(Api::Completions, false, &body);
        let expected = value.as_object().and_then(|top| top.get("usage")).filter(|usage| usage.is_object());
        prop_assert_eq!(found.is_some(), expected.is_some());
        if let Some(usage) = expected {
            let count = |name: &str| usage.get(name).filter(|count| !count.is_null()).map(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()).unwrap_or(0));
            prop_assert_eq!(found.unwrap().prompt_tokens, count("prompt_tokens").or(count("input_tokens")).unwrap_or(0));
            prop_assert_eq!(found.unwrap().completion_tokens, count("completion_tokens").or(count("output_tokens")).unwrap_or(0));
        }
    }

    #[test]
    fn a_line_that_is_too_long_to_be_kept_reports_what_it_would_report_whole(
        documents in proptest::collection::vec(document(), 1..4),
        api in proptest::sample::select(vec![Api::Completions, Api::Responses, Api::Messages]),
    ) {
        let body: String = documents.iter().map(|document| format!("data: {document}\n\n")).collect::<Vec<_>>().concat();
        let (as_it_comes, _, clipped) = read_chunks(api, true, 160, body.as_bytes().chunks(16));
        let (whole, _, _) = read_chunks(api, true, usize::MAX, [body.as_bytes()]);
        prop_assume!(!clipped);
        prop_assert_eq!(as_it_comes, whole);
    }

    #[test]
    fn chunk_borders_make_no_difference(
        documents in proptest::collection::vec(document(), 0..4),
        end in proptest::sample::select(vec!["\n", "\r\n", "\r"]),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        event_stream in any::<bool>(),
        api in proptest::sample::select(vec![Api::Completions, Api::Responses, Api::Messages]),
        limit in prop_oneof![Just(LIMIT), 0_usize..200],
    ) {
        let body = documents.iter().map(|document| format!("data: {document}{end}{end}")).collect::<Vec<_>>().concat();
        let body = if event_stream { body } else { body.replace("data: ", "") };
        let chunks = cut_up(body.as_bytes(), &cuts);
        prop_assert_eq!(
            read_chunks(api, event_stream, limit, chunks.iter().map(Vec::as_slice)),
            read_chunks(api, event_stream, limit, [body.as_bytes()])
        );
    }

    #[test]
    fn any_bytes_in_any_chunks_get_the_same_answer(
        bytes in proptest::collection::vec(prop_oneof![4 => proptest::sample::select(b"{}[]\",:\\ \r\nusagedt1".to_vec()), 1 => any::<u8>()], 0..120),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        event_stream in any::<bool>(),
    ) {
        let chunks = cut_up(&bytes, &cuts);
        prop_assert_eq!(
            read_chunks(Api::Completions, event_stream, 64, chunks.iter().map(Vec::as_slice)),
            read_chunks(Api::Completions, event_stream, 64, [bytes.as_slice()])
        );
    }
}

fn closed(api: Api, event_stream: bool, body: &str) -> (bool, bool) {
    let [whole, single] = [body.len().max(1), 1].map(|size| {
        let mut reader = ResponseReader::new(api, event_stream, LIMIT);
        body.as_bytes().chunks(size).for_each(|chunk| reader.feed(chunk));
        reader.finish();
        (reader.closed(), reader.failed())
    });
    assert_eq!(whole, single, "{body}");
    whole
}

#[test]
fn an_answer_is_closed_by_its_last_event_and_not_by_usage_before_it() {
    let long = "I".repeat(2 * LIMIT);
    let start = "data: {\"type\":\"message_start\",\"message\":{\"type\":\"message\",\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\n\n";
    let created = "data: {\"type\":\"response.created\",\"response\":{\"status\":\"in_progress\",\"usage\":{\"input_tokens\":0}}}\n\n";
    let each = "data: {\"choices\":[{\"delta\":{\"content\":\"data: [DONE]\"}}],\"usage\":{\"prompt_tokens\":3}}\n\n";
    for (api, before, end) in [
        (Api::Messages, start, "event: message_stop\r\ndata: {\"type\":\"message_stop\"}\r\n\r\n"),
        (
            Api::Messages,
            start,
            "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":9}}\n\n",
        ),
        (
            Api::Responses,
            created,
            "data: {\"type\":\"response.completed\",\"response\":{\"usage\":null}}\n\n",
        ),
        (
            Api::Responses,
            created,
            &format!(
                "data: {{\"response\":{{\"x\":\"{long}\",\"usage\":null}},\"type\":\"response.incomplete\"}}\n\n"
            ),
        ),
        (Api::ChatCompletions, each, "data: {\"choices\":[ ],\"usage\":{\"prompt_tokens\":3}}\n\n"),
        (Api::ChatCompletions, each, "data: [DONE]\n\n"),
        (Api::ChatCompletions, each, "data:[DONE]"),
    ] {
        assert_eq!(closed(api, true, &before.repeat(3)), (false, false), "{before}");
        assert_eq!(closed(api, true, &format!("{before}{end}")), (true, false), "{end}");
    }
    let stopping = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null},\"usage\":{\"output_tokens\":9}}\n\n";
    assert_eq!(closed(Api::Messages, true, stopping), (false, false));
    assert_eq!(closed(Api::ChatCompletions, false, r#"{"usage":{"prompt_tokens":3},"x":["#), (false, false));
    assert_eq!(closed(Api::ChatCompletions, false, r#"{"usage":{"prompt_tokens":3},"x":[]}"#), (true, false));
}

#[test]
fn a_body_that_says_that_the_answer_failed_is_told_from_a_good_one() {
    for (api, body, failed) in [
        (Api::ChatCompletions, r#"{"error":{"message":"engine died","code":500}}"#, true),
        (Api::ChatCompletions, r#"{"error":"engine died"}"#, true),
        (Api::ChatCompletions, r#"{"object":"error","message":"engine died"}"#, true),
        (Api::Messages, r#"{"type":"error","error":{"type":"overloaded_error"}}"#, true),
        (Api::Responses, r#"{"id":"resp_1","status":"failed","error":null}"#, true),
        (Api::Responses, r#"{"id":"resp_1","status":"completed","error":null}"#, false),
        (Api::ChatCompletions, r#"{"status":"failed","error":""}"#, false),
        (
            Api::ChatCompletions,
            r#"{"choices":[{"error":{}}],"error":null,"object":"chat.completion"}"#,
            false,
        ),
    ] {
        assert_eq!(closed(api, false, body), (true, failed), "{body}");
    }
}

#[test]
fn a_byte_order_mark_before_an_answer_hides_nothing() {
    let long = "I".repeat(2 * LIMIT);
    let json = r#"{"model":"target","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
    let padded = format!("{{\"x\":\"{long}\",{}", &json[1..]);
    for body in [json, &padded] {
        for (event_stream, text) in
            [(false, format!("\u{feff}{body}")), (true, format!("\u{feff}data: {body}\n\n"))]
        {
            assert_eq!(read(Api::ChatCompletions, event_stream, &text), Some(usage(3, 4, 7, None)));
        }
    }
}
