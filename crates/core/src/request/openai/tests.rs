//! OpenAI bodies: what is read, in which order, and what is refused.

use proptest::prelude::*;
use serde_json::Value;

use super::super::parse::parse as parse_path;
use super::super::paths::ParserKind;
use super::super::pieces::MAX_PIECES;
use super::super::types::{MediaKind, Piece, token_ids};
use super::*;

fn parse_at(path: &str, body: &[u8]) -> Result<Inference, ParseError> {
    parse_path(ParserKind::OpenAi, path, body)
}

/// The pieces in a short notation: `text`, `<json>`, `#tokens`, `@media`, `|` between prompts.
fn pieces(path: &str, body: &str) -> Vec<String> {
    let bytes = body.as_bytes();
    let inference = parse_at(path, bytes).unwrap_or_else(|error| panic!("{body}: {error}"));
    let piece = |piece: &Piece| match piece {
        Piece::Text(string) => string.text(bytes).into_owned(),
        Piece::Json(range) => format!("<{}>", &body[range.start as usize..range.end as usize]),
        Piece::Tokens(range) => format!("#{:?}", token_ids(bytes, range.clone()).collect::<Vec<_>>()),
        Piece::Media(MediaKind::Image, string) => format!("@image {}", string.text(bytes)),
        Piece::Media(MediaKind::Audio, string) => format!("@audio {}", string.text(bytes)),
        Piece::Media(MediaKind::Video, string) => format!("@video {}", string.text(bytes)),
        Piece::NextPrompt => "|".to_owned(),
        Piece::PackedTokens(_) => panic!("no JSON has packed numbers"),
    };
    inference.prompt.pieces.iter().map(piece).collect()
}

fn refusal(path: &str, body: &str) -> String {
    parse_at(path, body.as_bytes()).expect_err(body).to_string()
}

/// What of the body was not understood.
fn unread(path: &str, body: &str) -> String {
    parse_at(path, body.as_bytes()).unwrap().unread.expect(body).to_string()
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

#[test]
fn the_shared_fields_are_read_wherever_they_stand() {
    let body = br#" { "stream" : true, "messages":[{"role":"user","content":"hi"}], "x":{"model":"no","stream":false},
        "max_tokens": 5, "max_completion_tokens": 7.0, "cache_salt":"s\u0061lt", "model" : "m\/1" } "#;
    let inference = parse_at(CHAT, body).unwrap();
    assert_eq!(inference.api, Api::ChatCompletions);
    assert_eq!(inference.model.unwrap().text(body), "m/1");
    assert_eq!(inference.cache_salt.unwrap().text(body), "salt");
    assert_eq!(inference.max_output_tokens, Some(7));
    assert!(inference.stream && inference.is_rewritable() && !inference.empty_object);
    assert_eq!(inference.insert_at, Some(2));
}

