//! Anthropic bodies, through the parser's entrance.

use super::super::parse::parse as parse_path;
use super::super::paths::ParserKind;
use super::super::types::Piece;
use super::*;

fn parse_at(path: &str, body: &str) -> Result<Inference, ParseError> {
    parse_path(ParserKind::Anthropic, path, body.as_bytes())
}

fn pieces(body: &str) -> Vec<String> {
    let inference = parse_at("/v1/messages", body).unwrap_or_else(|error| panic!("{body}: {error}"));
    let piece = |piece: &Piece| match piece {
        Piece::Text(string) => string.text(body.as_bytes()).into_owned(),
        Piece::Json(range) => format!("<{}>", &body[range.start as usize..range.end as usize]),
        Piece::Media(MediaKind::Image, string) => format!("@{}", string.text(body.as_bytes())),
        other => panic!("{other:?}"),
    };
    inference.prompt.pieces.iter().map(piece).collect()
}

#[test]
fn a_prompt_is_tools_then_system_then_messages() {
    let body = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[
        {"role":"user","content":"hi"},
        {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"ok"},
            {"type":"tool_use","id":"t1","name":"f","input":{"a":[1]}}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"plain"},
            {"type":"tool_result","tool_use_id":"t2","content":[{"type":"text","text":"deep"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA"}}]},
            {"type":"image","source":{"type":"url","url":"http://i"}}]}],
        "system":[{"type":"text","text":"x-anthropic-billing-header: 1"},{"type":"text","text":"be brief"}],
        "tools":[{"name":"f"}]}"#;
    assert_eq!(
        pieces(body),
        [
            r#"<[{"name":"f"}]>"#,
            "be brief",
            "user",
            "hi",
            "assistant",
            "hm",
            "ok",
            "t1",
            "f",
            r#"<{"a":[1]}>"#,
            "user",
            "plain",
            "deep",
            "@AA",
            "@http://i"
        ]
    );
    let inference = parse_at("/v1/messages/", body).unwrap();
    assert_eq!(
        (inference.api, inference.stream, inference.max_output_tokens),
        (Api::Messages, true, Some(9))
    );
    assert!(inference.is_rewritable());
}

#[test]
fn a_system_prompt_may_be_a_string() {
    assert_eq!(pieces(r#"{"messages":[{"role":"u","content":null}],"system":"s"}"#), ["s", "u"]);
}

#[test]
fn counting_tokens_is_not_looked_into() {
    let inference = parse_at("/v1/messages/count_tokens", "no json").unwrap();
    assert_eq!(inference.api, Api::CountTokens);
    assert!(!inference.is_rewritable());
    assert!(inference.prompt.pieces.is_empty());
}

#[test]
fn what_is_not_understood_is_told_and_goes_on() {
    let empty = "invalid messages request: must have at least one message";
    for (body, expected) in [
        ("{}", empty),
        (r#"{"messages":[]}"#, empty),
        (r#"{"messages":null}"#, empty),
        (r#"{"messages":"x"}"#, "expected an array of messages at byte 12"),
        (
            r#"{"messages":[{"content":7}]}"#,
            "expected content to be a string or an array of blocks at byte 24",
        ),
        (r#"{"messages":[{"role":"u"}],"system":["x"]}"#, "expected a content block at byte 37"),
    ] {
        assert_eq!(parse_at("/v1/messages", body).unwrap().unread.unwrap().to_string(), expected, "{body}");
    }
}

#[test]
fn refusals_have_the_references_words() {
    for (path, body, expected) in [
        ("/v1/messages", "{", "error unmarshaling request body: unexpected end at byte 1"),
        ("/v1/complete", "{}", "unsupported API endpoint: /v1/complete"),
    ] {
        assert_eq!(parse_at(path, body).unwrap_err().to_string(), expected, "{body}");
    }
}

#[test]
fn results_within_results_end_the_descent() {
    let deep = r#"[{"type":"tool_result","content":"#.repeat(50_000);
    let body = format!(r#"{{"messages":[{{"role":"user","content":{deep}"#);
    let message = parse_at("/v1/messages", &body).unwrap_err().to_string();
    assert!(message.contains("exceeded max depth"), "{message}");
    assert_eq!(
        pieces(
            r#"{"messages":[{"content":[{"content":[{"content":[{"text":"too deep"}],"text":"seen"}]}]}]}"#
        ),
        ["seen"]
    );
}
