//! Events as the specification of event streams allows them, and the ends of answers.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const LIMIT: usize = 4096;

#[derive(Debug, PartialEq, Eq)]
struct Read {
    total: Option<u64>,
    failed: bool,
    closed: bool,
}

fn read_by(api: Api, body: &str, size: usize, limit: usize) -> Read {
    let mut reader = ResponseReader::new(api, true, limit);
    body.as_bytes().chunks(size).for_each(|chunk| reader.feed(chunk));
    reader.finish();
    let total = reader.usage().map(|usage| usage.total_tokens);
    Read { total, failed: reader.failed(), closed: reader.closed() }
}

/// Reads a stream in chunks of several sizes, and as one whose events are too long to be kept; they must agree.
fn read(api: Api, body: &str) -> Read {
    let whole = read_by(api, body, body.len().max(1), LIMIT);
    for size in [1, 2, 7, 60] {
        assert_eq!(read_by(api, body, size, LIMIT), whole, "by {size}: {body}");
    }
    whole
}

fn total(body: &str) -> Option<u64> {
    read(Api::ChatCompletions, body).total
}

const USAGE: &str = r#""usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#;

#[test]
fn data_of_several_lines_is_one_document() {
    for body in [
        format!("data: {{\"choices\":[],\ndata: {USAGE}}}\n\n"),
        format!("data: {{\ndata:{USAGE}\ndata\ndata: }}\n\n"),
        "data: {\"usage\":\ndata: {\"prompt_tokens\":3,\n: ping\nid: 7\nevent: x\ndata: \"total_tokens\":\ndata: 7,\"completion_tokens\":4}\ndata: }\n\n".to_owned(),
        // The whole in one line, and a line of blanks behind it.
        format!("data: {{{USAGE}}}\ndata:   \n\n"),
    ] {
        for end in ["\n", "\r\n", "\r"] {
            let body = body.replace('\n', end);
            assert_eq!(total(&body), Some(7), "{body:?}");
            assert_eq!(total(&format!("\u{feff}: hello{end}{end}{body}data: [DONE]{end}{end}")), Some(7));
            // The last event need not be ended by an empty line, nor its last line by anything.
            assert_eq!(total(body.trim_end_matches(['\r', '\n'])), Some(7), "{body:?}");
            assert_eq!(total(body.strip_suffix(end).unwrap()), Some(7), "{body:?}");
        }
    }
}

#[test]
fn lines_of_other_events_and_fields_are_no_part_of_the_data() {
    for body in [
        format!("data: {{\"choices\":[],\n\ndata: {USAGE}}}\n\n"),
        format!("data: {{\"x\":\"\ndatax: {USAGE}\"}}\n\n"),
        format!("data: {{\"a\":1\n: comment\nDATA: ,{USAGE}\ndata: }}\n\n"),
        format!("\n\n\u{feff}data: {{{USAGE}}}\n\n"),
    ] {
        assert_eq!(total(&body), None, "{body:?}");
    }
    let unseparated = format!("data: {{\"choices\":[]}}\ndata: {{{USAGE}}}\ndata: [DONE]\n");
    assert_eq!(total(&unseparated), Some(7), "some servers leave out the empty lines");
}

#[test]
fn an_event_of_several_lines_and_any_length_is_read() {
    let long = "I".repeat(3 * LIMIT);
    let body = format!(
        "event: response.completed\r\ndata: {{\"response\":{{\"text\":\"{long}\",\r\n: ping\r\ndata: \"usage\":{{\"input_tokens\":3,\r\n\
         data: \"output_tokens\":4,\"total_tokens\":7}}}}\r\ndata: ,\"type\":\"response.completed\"}}\r\n\r\n"
    );
    assert_eq!(read(Api::Responses, &body), Read { total: Some(7), failed: false, closed: true });
}

