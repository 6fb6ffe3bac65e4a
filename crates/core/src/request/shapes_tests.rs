//! Shapes that model servers take, path by path.

use serde_json::{Value, json};

use super::*;

/// What reading makes of a body: the reason why a part was not understood, and the texts of its prompt.
fn read_shape(parsers: &Parsers, path: &str, body: &Value) -> (Option<&'static str>, String) {
    let text = body.to_string();
    let kind = parsers.resolve(path).unwrap();
    let inference = read(kind, path, b"application/json", text.as_bytes())
        .unwrap_or_else(|error| panic!("{path} {body}: {error}"));
    let model = (kind != ParserKind::SglangHttp).then_some("m");
    assert_eq!(inference.model_name(text.as_bytes()).as_deref(), model, "{path} {body}");
    let pieces = inference.prompt.pieces.iter();
    let prompt = pieces.map(|piece| match piece {
        Piece::Text(text_piece) => text_piece.text(text.as_bytes()).into_owned(),
        Piece::Json(range) | Piece::Tokens(range) => {
            text[range.start as usize..range.end as usize].to_owned()
        }
        Piece::Media(..) => "<media>".to_owned(),
        Piece::NextPrompt => "|".to_owned(),
        Piece::PackedTokens(_) => panic!("no JSON has packed numbers"),
    });
    (inference.unread.map(Unread::label), prompt.collect::<Vec<_>>().join(" "))
}

/// Each shape with what of it is not understood, and with a part of its prompt.
type Shapes<'a> = &'a [(Value, Option<&'a str>, &'a str)];

fn check(path: &str, shapes: Shapes<'_>) {
    check_with(&Parsers::default(), path, shapes);
}

fn check_with(parsers: &Parsers, path: &str, shapes: Shapes<'_>) {
    for (shape, unread, part) in shapes {
        let mut body = shape.clone();
        body["model"] = json!("m");
        let (found, prompt) = read_shape(parsers, path, &body);
        assert_eq!(found, *unread, "{path} {body}: {prompt}");
        assert!(prompt.contains(part), "{path} {body}: {prompt}");
    }
}

#[test]
fn embeddings_take_texts_tokens_messages_and_objects() {
    check(
        "/v1/embeddings",
        &[
            (json!({"input": "hello"}), None, "hello"),
            (json!({"input": ["hello", "you"]}), None, "you"),
            (json!({"input": [1, 2, 3]}), None, "[1,2,3]"),
            (json!({"input": [[1, 2], [3]]}), None, "[3]"),
            (json!({"input": [{"text": "hello"}, {"image": "data:x"}]}), None, "hello"),
            (json!({"input": {"content": [{"type": "text", "text": "hello"}]}}), None, "hello"),
            (json!({"input": [{"content": [{"type": "text", "text": "hello"}]}]}), None, "hello"),
            (json!({"input": [{"role": "user", "content": "hello"}]}), None, "hello"),
            (
                json!({"input": [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": "u"}}]}),
                None,
                "hello",
            ),
            (json!({"messages": [{"role": "user", "content": "hello"}]}), None, "hello"),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}, {"type": "text", "text": "hello"}]}], "encoding_format": "base64"}),
                None,
                "hello",
            ),
            (json!({"input": null, "messages": [{"role": "user", "content": "hello"}]}), None, "hello"),
            (json!({"input": [], "messages": [{"role": "user", "content": "hello"}]}), None, "hello"),
            (json!({"input_ids": [[1], [2]], "dimensions": null, "truncate_prompt_tokens": -1}), None, "[2]"),
            (json!({"input": [1.5]}), Some("shape"), "1.5"),
            (json!({"input": 7, "priority": 1.0}), Some("shape"), "7"),
            (json!({"encoding_format": "float"}), Some("missing"), ""),
        ],
    );
}

