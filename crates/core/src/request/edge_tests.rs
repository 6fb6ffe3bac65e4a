//! Bodies at the edges of what clients send, where readers of JSON and pickers differ: each with what is read of it.

use super::*;

/// What reading makes of a body: the reason why a part was not understood, and its pieces in a short notation.
fn read_as(path: &str, body: &str) -> String {
    let bytes = body.as_bytes();
    let kind = Parsers::default().resolve(path).unwrap();
    let inference = match read(kind, path, b"application/json", bytes) {
        Ok(inference) => inference,
        Err(error) => return format!("refused: {error}"),
    };
    let piece = |piece: &Piece| match piece {
        Piece::Text(string) => string.text(bytes).into_owned(),
        Piece::Json(range) => body[range.start as usize..range.end as usize].to_owned(),
        Piece::Tokens(range) => format!("#{:?}", token_ids(bytes, range.clone()).collect::<Vec<_>>()),
        Piece::Media(kind, string) => format!("@{} {}", kind.label(), string.text(bytes)),
        Piece::NextPrompt => "|".to_owned(),
        Piece::PackedTokens(_) => panic!("no JSON has packed numbers"),
    };
    let unread = inference.unread.map(|unread| format!("unread {}: ", unread.label())).unwrap_or_default();
    let pieces: Vec<String> = inference.prompt.pieces.iter().map(piece).collect();
    format!("{unread}{}", pieces.join(" "))
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const EMBEDDINGS: &str = "/v1/embeddings";
const GENERATE: &str = "/inference/v1/generate";
const IMAGES: &str = "/v1/images/generations";
const MESSAGES: &str = "/v1/messages";

/// What the case shows, the path, the body, and what is read.
type Case<'a> = (&'a str, &'a str, &'a str, &'a str);

fn check(cases: &[Case<'_>]) {
    for (what, path, body, expected) in cases {
        assert_eq!(read_as(path, body), *expected, "{what}: {path} {body}");
    }
}

#[test]
fn fields_of_any_type_that_nothing_reads_leave_the_prompt_as_it_is() {
    check(&[
        ("n and size of images", IMAGES, r#"{"prompt":"x","n":"two","size":7}"#, ""),
        ("a salt that is a number", COMPLETIONS, r#"{"prompt":"x","cache_salt":7}"#, "x"),
        (
            "documents that are a text",
            CHAT,
            r#"{"messages":[{"role":"u","content":"x"}],"documents":"d"}"#,
            "u x",
        ),
        (
            "a template that is a list, a switch that is a text",
            CHAT,
            r#"{"messages":[{"role":"u","content":"x"}],"chat_template":[],"chat_template_kwargs":7,"add_generation_prompt":"y"}"#,
            "u x",
        ),
        (
            "calls that are a text",
            CHAT,
            r#"{"messages":[{"role":"u","content":"x","tool_calls":"c"}]}"#,
            "u x",
        ),
        ("a part whose type is a number", CHAT, r#"{"messages":[{"content":[{"type":7,"text":"x"}]}]}"#, "x"),
        ("metadata that is a list", COMPLETIONS, r#"{"prompt":"x","metadata":[1]}"#, "x"),
        ("features that are a text", GENERATE, r#"{"token_ids":[1],"features":"f"}"#, "#[1]"),
        ("an id that is an object", MESSAGES, r#"{"messages":[{"role":"u","content":"x","id":{}}]}"#, "u x"),
    ]);
}

#[test]
fn names_count_in_their_own_letter_case_and_the_last_of_equal_names_counts() {
    check(&[
        ("a capital", CHAT, r#"{"Messages":[{"role":"u","content":"x"}]}"#, "unread missing: "),
        ("a long s", CHAT, "{\"me\u{17f}sages\":[{\"role\":\"u\",\"content\":\"x\"}]}", "unread missing: "),
        ("an ill-typed one first", COMPLETIONS, r#"{"prompt":7,"prompt":"x"}"#, "x"),
        ("an ill-typed one last", COMPLETIONS, r#"{"prompt":"x","prompt":7}"#, "unread shape: 7"),
    ]);
}

#[test]
fn numbers_beyond_a_double_pass_in_fields_that_nothing_reads() {
    check(&[
        ("at the top", COMPLETIONS, r#"{"prompt":"x","seed":1e400}"#, "x"),
        ("inside", CHAT, r#"{"messages":[{"role":"u","content":"x","weight":-1e999}]}"#, "u x"),
        ("as a cap", COMPLETIONS, r#"{"prompt":"x","max_tokens":1e400}"#, "x"),
    ]);
}

#[test]
fn what_is_in_a_part_counts_whatever_its_type_says() {
    let chat = |parts: &str| format!(r#"{{"messages":[{{"content":[{parts}]}}]}}"#);
    for (what, parts, expected) in [
        ("no type", r#"{"text":"x"}"#, "x"),
        ("another type", r#"{"type":"image_url","text":"x"}"#, "x"),
        ("a bare string", r#""x""#, "x"),
        ("a bare string as a picture", r#"{"type":"image_url","image_url":"u"}"#, "@image u"),
        ("sound behind a link", r#"{"type":"audio_url","audio_url":{"url":"u"}}"#, "@audio u"),
        (
            "sound without its format",
            r#"{"type":"input_audio","input_audio":{"data":"AA","format":"wav"}}"#,
            "@audio AA",
        ),
    ] {
        assert_eq!(read_as(CHAT, &chat(parts)), expected, "{what}");
    }
    let messages = |blocks: &str| format!(r#"{{"messages":[{{"content":[{blocks}]}}]}}"#);
    for (what, blocks, expected) in [
        ("a block of an unknown type", r#"{"type":"novel","text":"x"}"#, "x"),
        ("a file by its id", r#"{"type":"image","source":{"type":"file","file_id":"f"}}"#, "@image f"),
        (
            "texts and pictures of a result, in order",
            r#"{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"a"},{"type":"image","source":{"type":"url","url":"u"}},{"type":"text","text":"b"}]}"#,
            "a @image u b",
        ),
    ] {
        let found = read_as(MESSAGES, &messages(blocks));
        assert!(found.ends_with(expected), "{what}: {found}");
    }
}

#[test]
fn a_list_of_texts_to_embed_is_a_prompt_for_each() {
    check(&[
        ("one text", EMBEDDINGS, r#"{"input":"x"}"#, "x"),
        ("a list of one", EMBEDDINGS, r#"{"input":["x"]}"#, "x"),
        ("a list of two", EMBEDDINGS, r#"{"input":["x","y"]}"#, "x | y"),
    ]);
}

#[test]
fn nothing_in_place_of_a_message_a_part_or_a_token_leaves_the_rest() {
    check(&[
        ("a message", CHAT, r#"{"messages":[null,{"role":"u","content":"x"}]}"#, "unread shape: null u x"),
        (
            "a part",
            CHAT,
            r#"{"messages":[{"content":[null,{"type":"text","text":"x"}]}]}"#,
            "unread shape: null x",
        ),
    ]);
    for body in [r#"{"messages":[null]}"#, r#"{"messages":[{"content":[null]}]}"#] {
        assert!(read_as(CHAT, body).starts_with("unread shape"), "{body}");
    }
    assert!(read_as(GENERATE, r#"{"token_ids":[null]}"#).starts_with("unread shape"));
}

#[test]
fn what_is_no_object_goes_on_and_what_is_no_json_is_refused_with_the_references_words() {
    for path in [CHAT, COMPLETIONS, EMBEDDINGS, GENERATE, MESSAGES] {
        assert!(read_as(path, "null").starts_with("unread"), "{path}: {}", read_as(path, "null"));
        let refusal = read_as(path, "{\"model\":\"m\",");
        assert!(refusal.starts_with("refused: "), "{path}: {refusal}");
        assert!(refusal.contains("error unmarshaling request body"), "{path}: {refusal}");
    }
}

#[test]
fn bytes_of_a_model_name_that_are_no_utf8_become_one_sign_a_sequence() {
    for (bytes, name) in [
        (&b"a\xe2\x82b"[..], "a\u{fffd}b"),
        (b"a\xffb", "a\u{fffd}b"),
        (b"\xf0\x9f\x98", "\u{fffd}"),
        ("mödel".as_bytes(), "mödel"),
    ] {
        let body = [&br#"{"model":""#[..], bytes, br#"","prompt":"x"}"#].concat();
        let kind = Parsers::default().resolve(COMPLETIONS).unwrap();
        let inference = read(kind, COMPLETIONS, b"application/json", &body).unwrap();
        assert_eq!(inference.model_name(&body).as_deref(), Some(name));
    }
}