#[test]
fn the_last_event_of_a_responses_stream_ends_it_with_and_without_usage() {
    let ended = |failed| Read { total: None, failed, closed: true };
    let delta = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n";
    for (event, expected) in [
        ("data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\"}}\n\n", ended(false)),
        (
            "data: {\"type\":\"response.incomplete\",\"response\":{\"id\":\"r\",\"incomplete_details\":{\"reason\":\"max_output_tokens\"}}}\n\n",
            ended(false),
        ),
        ("data: {\"type\":\"response.failed\",\"response\":{\"id\":\"r\"}}\n\n", ended(true)),
        (
            "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\"}}}\n\n",
            ended(true),
        ),
        ("data: {\"type\":\"response.completed\",\"response\":{\"status\":\"failed\"}}\n\n", ended(true)),
        (
            "data: {\"type\":\"response.incomplete\",\"response\":{\"error\":{\"code\":\"x\"}}}\n\n",
            ended(true),
        ),
        ("event: response.failed\ndata: {\"response\":{}}\n\n", ended(true)),
        ("event: response.completed\ndata: {\"response\":{}}\n\n", ended(false)),
        ("data: {\"type\":\ndata: \"response.completed\"}\n\n", ended(false)),
        ("data: {\"type\":\"response.completed\"}", ended(false)),
    ] {
        assert_eq!(read(Api::Responses, &format!("{delta}{event}")), expected, "{event}");
    }
    assert_eq!(read(Api::Responses, &delta.repeat(3)), Read { total: None, failed: false, closed: false });
    let text = delta.replace("\"x\"", "\"response.completed failed\"");
    assert!(!read(Api::Responses, &text).closed, "a text that says so ends nothing");
}

#[test]
fn a_chunk_with_a_finish_reason_and_usage_is_the_last_whatever_choices_it_holds() {
    let delta = format!(
        "data: {{\"choices\":[{{\"index\":1,\"delta\":{{\"content\":\"x\"}},\"finish_reason\":null}}],{USAGE}}}\n\n"
    );
    let stop = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\" : \"stop\"}}],{USAGE}}}\n\n"
    );
    let whole = format!(
        "data: {{\"object\":\"chat.completion\",\"choices\":[{{\"message\":{{\"content\":\"\\\"finish_reason\\\":\\\"stop\\\"\"}},\"finish_reason\":\"stop\"}}],{USAGE}}}\n\n"
    );
    for (body, closed) in [
        (stop.clone(), true),
        (whole.clone(), true),
        (whole.trim_end().to_owned(), true),
        (format!("{delta}{stop}"), true),
        (delta.clone(), false),
        (format!("{stop}{delta}"), false),
        (whole.replace("\"finish_reason\":\"stop\"}]", "\"finish_reason\":null}]"), false),
    ] {
        let expected = Read { total: Some(7), failed: false, closed };
        assert_eq!(read(Api::ChatCompletions, &body), expected, "{body}");
    }
}

/// A document, spread over lines of data at its blanks.
fn event(document: &Value, name: bool, end: &str) -> String {
    let pretty = serde_json::to_string_pretty(document).unwrap();
    let lines: Vec<_> = pretty.lines().map(|line| format!("data: {line}{end}")).collect();
    format!("{}{}{end}", if name { format!("event: e{end}") } else { String::new() }, lines.concat())
}

proptest! {
    #[test]
    fn an_event_reports_the_same_over_however_many_lines_its_data_is_spread(
        counts in proptest::collection::vec((1_u32..1000, 1_u32..1000), 1..5),
        names in any::<[bool; 5]>(),
        end in proptest::sample::select(vec!["\n", "\r\n", "\r"]),
        size in 1_usize..200,
        limit in prop_oneof![Just(LIMIT), 160_usize..300],
    ) {
        let documents = counts.iter().map(|(prompt, completion)| serde_json::json!({
            "choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "x": {"y": ["z"]}},
        }));
        let body: String = documents.zip(names).map(|(document, name)| event(&document, name, end)).collect::<Vec<_>>().concat();
        let (prompt, completion) = counts.last().unwrap();
        prop_assert_eq!(read_by(Api::Completions, &body, size, limit).total, Some(u64::from(prompt + completion)));
    }
}