#[test]
fn completions_take_texts_tokens_embeddings_and_mixtures() {
    check(
        "/v1/completions",
        &[
            (json!({"prompt": "hello"}), None, "hello"),
            (json!({"prompt": ["a", "hello"]}), None, "hello"),
            (json!({"prompt": [1, 2]}), None, "[1,2]"),
            (json!({"prompt": [[1, 2], [3]]}), None, "[3]"),
            (json!({"prompt_embeds": "AAAA"}), None, "AAAA"),
            (json!({"prompt": "", "prompt_embeds": ["AAAA"]}), None, ""),
            (json!({"prompt": [], "prompt_embeds": ["AAAA"]}), None, "AAAA"),
            (json!({"prompt": null, "prompt_embeds": "AAAA"}), None, "AAAA"),
            (json!({"prompt": {"prompt_token_ids": [1, 2]}}), Some("shape"), ""),
            (json!({"prompt": [1.0, 2e0, 300]}), None, "300"),
            (json!({"prompt": [1.5]}), Some("shape"), "1.5"),
            (json!({"prompt": [-1]}), Some("shape"), "-1"),
            (json!({"prompt": [4_294_967_296_u64]}), Some("shape"), "4294967296"),
            (json!({"prompt": ["hello", [1]]}), Some("shape"), "hello"),
            (json!({"prompt": [[1], "hello"]}), Some("shape"), "hello"),
            (json!({"prompt": [null, "hello"]}), Some("shape"), "hello"),
            (json!({"prompt": [[], [7]]}), None, "[7]"),
            (json!({"prompt": ["", "hello"]}), None, "hello"),
            (json!({"prompt": true}), Some("shape"), "true"),
            (json!({"prompt": 7}), Some("shape"), "7"),
            (json!({"prompt": []}), Some("missing"), ""),
            (
                json!({"prompt": "hello", "max_tokens": 1.6e1, "n": 2.0, "logprobs": null, "guided_json": {}}),
                None,
                "hello",
            ),
            (
                json!({"prompt": "hello", "stop": ["a"], "logit_bias": {"1": 2}, "suffix": null, "echo": true, "stream_options": {}}),
                None,
                "hello",
            ),
        ],
    );
}

#[test]
fn chats_take_every_role_and_part() {
    let url = json!({"url": "u"});
    let parts = json!([
        {"type": "text", "text": "hello"}, {"type": "image_url", "image_url": url}, {"type": "image_url", "image_url": "u"},
        {"type": "audio_url", "audio_url": url}, {"type": "video_url", "video_url": url},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, {"type": "image_embeds", "image_embeds": "AA"},
        {"type": "image_embeds", "image_embeds": {"a": "AA"}}, {"type": "audio_embeds", "audio_embeds": "AA"},
        {"type": "image_pil", "image_pil": null}, {"type": "input_image", "image_url": "u"}, {"type": "refusal", "refusal": "no"},
        {"type": "thinking", "thinking": "hm"}, {"type": "file", "file": {"file_id": "f"}}, {"image": "u"}, {"image_url": "u", "uuid": "1"},
        {"type": "image_url", "image_url": null, "uuid": "1"}, {"type": "tool_reference", "name": "x"}, {"text": "you"}, "bare",
    ]);
    check(
        "/v1/chat/completions",
        &[
            (json!({"messages": [{"role": "user", "content": "hello"}]}), None, "hello"),
            (
                json!({"messages": [{"role": "system", "content": [{"type": "text", "text": "hello"}]}, {"role": "developer", "content": "x"}]}),
                None,
                "hello",
            ),
            (json!({"messages": [{"role": "user", "content": parts}]}), None, "hello"),
            (
                json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}], "reasoning_content": "r", "reasoning": "r"}, {"role": "tool", "tool_call_id": "c", "content": "hello"}]}),
                None,
                "hello",
            ),
            (
                json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, {"role": "tool", "content": [{"type": "text", "text": "hello"}]}]}),
                None,
                "hello",
            ),
            (
                json!({"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}, {"role": "function", "name": "f", "content": "hello"}]}),
                None,
                "hello",
            ),
            (
                json!({"messages": [{"role": "assistant", "content": "", "audio": {"id": "a"}, "refusal": null, "tool_calls": null}, {"role": "user", "content": "hello"}]}),
                None,
                "hello",
            ),
            (
                json!({"messages": [{"role": "user", "content": "hello"}], "tools": null, "tool_choice": "auto"}),
                None,
                "hello",
            ),
            (
                json!({"messages": [{"role": "user", "content": "hello"}], "tools": {"type": "function"}}),
                None,
                "hello",
            ),
        ],
    );
}

