//! Requests against what Jinja2, transformers and the tokenizers library make of them; `data/make.py` says how.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends this way")]

use std::fs;
use std::path::{Path, PathBuf};

use pointsman_tokens::{Model, ModelLimits, ServerProfile, Stop, Unsupported};
use serde_json::Value;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn model_with(profile: ServerProfile) -> Model {
    Model::load(&data(), profile, ModelLimits::default()).expect("the model of the test data")
}

fn model(template: &str) -> Model {
    let template = fs::read_to_string(data().join(format!("templates/{template}.jinja"))).unwrap();
    model_with(ServerProfile { chat_template: Some(template), ..ServerProfile::default() })
}

fn expected(api: &str) -> Vec<Value> {
    let expected: Value = serde_json::from_slice(&fs::read(data().join("expected.json")).unwrap()).unwrap();
    expected[api].as_array().unwrap().clone()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn check_chats(api: &str, path: &str) {
    let models = ["words", "parts"].map(|name| (name, model(name)));
    let mut wrong = Vec::new();
    for case in expected(api) {
        let (_, model) = models.iter().find(|(name, _)| *name == case["template"]).unwrap();
        let body = case["body"].as_str().unwrap().as_bytes();
        // The second time all segments come from the cache.
        for _ in 0..2 {
            let made = model.prepare(path, body, Stop::NEVER).map(|prompts| prompts.ids);
            if made != Ok(vec![ids(&case["ids"])]) {
                wrong.push(format!(
                    "{}: {:?} for {:?}, not {made:?}",
                    case["name"], case["ids"], case["text"]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn chats_have_the_ids_of_the_server() {
    check_chats("chat", "/v1/chat/completions");
}

#[test]
fn anthropic_messages_have_the_ids_of_the_chat_that_the_server_makes_of_them() {
    check_chats("messages", "/v1/messages");
}

#[test]
fn completions_have_the_ids_of_the_server() {
    let model = model_with(ServerProfile::default());
    for case in expected("completions") {
        let prompts =
            model.prepare("/v1/completions", case["body"].as_str().unwrap().as_bytes(), Stop::NEVER);
        let wanted: Vec<Vec<u32>> = case["ids"].as_array().unwrap().iter().map(ids).collect();
        assert_eq!(prompts.map(|prompts| prompts.ids), Ok(wanted), "{}", case["name"]);
    }
}

/// Expectations are those of chats, which are tested by themselves: the server turns its items into one.
#[test]
fn responses_have_the_ids_of_the_chat_that_the_server_makes_of_them_and_special_tokens() {
    // Shows everything but the order of a call's fields, which is not that of chats.
    let template = "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ m.reasoning }}\
        {% for c in m.tool_calls or [] %}{{ c.id }}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}\
        {{ m.tool_call_id }}\n{% if not loop.last or add_generation_prompt %};{% endif %}{% endfor %}\
        {% if add_generation_prompt %}{{ tools | tojson }}{{ enable_thinking }}{{ reasoning_effort }}{% endif %}";
    let profile = ServerProfile { chat_template: Some(template.to_owned()), ..ServerProfile::default() };
    let model = model_with(profile);
    let same = |responses: &str, chat: &str| {
        let made = model.prepare("/v1/responses", responses.as_bytes(), Stop::NEVER);
        let chat = format!("{{\"add_special_tokens\":true,{chat}}}");
        let wanted = model.prepare("/v1/chat/completions", chat.as_bytes(), Stop::NEVER);
        assert!(wanted.is_ok(), "{chat}: {wanted:?}");
        assert_eq!(made, wanted, "{responses}");
    };
    same(r#"{"input":"hi"}"#, r#""messages":[{"role":"user","content":"hi"}]"#);
    same(
        r#"{"instructions":"s","store":true,"input":[
            {"type":"message","role":"user","content":[{"type":"input_text","text":"q"}]},
            {"type":"reasoning","id":"r","summary":[{"type":"summary_text","text":"t"}]},
            {"type":"message","role":"assistant","status":"completed","content":[
                {"type":"output_text","text":"x"},{"type":"output_text","text":"not this"}]},
            {"type":"function_call","call_id":"c1","name":"f","arguments":"{\"b\": 1, \"a\": 2}"},
            {"type":"function_call_output","call_id":"c1","output":"r"}],
            "reasoning":{"effort":"low"},
            "tools":[{"type":"web_search"},{"type":"function","name":"f","parameters":{"type":"object"},"strict":null}]}"#,
        r#""messages":[{"role":"system","content":"s"},{"role":"user","content":"q"},
            {"role":"assistant","content":"x","reasoning":"t","tool_calls":[
                {"id":"c1","type":"function","function":{"name":"f","arguments":"{\"b\": 1, \"a\": 2}"}}]},
            {"role":"tool","tool_call_id":"c1","content":"r"}],
            "reasoning_effort":"low",
            "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#,
    );
    same(
        r#"{"input":[{"role":"user","content":"q"},
            {"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},
            {"type":"function_call","call_id":"c2","name":"f","arguments":""}]}"#,
        r#""messages":[{"role":"user","content":"q"},
            {"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}},
                {"id":"c2","type":"function","function":{"name":"f","arguments":""}}]}]"#,
    );
    same(
        r#"{"input":[{"role":"user","content":"q"},
            {"type":"message","role":"assistant","status":"incomplete","content":[{"type":"output_text","text":"abc"}]}]}"#,
        r#""continue_final_message":true,"add_generation_prompt":false,
            "messages":[{"role":"user","content":"q"},{"role":"assistant","content":"abc"}]"#,
    );
    for (body, reason) in [
        (r#"{"input":"a","previous_response_id":"r"}"#, "field"),
        (r#"{"input":"a","prompt":{"id":"p"}}"#, "field"),
        (r#"{"input":[{"type":"item_reference","id":"x"}]}"#, "field"),
        (r#"{"input":[{"type":"reasoning","encrypted_content":"x","summary":[]}]}"#, "refused"),
        (r#"{"input":[{"type":"reasoning","status":"in_progress","summary":[{"text":"t"}]}]}"#, "field"),
        (r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}]}"#, "media"),
        (r#"{"input":[{"type":"function_call","call_id":"c","name":"f"}]}"#, "refused"),
        (r#"{"input":[{"type":"function_call_output","call_id":"c","output":[{}]}]}"#, "refused"),
        (r#"{"input":"a","tools":[{"type":"web_search"}]}"#, "field"),
        (r#"{"input":"a","truncation":"auto"}"#, "field"),
        (r#"{"input":"a","tools":[{"type":"namespace","name":"f"}]}"#, "field"),
        (r#"{"input":7}"#, "refused"),
        (r#"{"input":[]}"#, "refused"),
    ] {
        let made = model.prepare("/v1/responses", body.as_bytes(), Stop::NEVER).map_err(|why| why.reason());
        assert_eq!(made, Err(reason), "{body}");
    }
}

#[test]
fn a_sidecar_that_hands_ids_over_is_believed_unless_the_prompt_is_echoed() {
    let model = model("words");
    let body = |echo: bool| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"hi"}}],"echo":{echo},"prompt_logprobs":1,
            "kv_transfer_params":{{"prompt_token_ids":[5,6,7]}}}}"#
        )
    };
    let made = |echo| model.prepare("/v1/chat/completions", body(echo).as_bytes(), Stop::NEVER).unwrap();
    assert_eq!(made(false).ids, [[5, 6, 7]]);
    assert!(made(false).skips_cache);
    assert_ne!(made(true).ids, [[5, 6, 7]]);
}

#[test]
fn what_is_not_known_is_said_with_its_reason() {
    let model = model("words");
    let user = r#""messages":[{"role":"user","content":"hi"}]"#;
    let cases = [
        ("/v1/embeddings", r#"{"input":"a"}"#.to_owned(), "path"),
        ("/v1/chat/completions", format!("{{{user},\"temperature\":NaN}}"), "body"),
        ("/v1/chat/completions", r#"{"messages":[{"role":"user","content":"\ud800"}]}"#.to_owned(), "body"),
        ("/v1/chat/completions", format!("{{{user},\"tools\":[]}}"), "refused"),
        ("/v1/chat/completions", format!("{{{user},\"chat_template\":\"x\"}}"), "field"),
        (
            "/v1/chat/completions",
            format!("{{{user},\"chat_template_kwargs\":{{\"tokenize\":true}}}}"),
            "field",
        ),
        (
            "/v1/chat/completions",
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#
                .to_owned(),
            "media",
        ),
        ("/v1/chat/completions", r#"{"messages":[{"role":"user","content":null}]}"#.to_owned(), "refused"),
        ("/v1/chat/completions", r#"{"messages":[]}"#.to_owned(), "refused"),
        ("/v1/chat/completions", format!("{{{user},\"continue_final_message\":true}}"), "refused"),
        ("/v1/completions", r#"{"prompt":[1,99999999]}"#.to_owned(), "refused"),
        ("/v1/completions", r#"{"prompt":[-1]}"#.to_owned(), "refused"),
        ("/v1/completions", r#"{"prompt":[1,"a"]}"#.to_owned(), "refused"),
        ("/v1/completions", r#"{"prompt":"a","prompt_embeds":"x"}"#.to_owned(), "media"),
        (
            "/v1/messages",
            r#"{"messages":[{"role":"user","content":"a"}],"thinking":{"type":"disabled"}}"#.to_owned(),
            "field",
        ),
    ];
    for (path, body, reason) in cases {
        let made = model.prepare(path, body.as_bytes(), Stop::NEVER).map_err(|why| why.reason());
        assert_eq!(made, Err(reason), "{body}");
    }
    let plain = model_with(ServerProfile::default());
    assert_eq!(plain.without_chat(), Some("it has no chat template"));
    let made = plain.prepare("/v1/chat/completions", format!("{{{user}}}").as_bytes(), Stop::NEVER);
    assert_eq!(made, Err(Unsupported::NoTemplate));
}

#[test]
fn a_template_that_does_not_end_or_grows_without_end_costs_its_own_request() {
    let templates = [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='abcdefgh') %}{% for a in range(1000) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ 'x' * 1000000000000 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(100000) %}{{ messages | tojson }}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ eos + 'x' }}",
        "{{ messages[0].x.y }}",
    ];
    for template in templates {
        let profile = ServerProfile { chat_template: Some(template.to_owned()), ..ServerProfile::default() };
        let body = br#"{"messages":[{"role":"user","content":"hi"}]}"#;
        let made = model_with(profile).prepare("/v1/chat/completions", body, Stop::NEVER);
        let reason = made.map_err(|why| why.reason());
        assert!(matches!(reason, Err("template" | "too_large")), "{template}: {reason:?}");
    }
}

#[test]
fn work_that_nobody_waits_for_ends() {
    let flag = std::sync::atomic::AtomicBool::new(true);
    let stop = Stop::at(&flag);
    for (path, body) in [
        ("/v1/completions", r#"{"prompt":"a"}"#),
        ("/v1/chat/completions", r#"{"messages":[{"role":"user","content":"hi"}]}"#),
    ] {
        let made = model("words").prepare(path, body.as_bytes(), stop).map_err(|why| why.reason());
        assert_eq!(made, Err("stopped"));
    }
}

/// A copy of the test data in which some files are others.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(data().join(name), folder.path().join(name)).unwrap();
    }
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn a_model_that_cannot_be_matched_is_told_by_file_field_and_reason() {
    let qwen = r#"{"tokenizer_class":"Qwen2Tokenizer"}"#;
    assert!(
        Model::load(
            folder(&[("tokenizer_config.json", qwen)]).path(),
            ServerProfile::default(),
            ModelLimits::default()
        )
        .is_ok()
    );
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[("tokenizer.json", "{")], "tokenizer.json: (whole file): no JSON"),
        (&[("tokenizer.json", "{}")], "tokenizer.json: model.vocab: is missing"),
        (&[("tokenizer_config.json", "[]")], "tokenizer_config.json: (whole file): is no object"),
        (
            &[("tokenizer_config.json", r#"{"tokenizer_class":"GPT2Tokenizer"}"#)],
            "tokenizer.json: normalizer: is not what the class GPT2Tokenizer builds",
        ),
        (
            &[("tokenizer_config.json", r#"{"tokenizer_class":"LlamaTokenizerFast"}"#)],
            "tokenizer.json: pre_tokenizer: the class LlamaTokenizer builds a pipeline of its own",
        ),
        (
            &[("tokenizer_config.json", r#"{"tokenizer_class":"TokenizersBackend","bos_token":"<nope>"}"#)],
            "tokenizer.json: model.vocab: has no token \"<nope>\"",
        ),
        (
            &[("config.json", r#"{"architectures":["DeepseekV32ForCausalLM"]}"#)],
            "config.json: architectures: DeepseekV32ForCausalLM has a tokenizer of its own",
        ),
        (
            &[("params.json", "{}"), ("tekken.json", "{}")],
            "tekken.json: (whole file): makes the server use Mistral's",
        ),
        (
            &[("chat_template.jinja", "{% if %}")],
            "chat_template.jinja: (whole file): the template is not compiled",
        ),
    ];
    for (files, told) in cases {
        let folder = folder(files);
        let error = Model::load(folder.path(), ServerProfile::default(), ModelLimits::default()).err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with(told), "{error} begins with {told}");
    }
    let missing = tempfile::tempdir().unwrap();
    let error = Model::load(missing.path(), ServerProfile::default(), ModelLimits::default()).err().unwrap();
    assert_eq!((error.file.as_str(), error.reason.contains("is missing in")), ("tokenizer.json", true));
    let small = ModelLimits { file_bytes: 100, ..ModelLimits::default() };
    let error = Model::load(&data(), ServerProfile::default(), small).err().unwrap();
    assert!(error.reason.contains("more than 100 bytes"), "{error}");
}

#[test]
fn begin_and_end_stand_around_texts_where_the_configuration_says_so() {
    let config = |more: &str| {
        format!(
            r#"{{"tokenizer_class":"TokenizersBackend","bos_token":"<|begin|>","eos_token":{{"content":"<|im_end|>"}}{more}}}"#
        )
    };
    let framed = |more: &str| {
        let folder = folder(&[("tokenizer_config.json", &config(more))]);
        let model = Model::load(folder.path(), ServerProfile::default(), ModelLimits::default()).unwrap();
        let bare = model.encode("hi", false, Stop::NEVER).unwrap();
        let whole = model.encode("hi", true, Stop::NEVER).unwrap();
        let at = whole.windows(bare.len()).position(|window| window == bare).unwrap();
        (at, whole.len() - at - bare.len())
    };
    assert_eq!(framed(""), (1, 0), "the file's own");
    assert_eq!(framed(r#","add_bos_token":true,"add_eos_token":true"#), (1, 1));
    assert_eq!(framed(r#","add_eos_token":true"#), (0, 1));
    assert_eq!(framed(r#","add_bos_token":false"#), (0, 0));
}

proptest::proptest! {
    #[test]
    fn a_text_has_the_same_ids_in_segments_and_from_the_cache(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "<|im_start|>", "<|im_end|>", "<start>", "<end>", "<think>", "<call>", "user\n", " ", "\n\n", "e\u{301}",
            "<|im_", "start|>", "Hello world, this is a longer piece of text that fills segments. ", "'s", "12 345", "é",
        ]), 0..60),
    ) {
        use std::sync::LazyLock;
        static CACHED: LazyLock<Model> = LazyLock::new(|| model("words"));
        static BARE: LazyLock<Model> = LazyLock::new(|| {
            Model::load(&data(), ServerProfile::default(), ModelLimits { cache_bytes: 0, ..ModelLimits::default() }).unwrap()
        });
        let text = pieces.concat();
        let whole = BARE.encode_whole(&text).unwrap();
        for _ in 0..2 {
            proptest::prop_assert_eq!(&CACHED.encode(&text, false, Stop::NEVER).unwrap(), &whole);
        }
        proptest::prop_assert_eq!(&BARE.encode(&text, false, Stop::NEVER).unwrap(), &whole);
    }
}
