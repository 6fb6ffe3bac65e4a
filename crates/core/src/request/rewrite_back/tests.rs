//! The client's model name comes back, and nothing else changes.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn restore_chunks<'c>(
    api: Api,
    event_stream: bool,
    (target, incoming): (&str, &str),
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> Vec<u8> {
    let mut restorer = ModelRestorer::new(api, event_stream, target, incoming);
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend(restorer.feed(Bytes::copy_from_slice(chunk)).concat());
    }
    out.extend(restorer.finish().into_iter().flatten());
    out
}

/// Restores `target` to `mine`, whole and byte by byte, which must agree.
fn restore(api: Api, event_stream: bool, body: &str) -> String {
    let names = ("target", "mine");
    let whole = restore_chunks(api, event_stream, names, [body.as_bytes()]);
    let single = restore_chunks(api, event_stream, names, body.as_bytes().chunks(1));
    assert_eq!(whole, single, "{body}");
    String::from_utf8(whole).unwrap()
}

#[test]
fn the_model_of_a_json_body_is_replaced_at_the_top_only() {
    for (body, expected) in [
        (r#"{"id":1,"model":"target","x":2}"#, r#"{"id":1,"model":"mine","x":2}"#),
        (r#"{ "model" : "target" }"#, r#"{ "model" : "mine" }"#),
        (r#"{"model":"t\u0061rget"}"#, r#"{"model":"mine"}"#),
        (r#"{"model":"target","model":"target"}"#, r#"{"model":"mine","model":"mine"}"#),
    ] {
        assert_eq!(restore(Api::ChatCompletions, false, body), expected, "{body}");
    }
    for same in [
        r#"{"model":"target2"}"#,
        r#"{"model":"targe"}"#,
        r#"{"model":""}"#,
        r#"{"model":null,"x":"target"}"#,
        r#"{"model":["target"]}"#,
        r#"{"model":{"model":"target"}}"#,
        r#"{"x":{"model":"target"},"y":["model","target"]}"#,
        r#"{"x":"\"model\":\"target\""}"#,
        r#"{"choices":[{"message":{"content":"{\"model\":\"target\"}","model":"target"}}]}"#,
        r#"{"response":{"model":"target"},"message":{"model":"target"}}"#,
        r#"{"model":"targ"#,
        r#"["model","target"]"#,
        "model: target",
        "",
    ] {
        assert_eq!(restore(Api::ChatCompletions, false, same), same);
        assert_eq!(restore(Api::Responses, false, same), same);
    }
}

#[test]
fn the_model_of_each_event_is_replaced() {
    let event = |model: &str| {
        format!(
            ": hi\r\nevent: x\r\ndata: {{\"model\":\"{model}\",\"c\":\"\\\"model\\\":\\\"target\\\"\"}}\r\n\r\n"
        )
    };
    let body = event("target")
        + &event("target")
        + "data:[DONE]\n\ndata:{\"model\":\"target\"}\rdatax: {\"model\":\"target\"}\n";
    let expected = event("mine")
        + &event("mine")
        + "data:[DONE]\n\ndata:{\"model\":\"mine\"}\rdatax: {\"model\":\"target\"}\n";
    assert_eq!(restore(Api::ChatCompletions, true, &body), expected);
}

#[test]
fn events_that_carry_the_response_have_its_model_replaced() {
    for (api, within) in [(Api::Responses, "response"), (Api::Messages, "message")] {
        let body = |model: &str| {
            format!(
                "data: {{\"type\":\"x\",\"{within}\":{{\"id\":{{\"model\":\"target\"}},\"model\":\"{model}\"}},\"model\":\"{model}\",\"delta\":{{\"model\":\"target\"}}}}\n\n"
            )
        };
        assert_eq!(restore(api, true, &body("target")), body("mine"));
        assert_eq!(
            restore(Api::ChatCompletions, true, &body("target")),
            body("target").replace("},\"model\":\"target\",", "},\"model\":\"mine\",")
        );
    }
}

#[test]
fn the_model_of_an_event_is_replaced_over_however_many_lines_its_data_is_spread() {
    for body in [
        "data: {\"id\":1,\ndata: \"model\":\ndata: \"target\"\n: ping\ndata: }\n\n",
        "\u{feff}data:{\ndata\nevent: x\ndata:\"model\":\"target\",\ndata: \"x\":{\"a\":\"target\"}}\n\n",
        "data: {\"x\":{\ndata: \"y\":1},\"model\":\"target\"}\n\ndata: [DONE]\n\ndata: {\ndata: \"model\":\"target\"}",
    ] {
        for end in ["\n", "\r\n", "\r"] {
            let body = body.replace('\n', end);
            let expected =
                body.replace("\"target\"", "\"mine\"").replace("\"a\":\"mine\"", "\"a\":\"target\"");
            assert_eq!(restore(Api::ChatCompletions, true, &body), expected, "{body:?}");
        }
    }
    let within = "data: {\"type\":\"x\",\ndata: \"response\":{\ndata: \"model\":\"target\"}}\n\n";
    assert_eq!(restore(Api::Responses, true, within), within.replace("\"target\"", "\"mine\""));
    for same in [
        // The lines of two events, of another field, and a string that a line's end breaks.
        "data: {\"id\":1,\n\ndata: \"model\":\"target\"}\n\n",
        "data: {\"x\":{\ndata: \"model\":\"target\"}}\n\n",
        "data: {\"model\":\"tar\ndata: get\"}\n\n",
        "data: {\ndatas: \"model\":\"target\"}\n\n",
    ] {
        assert_eq!(restore(Api::ChatCompletions, true, same), same);
    }
}

#[test]
fn a_line_that_breaks_off_in_a_name_goes_out_as_it_came() {
    let body = "data: {\"model\":\"tar\nget\"}\n\ndata: {\"model\":\"target\"}\n\n";
    assert_eq!(restore(Api::Completions, true, body), body.replace("\"target\"", "\"mine\""));
    let unfinished = "data: {\"model\":\"targ";
    assert_eq!(restore(Api::Completions, true, unfinished), unfinished);
}

#[test]
fn names_are_escaped_on_their_way_back() {
    let out = restore_chunks(Api::Completions, false, ("a\"b", "c\"d\\"), [&br#"{"model":"a\"b"}"#[..]]);
    assert_eq!(out, br#"{"model":"c\"d\\"}"#);
}

#[test]
fn without_two_different_names_nothing_is_looked_at() {
    for (target, incoming) in [("", "mine"), ("target", ""), ("same", "same")] {
        let mut restorer = ModelRestorer::new(Api::Completions, false, target, incoming);
        assert!(!restorer.is_active());
        let chunk = Bytes::from_static(br#"{"model":"target"}"#);
        assert_eq!(restorer.feed(chunk.clone()).as_slice(), [chunk]);
        assert!(restorer.feed(Bytes::new()).is_empty());
        assert_eq!(restorer.finish(), None);
    }
}

#[test]
fn untouched_chunks_are_shared_and_names_that_cannot_match_are_let_through() {
    let mut restorer = ModelRestorer::new(Api::Completions, false, "target", "mine");
    let chunk = Bytes::from_static(br#"{"x":"y","#);
    let pieces = restorer.feed(chunk.clone());
    assert_eq!(pieces.first().map(|piece| piece.as_ptr()), Some(chunk.as_ptr()));
    assert_eq!(restorer.feed(Bytes::from_static(b"\"model\":\"ta")).concat(), b"\"model\":");
    assert!(restorer.feed(Bytes::from_static(b"r")).is_empty());
    let long = "r".repeat(100);
    assert_eq!(restorer.feed(Bytes::from(long.clone())).concat(), format!("\"tar{long}").into_bytes());
    assert_eq!(restorer.feed(Bytes::from_static(b"get\"}")).concat(), b"get\"}");
    assert_eq!(restorer.finish(), None);
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        2 => Just(Value::from("target")),
        1 => any::<String>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => Just(Value::from("\"model\":\"target\"")),
    ];
    let name =
        || prop_oneof![2 => Just("model".to_owned()), 1 => Just("response".to_owned()), 1 => any::<String>()];
    let inner = leaf.prop_recursive(3, 20, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(name(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    proptest::collection::hash_map(name(), inner, 0..5)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

fn restored(mut document: Value, within: bool) -> Value {
    let swap = |object: &mut Value| {
        if let Some(model) = object.get_mut("model").filter(|model| *model == "target") {
            *model = Value::from("mine");
        }
    };
    swap(&mut document);
    if let Some(response) = document.get_mut("response").filter(|response| within && response.is_object()) {
        swap(response);
    }
    document
}

fn cut_up(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #[test]
    fn a_tree_would_be_changed_in_the_same_places(
        documents in proptest::collection::vec(document(), 1..4),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        end in proptest::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let stream = |list: &[Value]| -> String { list.iter().map(|value| format!("data: {value}{end}{end}")).collect::<Vec<_>>().concat() };
        let body = stream(&documents);
        let expected = stream(&documents.iter().cloned().map(|value| restored(value, true)).collect::<Vec<_>>());
        let chunks = cut_up(body.as_bytes(), &cuts);
        let out = restore_chunks(Api::Responses, true, ("target", "mine"), chunks.iter().map(Vec::as_slice));
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected);

        let body = serde_json::to_string_pretty(&documents[0]).unwrap();
        let expected = serde_json::to_string_pretty(&restored(documents[0].clone(), false)).unwrap();
        let chunks = cut_up(body.as_bytes(), &cuts);
        let out = restore_chunks(Api::Responses, false, ("target", "mine"), chunks.iter().map(Vec::as_slice));
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn any_bytes_in_any_chunks_come_out_the_same(
        parts in proptest::collection::vec(
            prop_oneof![
                6 => proptest::sample::select(vec!["data:", " ", "{", "}", "[", "]", "\"model\"", ":", ",", "\"target\"", "\"tar", "get\"", "\\", "\"", "\n", "\r", "\"response\"", "\"\\u0074arget\""]).prop_map(|part| part.as_bytes().to_vec()),
                1 => proptest::collection::vec(any::<u8>(), 1..3),
            ],
            0..30,
        ),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        event_stream in any::<bool>(),
    ) {
        let bytes = parts.concat();
        let chunks = cut_up(&bytes, &cuts);
        let names = ("target", "mine");
        prop_assert_eq!(
            restore_chunks(Api::Responses, event_stream, names, chunks.iter().map(Vec::as_slice)),
            restore_chunks(Api::Responses, event_stream, names, [bytes.as_slice()])
        );
    }
}

#[test]
fn a_long_name_of_the_client_makes_a_response_at_most_three_times_as_long_and_64_kib() {
    let long = "c".repeat(1000);
    let names = ("m", long.as_str());
    let event = "data: {\"model\":\"m\",\"choices\":[]}\n\n";
    let (events, members) =
        (event.repeat(20_000), format!("{{{}}}", vec![r#""model":"m""#; 20_000].join(",")));
    let documents = r#"{"model":"m"}"#.repeat(20_000);
    for (event_stream, body) in [(true, &events), (false, &members), (false, &documents)] {
        let whole = restore_chunks(Api::ChatCompletions, event_stream, names, [body.as_bytes()]);
        assert!(whole.len() <= 3 * body.len() + (64 << 10), "{} of {}", whole.len(), body.len());
        assert!(whole.len() > 1000, "the first names are put back");
        let parts = restore_chunks(Api::ChatCompletions, event_stream, names, body.as_bytes().chunks(7));
        assert!(whole == parts, "where chunks end makes no difference");
    }
    let members = restore_chunks(Api::ChatCompletions, false, names, [members.as_bytes()]);
    assert_eq!(members.windows(1000).filter(|part| *part == long.as_bytes()).count(), MAX_NAMES as usize);
}

#[test]
fn an_alias_of_128_bytes_is_put_back_in_every_event_of_80_bytes() {
    let alias = "a".repeat(128);
    let event =
        "data: {\"id\":\"chatcmpl-0123456789\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{}}]}\n";
    let mut restorer = ModelRestorer::new(Api::ChatCompletions, true, "m", &alias);
    for _ in 0..10_000 {
        let sent = restorer.feed(Bytes::from_static(event.as_bytes())).concat();
        assert_eq!(sent.len(), event.len() + 127);
    }
    assert!(!restorer.limited());
}

#[test]
fn the_name_behind_a_byte_order_mark_is_put_back() {
    for (event_stream, prefix) in [(false, "\u{feff}"), (true, "\u{feff}data: ")] {
        let body = format!("{prefix}{{\"model\":\"target\"}}\n\n");
        assert_eq!(restore(Api::ChatCompletions, event_stream, &body), body.replace("target", "mine"));
    }
}