#[test]
fn chats_take_odd_fields_and_of_odd_messages_the_rest() {
    check(
        "/v1/chat/completions",
        &[
            (json!({"messages": "hello"}), Some("shape"), "hello"),
            (json!({"messages": {"role": "user", "content": "hello"}}), Some("shape"), "hello"),
            (
                json!({"messages": [{"role": "user", "content": 7}, {"role": "user", "content": "hello"}]}),
                Some("shape"),
                "hello",
            ),
            (json!({"prompt_token_ids": [1, 2]}), None, "[1,2]"),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "text", "text": {"value": "hello"}}]}]}),
                Some("shape"),
                "",
            ),
            (
                json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": null, "stream": null, "stream_options": null, "n": 1.0, "temperature": 1, "cache_salt": null}),
                None,
                "hello",
            ),
            (
                json!({"messages": [{"role": "user", "content": "hello", "name": null}], "max_tokens": "9", "stream": "true", "seed": -1e300, "user": {}, "cache_salt": 7}),
                None,
                "hello",
            ),
            (
                json!({"messages": [{"role": "user", "content": "hello"}, null, [], "x"]}),
                Some("shape"),
                "hello",
            ),
            (json!({"messages": [{"role": null, "content": "hello"}, {}]}), None, "hello"),
            (
                json!({"messages": [{"role": "user", "content": "hello"}], "mm_processor_kwargs": {"a": [{}]}, "chat_template_kwargs": {"enable_thinking": false}, "documents": [{"text": "x"}], "vllm_xargs": {"a": 1}, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}, "kv_transfer_params": {"do_remote_decode": true}, "lora_path": ["a"], "rid": ["r"], "disaggregated_params": {"ctx_request_id": 1}}),
                None,
                "hello",
            ),
            (json!({"messages": [], "input_ids": [[1, 2], [3]]}), None, "[3]"),
            (json!({"messages": []}), Some("missing"), ""),
        ],
    );
}

#[test]
fn responses_take_every_kind_of_item() {
    let items = json!([
        {"role": "user", "content": "hello"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": []}], "status": "completed", "id": "m"},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "s"}], "content": [{"type": "reasoning_text", "text": "t"}], "encrypted_content": null},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "o"}]},
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}, {"type": "item_reference", "id": "i"},
        {"type": "web_search_call", "id": "w", "action": {}}, {"type": "mcp_list_tools", "tools": []}, {"type": "compaction", "id": "z"},
        "text", null, 7,
    ]);
    check(
        "/v1/responses",
        &[
            (json!({"input": "hello"}), None, "hello"),
            (
                json!({"input": items, "instructions": "be kind", "tools": [{"type": "web_search"}]}),
                None,
                "be kind",
            ),
            (json!({"input": items}), None, "hello"),
            (json!({"input": {"role": "user", "content": "hello"}}), None, "hello"),
            (json!({"input": "hello", "instructions": [{"role": "system", "content": "x"}]}), None, "hello"),
            (json!({"input": null, "prompt": {"id": "p", "variables": {"a": "hello"}}}), None, "hello"),
            (json!({"previous_response_id": "r"}), Some("missing"), ""),
            (json!({"previous_input_messages": [{"role": "user", "content": "hello"}]}), None, "hello"),
            (
                json!({"input": "hello", "tools": null, "instructions": null, "max_output_tokens": null, "conversation": null, "previous_response_id": 7, "stream": 0, "reasoning": {"effort": null}}),
                None,
                "hello",
            ),
            (
                json!({"input": [[{"role": "user", "content": "hello"}]], "text": {"format": {}}}),
                None,
                "hello",
            ),
            (json!({"input": 7}), None, "7"),
        ],
    );
}