#[test]
fn of_repeated_members_the_last_counts() {
    let body = br#"{"model":"a","stream":true,"prompt":"x","prompt":["y"],"stream":false,"model":"b","max_tokens":1,"max_tokens":2}"#;
    let inference = parse_at(COMPLETIONS, body).unwrap();
    assert_eq!(inference.model.unwrap().text(body), "b");
    assert_eq!(inference.model_values.as_slice(), [9..12, 78..81]);
    assert!(!inference.stream);
    assert_eq!(inference.max_output_tokens, Some(2));
    assert_eq!(pieces(COMPLETIONS, std::str::from_utf8(body).unwrap()), ["y"]);
    let last_is_no_string = parse_at(COMPLETIONS, br#"{"model":"a","prompt":"x","model":null}"#).unwrap();
    assert_eq!(last_is_no_string.model, None);
    assert_eq!(last_is_no_string.model_values.len(), 2);
}

#[test]
fn only_true_asks_for_a_stream() {
    for (value, expected) in
        [("true", true), ("false", false), ("null", false), ("\"true\"", false), ("1", false)]
    {
        let body = format!(r#"{{"prompt":"x","stream":{value}}}"#);
        assert_eq!(parse_at(COMPLETIONS, body.as_bytes()).unwrap().stream, expected, "{value}");
    }
}

#[test]
fn caps_are_asked_in_order_and_only_whole_numbers_count() {
    for (path, fields, expected) in [
        (CHAT, r#""max_tokens":3"#, Some(3)),
        (CHAT, r#""max_tokens":3,"max_completion_tokens":0"#, Some(0)),
        (CHAT, r#""max_tokens":3,"max_completion_tokens":null"#, Some(3)),
        (CHAT, r#""max_tokens":3,"max_completion_tokens":-1"#, Some(3)),
        (CHAT, r#""max_tokens":3,"max_completion_tokens":1.5"#, Some(3)),
        (CHAT, r#""max_tokens":"3""#, None),
        (COMPLETIONS, r#""max_completion_tokens":3"#, None),
        ("/v1/responses", r#""max_output_tokens":1e3,"max_tokens":3"#, Some(1000)),
        ("/v1/embeddings", r#""max_tokens":3"#, None),
    ] {
        let body = format!(r#"{{{fields},"prompt":"x","input":"x","messages":[{{}}]}}"#);
        assert_eq!(parse_at(path, body.as_bytes()).unwrap().max_output_tokens, expected, "{path} {fields}");
    }
}

#[test]
fn a_chat_is_tools_then_role_and_content_of_each_message() {
    let body = r#"{"messages":[
        {"role":"system","content":"be\nbrief"},
        {"content":[{"type":"text","text":"look"},"bare",{"type":"image_url","image_url":{"detail":"low","url":"data:i"}},
            {"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}},{"type":"video_url","video_url":{"url":"v"}},
            {"type":"audio_url","audio_url":{"url":"a"}},{"image_url":"plain"},{"type":"unknown","x":{"text":"no"}}],"role":"user"},
        {"role":"assistant","content":null,"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","content":""},{}],
        "tools":[{"type":"function"}]}"#;
    assert_eq!(
        pieces(CHAT, body),
        [
            r#"<[{"type":"function"}]>"#,
            "system",
            "be\nbrief",
            "user",
            "look",
            "bare",
            "@image data:i",
            "@audio AAAA",
            "@video v",
            "@audio a",
            "@image plain",
            "assistant",
            "tool"
        ]
    );
    assert!(parse_at(CHAT, body.as_bytes()).unwrap().prompt.has_media());
}

#[test]
fn empty_tools_are_no_part_of_the_prompt() {
    for tools in ["[]", "null", " [ ] "] {
        assert_eq!(pieces(CHAT, &format!(r#"{{"tools":{tools},"messages":[{{"role":"u"}}]}}"#)), ["u"]);
    }
}

#[test]
fn prompts_and_inputs_come_in_four_shapes() {
    for (value, expected) in [
        (r#""one""#, vec!["one"]),
        (r#"["one"]"#, vec!["one"]),
        (r#"["one","","two"]"#, vec!["one", "|", "", "|", "two"]),
        ("[1, 2.0,3e0]", vec!["#[1, 2, 3]"]),
        ("[[1,2],[4294967295]]", vec!["#[1, 2]", "|", "#[4294967295]"]),
    ] {
        assert_eq!(pieces(COMPLETIONS, &format!(r#"{{"prompt":{value}}}"#)), expected, "{value}");
        assert_eq!(pieces("/v1/embeddings", &format!(r#"{{"input":{value}}}"#)), expected, "{value}");
    }
}

#[test]
fn responses_are_instructions_tools_and_input() {
    let body = r#"{"input":"hi","tools":[{}],"instructions":"be brief"}"#;
    assert_eq!(pieces("/v1/responses", body), ["be brief", "<[{}]>", "hi"]);
    let items = r#"{"input":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(pieces("/v1/responses", items), [r#"<[{"role":"user","content":"hi"}]>"#]);
    assert!(pieces("/v1/responses", r#"{"input":""}"#).is_empty());
}

#[test]
fn conversations_are_their_items_and_images_have_no_prompt_to_match() {
    assert_eq!(
        pieces("/v1/conversations", r#"{"items":[{"type":"message"}]}"#),
        [r#"<[{"type":"message"}]>"#]
    );
    assert!(pieces("/v1/images/generations", r#"{"prompt":"a cat","n":1}"#).is_empty());
}

#[test]
fn a_path_that_is_not_known_means_completions() {
    assert_eq!(parse_at("/primary-gateway-test", br#"{"prompt":"x"}"#).unwrap().api, Api::Completions);
    assert_eq!(parse_at("/v1/completions/render", br#"{"prompt":"x"}"#).unwrap().api, Api::Completions);
    assert_eq!(
        parse_at("/v1/chat/completions/render/", br#"{"messages":[{}]}"#).unwrap().api,
        Api::ChatCompletions
    );
}

#[test]
fn missing_and_empty_fields_are_told_in_the_references_words_and_go_on() {
    for (path, expected, bodies) in [
        (
            "/v1/conversations",
            "invalid conversations request: must have items field",
            &["{}", r#"{"items":[]}"#, r#"{"items":null}"#][..],
        ),
        ("/v1/responses", "invalid responses request: must have input field", &["{}", r#"{"input":null}"#]),
        (
            CHAT,
            "invalid chat completions request: must have valid messages field",
            &["{}", r#"{"messages":[]}"#, r#"{"messages":null}"#, r#"{"prompt":"x"}"#],
        ),
        (
            COMPLETIONS,
            "invalid completions request: must have prompt field",
            &["{}", r#"{"prompt":""}"#, r#"{"prompt":[]}"#, r#"{"prompt":[[]]}"#, r#"{"prompt":null}"#],
        ),
        (
            "/v1/embeddings",
            "invalid embeddings request: must have input field",
            &["{}", r#"{"input":""}"#, r#"{"input":[]}"#],
        ),
        (
            "/v1/images/generations",
            "invalid images generations request: must have prompt field",
            &["{}", r#"{"prompt":""}"#, r#"{"prompt":["x"]}"#],
        ),
    ] {
        for body in bodies {
            assert_eq!(unread(path, body), expected, "{path} {body}");
        }
    }
}

#[test]
fn odd_shapes_are_told_with_their_place_and_go_on() {
    for (path, body, place) in [
        (CHAT, r#"{"messages":{}}"#, "expected an array of messages at byte 12"),
        (CHAT, r#"{"messages":["x"]}"#, "expected a message object at byte 13"),
        (CHAT, r#"{"messages":[{"role":1}]}"#, "expected a role at byte 21"),
        (
            CHAT,
            r#"{"messages":[{"content":1}]}"#,
            "expected content to be a string or an array of parts at byte 24",
        ),
        (CHAT, r#"{"messages":[{"content":[1]}]}"#, "expected a content part at byte 25"),
        (CHAT, r#"{"messages":[{"content":[{"text":[]}]}]}"#, "expected a text at byte 33"),
        (
            COMPLETIONS,
            r#"{"prompt":{}}"#,
            "expected a string, an array of strings or an array of token ids at byte 10",
        ),
        (
            COMPLETIONS,
            r#"{"prompt":["a",1]}"#,
            "expected a string, an array of strings or an array of token ids at byte 15",
        ),
        (COMPLETIONS, r#"{"prompt":[1,"a"]}"#, "expected an array of token ids at byte 13"),
        (COMPLETIONS, r#"{"prompt":[-1]}"#, "expected a token id from 0 to 4294967295 at byte 11"),
    ] {
        assert_eq!(unread(path, body), place, "{body}");
    }
}

#[test]
fn what_servers_take_is_read_as_far_as_it_is_known() {
    for (path, body, expected) in [
        ("/v1/embeddings", r#"{"messages":[{"role":"user","content":"hi"}]}"#, &["user", "hi"][..]),
        (
            "/v1/embeddings",
            r#"{"input":[{"role":"user","content":"hi"}]}"#,
            &[r#"<[{"role":"user","content":"hi"}]>"#],
        ),
        (
            "/v1/embeddings",
            r#"{"input":[[{"role":"u"}],[{"role":"u"}]]}"#,
            &[r#"<[[{"role":"u"}],[{"role":"u"}]]>"#],
        ),
        ("/v1/embeddings", r#"{"input":{"content":[]}}"#, &[r#"<{"content":[]}>"#]),
        ("/v1/embeddings", r#"{"input":[[1,2],[3]]}"#, &["#[1, 2]", "|", "#[3]"]),
        (COMPLETIONS, r#"{"prompt_embeds":"AAAA","prompt":""}"#, &["AAAA"]),
        (COMPLETIONS, r#"{"prompt_embeds":["AA","BB"],"prompt":null}"#, &[r#"<["AA","BB"]>"#]),
        (COMPLETIONS, r#"{"prompt_token_ids":[1,2]}"#, &["#[1, 2]"]),
        (CHAT, r#"{"input_ids":[7,8]}"#, &["#[7, 8]"]),
        (CHAT, r#"{"messages":[{"role":"assistant","content":null,"tool_calls":[{}]}]}"#, &["assistant"]),
        (CHAT, r#"{"messages":[{"role":"u","content":"a"}],"prompt_token_ids":[1]}"#, &["u", "a"]),
        ("/v1/responses", r#"{"prompt":{"id":"p","version":"2"}}"#, &[r#"<{"id":"p","version":"2"}>"#]),
        ("/v1/responses", r#"{"input":null,"instructions":"i"}"#, &["i"]),
    ] {
        assert_eq!(pieces(path, body), expected, "{path} {body}");
    }
    let known = parse_at("/v1/embeddings", br#"{"input":[{"role":"user","content":"hi"}]}"#).unwrap();
    assert_eq!(known.unread, None);
}

#[test]
fn what_is_not_understood_counts_as_it_lies_beside_what_is() {
    for (path, body, expected) in [
        (
            CHAT,
            r#"{"messages":[{"role":"u","content":"a"},null,{"content":7}]}"#,
            &["u", "a", "<null>", "<7>"][..],
        ),
        (CHAT, r#"{"messages":[{"role":"u","content":{"text":"a"}}]}"#, &["u", r#"<{"text":"a"}>"#]),
        (COMPLETIONS, r#"{"prompt":["a",1,"b"]}"#, &["a", "|", "<1>", "|", "b"]),
        (COMPLETIONS, r#"{"prompt":{"text":"a"}}"#, &[r#"<{"text":"a"}>"#]),
        (COMPLETIONS, r#"{"prompt":[null]}"#, &["<[null]>"]),
    ] {
        assert_eq!(pieces(path, body), expected, "{path} {body}");
        let inference = parse_at(path, body.as_bytes()).unwrap();
        assert_eq!(inference.unread.map(Unread::label), Some("shape"), "{body}");
        assert!(inference.is_rewritable());
    }
}

#[test]
fn what_is_no_json_object_is_refused_before_its_fields_are_judged() {
    for (body, expected) in [
        ("", "unexpected end at byte 0"),
        ("[]", "expected an object at byte 0"),
        ("null", "expected an object at byte 0"),
        (r#"{"messages":[{"content":1}]"#, "unexpected end at byte 27"),
        (r#"{"messages":[]} x"#, "unexpected data behind the value at byte 16"),
        (r#"{"messages":[],}"#, "expected a member name in quotes at byte 15"),
    ] {
        assert_eq!(refusal(CHAT, body), format!("error unmarshaling request bodyMap: {expected}"), "{body}");
    }
}

#[test]
fn a_hundred_thousand_levels_are_refused_everywhere() {
    let deep = "[".repeat(100_000);
    for field in ["messages", "tools", "x", "stream", "model"] {
        let message = refusal(CHAT, &format!(r#"{{"{field}":{deep}"#));
        assert!(message.contains("exceeded max depth"), "{field}: {message}");
    }
    let deep_objects = r#"{"messages":[{"content":[{"text":"#.repeat(50_000);
    assert!(refusal(CHAT, &deep_objects).contains("exceeded max depth"));
}

#[test]
fn a_body_of_five_megabytes_is_read() {
    let text = "all work and no play \\n".repeat(240_000);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}],"stream":true}}"#);
    assert!(body.len() > 5_000_000);
    let inference = parse_at(CHAT, body.as_bytes()).unwrap();
    assert!(inference.stream);
    assert_eq!(inference.prompt.pieces.len(), 2);
}

#[test]
fn pieces_beyond_the_bound_count_as_they_lie() {
    let prompts = vec![r#""x""#; MAX_PIECES].join(",");
    let body = format!(r#"{{"prompt":[{prompts}]}}"#);
    let inference = parse_at(COMPLETIONS, body.as_bytes()).unwrap();
    assert_eq!(inference.prompt.pieces.len(), MAX_PIECES + 1);
    let Some(Piece::Json(rest)) = inference.prompt.pieces.last() else { panic!("no rest") };
    assert_eq!(rest.end as usize, body.len() - 1);
    let messages = vec![r#"{"content":"c","role":"r"}"#; MAX_PIECES].join(",");
    let body = format!(r#"{{"messages":[{messages}]}}"#);
    assert_eq!(parse_at(CHAT, body.as_bytes()).unwrap().prompt.pieces.len(), MAX_PIECES + 1);
}

fn chat_body() -> impl Strategy<Value = Value> {
    let text = any::<String>().prop_map(Value::from);
    let part = prop_oneof![
        any::<String>().prop_map(|text| serde_json::json!({"type": "text", "text": text})),
        any::<String>().prop_map(|url| serde_json::json!({"type": "image_url", "image_url": {"url": url}})),
    ];
    let content =
        prop_oneof![text, Just(Value::Null), proptest::collection::vec(part, 0..3).prop_map(Value::from)];
    let message = ("[a-z]{1,6}", content)
        .prop_map(|(role, content)| serde_json::json!({"role": role, "content": content}));
    let model = prop_oneof![
        any::<String>().prop_map(Value::from),
        Just(Value::Null),
        any::<u32>().prop_map(Value::from)
    ];
    (model, any::<bool>(), proptest::collection::vec(message, 1..4), any::<Option<i32>>(), any::<Option<String>>()).prop_map(
        |(model, stream, messages, cap, salt)| {
            serde_json::json!({"model": model, "stream": stream, "messages": messages, "max_tokens": cap, "cache_salt": salt})
        },
    )
}

/// Text of a chat by way of the tree that the parser does not build.
fn text_of(body: &Value) -> String {
    let mut all = String::new();
    for message in body["messages"].as_array().unwrap() {
        all += message["role"].as_str().unwrap();
        all += message["content"].as_str().unwrap_or_default();
        for part in message["content"].as_array().into_iter().flatten() {
            all += part["text"].as_str().or(part["image_url"]["url"].as_str()).unwrap_or_default();
        }
    }
    all
}

proptest! {
    #[test]
    fn a_chat_is_read_as_a_tree_would_be(value in chat_body(), pretty in any::<bool>()) {
        let body = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        let inference = parse_at(CHAT, &body).unwrap();
        prop_assert_eq!(inference.model.map(|model| model.text(&body).into_owned()), value["model"].as_str().map(str::to_owned));
        prop_assert_eq!(inference.cache_salt.map(|salt| salt.text(&body).into_owned()), value["cache_salt"].as_str().map(str::to_owned));
        prop_assert_eq!(inference.stream, value["stream"] == true);
        prop_assert_eq!(inference.max_output_tokens, value["max_tokens"].as_u64());
        let text: String = inference.prompt.pieces.iter().map(|piece| match piece {
            Piece::Text(string) | Piece::Media(_, string) => string.text(&body).into_owned(),
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(text, text_of(&value));
    }

    #[test]
    fn damaged_bodies_never_panic(value in chat_body(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut body = serde_json::to_vec(&value).unwrap();
        for (index, byte) in damage {
            let index = index.index(body.len());
            body[index] = byte;
        }
        for kind in ParserKind::ALL {
            for (suffix, _) in kind.suffixes() {
                let inference = parse_path(kind, suffix, &body);
                prop_assert!(inference.is_err() || kind != ParserKind::OpenAi || serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok());
            }
        }
    }
}