#[test]
fn anthropic_messages_take_every_kind_of_block() {
    let source = json!({"type": "base64", "media_type": "image/png", "data": "AAAA"});
    let blocks = json!([
        {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}, "citations": null},
        {"type": "image", "source": source}, {"type": "image", "source": {"type": "url", "url": "u"}}, {"type": "image", "source": {"type": "file", "file_id": "f"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "doc"}, "title": "t", "context": "c"},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "doc"}]}},
        {"type": "search_result", "source": "u", "title": "t", "content": [{"type": "text", "text": "x"}]},
        {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "AA"},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}},
        {"type": "tool_result", "tool_use_id": "c", "content": "x", "is_error": false}, {"type": "tool_result", "tool_use_id": "c"},
        {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "x"}, {"type": "image", "source": source}, {"type": "tool_reference", "tool_name": "f"}, {"type": "search_result", "content": [{"type": "text", "text": "x"}]}]},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "e", "page_age": null}]},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": {"type": "web_search_tool_result_error", "error_code": "x"}},
        {"type": "code_execution_tool_result", "tool_use_id": "s", "content": {"type": "code_execution_result", "stdout": "o", "content": []}},
        {"type": "mcp_tool_use", "id": "s", "name": "f", "server_name": "n", "input": {}}, {"type": "mcp_tool_result", "tool_use_id": "s", "content": [{"type": "text", "text": "x"}]},
        {"type": "container_upload", "file_id": "f"},
    ]);
    for path in ["/v1/messages", "/anthropic/v1/messages"] {
        check(
            path,
            &[
                (json!({"max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}), None, "hello"),
                (
                    json!({"messages": [{"role": "user", "content": "x"}], "system": [{"type": "text", "text": "hello", "cache_control": {}}]}),
                    None,
                    "hello",
                ),
                (
                    json!({"messages": [{"role": "user", "content": "hello"}], "system": null, "tools": [], "thinking": {"type": "enabled"}}),
                    None,
                    "hello",
                ),
                (json!({"messages": [{"role": "user", "content": blocks}]}), None, "hello"),
                (
                    json!({"messages": [{"role": "user", "content": {"type": "text", "text": "hello"}}]}),
                    Some("shape"),
                    "hello",
                ),
                (json!({"messages": []}), Some("missing"), ""),
            ],
        );
    }
    check(
        "/v1/messages/count_tokens",
        &[(json!({"messages": [{"role": "user", "content": blocks}]}), None, "")],
    );
}

#[test]
fn prompts_of_token_ids_come_in_two_spellings_of_numbers() {
    check(
        "/inference/v1/generate",
        &[
            (json!({"token_ids": [1, 2], "sampling_params": {"max_tokens": 5}}), None, "[1,2]"),
            (json!({"token_ids": [1.0, 2e0], "sampling_params": null, "features": null}), None, "[1.0,2.0]"),
            (json!({"token_ids": [], "features": {"mm_hashes": {"image": ["a"]}}}), Some("missing"), ""),
            (json!({"token_ids": "x", "stream": null}), Some("shape"), "x"),
            (json!({"token_ids": [[1]]}), Some("shape"), "[[1]]"),
            (json!({"request_id": 7}), Some("missing"), ""),
        ],
    );
}

#[test]
fn sglangs_own_path_takes_one_prompt_or_several_in_three_forms() {
    check_with(
        &Parsers::new([ParserKind::SglangHttp]),
        "/generate",
        &[
            (json!({"text": "hello", "sampling_params": {"max_new_tokens": 5}}), None, "hello"),
            (json!({"text": ["a", "hello"], "sampling_params": [{"max_new_tokens": 5}, {}]}), None, "hello"),
            (json!({"input_ids": [1, 2], "image_data": "u", "rid": ["a"]}), None, "[1,2]"),
            (json!({"input_ids": [[1, 2], [3]], "text": null, "extra_key": ["k"]}), None, "[3]"),
            (json!({"input_ids": null, "text": "hello"}), None, "hello"),
            (json!({"input_embeds": [[0.5, 1.0]]}), None, "[[0.5,1.0]]"),
            (json!({"text": "", "input_embeds": [[[0.5]]]}), None, "0.5"),
            (json!({"text": 7}), Some("missing"), ""),
            (json!({"input_ids": ["a"], "stream": 1}), None, "a"),
            (json!({"input_ids": [1.5]}), Some("shape"), "1.5"),
        ],
    );
}

#[test]
fn a_body_of_several_documents_is_told_apart_from_one() {
    let texts = [
        r#"{"model":"m","prompt":"a"}{"model":"n","prompt":"b"}"#,
        "{\"model\":\"m\",\"prompt\":\"a\"}\n{\"model\":\"n\",\"prompt\":\"b\"}\n",
        r#"{"model":"m","prompt":"a"}, {"model":"n"}"#,
        r#"[{"model":"m"}] {"model":"n"}"#,
    ];
    for text in texts {
        for content_type in [&b"application/json"[..], b"application/x-ndjson", b"application/jsonl", b""] {
            let completions = read(ParserKind::OpenAi, "/v1/completions", content_type, text.as_bytes());
            let told = completions.unwrap_err().to_string();
            assert!(told.starts_with("error unmarshaling request bodyMap: "), "{text}: {told}");
            let other = read(ParserKind::Passthrough, "/v1/batches", content_type, text.as_bytes()).unwrap();
            assert!(other.model.is_none() && !other.is_rewritable(), "{text}");
        }
    }
}

#[test]
fn json_in_wide_units_goes_on_from_every_path_and_no_model_is_taken_from_it() {
    let text = r#"{"model":"m","prompt":"a","messages":[],"input":"x"}"#;
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [&b"\xff\xfe"[..], &wide].concat();
    let cut = &wide[..wide.len() - 1];
    for path in ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"]
    {
        let kind = Parsers::default().resolve(path).unwrap();
        for body in [&wide, &marked] {
            let inference = read(kind, path, b"application/json; charset=utf-16", body).unwrap();
            assert_eq!(inference.unread.map(Unread::label), Some("charset"), "{path}");
            assert!(inference.model.is_none() && !inference.is_rewritable(), "{path}");
        }
        read(kind, path, b"application/json", cut).unwrap_err();
    }
    for path in ["/rerank", "/tokenize", "/v1/messages/count_tokens"] {
        let kind = Parsers::default().resolve(path).unwrap();
        let inference = read(kind, path, b"application/json", &wide).unwrap();
        assert_eq!(inference.unread.map(Unread::label), Some("charset"), "{path}");
    }
}

#[test]
fn of_every_other_path_the_model_is_read_whatever_the_body_holds() {
    for path in [
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
        "/score",
        "/v1/score",
        "/classify",
        "/v1/classify",
        "/pooling",
        "/tokenize",
        "/detokenize",
        "/v1/audio/speech",
        "/v1/moderations",
        "/generate",
        "/encode",
        "/v1/videos",
        "/invocations",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/images/edits",
        "/v1/messages/count_tokens",
        "/v1/load_lora_adapter",
        "/v1/batches",
        "/api/generate",
    ] {
        for shape in [
            json!({"query": "q", "documents": ["a", {"text": "b"}, {"content": [{"type": "image_url", "image_url": {"url": "u"}}]}]}),
            json!({"query": {"content": []}, "documents": {"content": [{"type": "text", "text": "b"}]}, "top_n": null}),
            json!({"text_1": "a", "text_2": ["b"]}),
            json!({"text_1": ["a"], "text_2": {"content": []}}),
            json!({"text_1": {"content": []}, "text_2": [1]}),
            json!({"data_1": "a", "data_2": [[1, 2]]}),
            json!({"queries": ["a"], "items": [[1]]}),
            json!({"input": [[1, 2]]}),
            json!({"data": {"a": [1]}, "task": "x"}),
            json!({"prompt": "x", "add_special_tokens": false}),
            json!({"messages": [null], "tools": 7}),
            json!({"tokens": [1]}),
            json!({"stream": "no", "conversation": 7, "previous_response_id": []}),
        ] {
            check(path, &[(shape, None, "")]);
        }
    }
}
