"""Makes tokenizer.json, tokenizer_config.json and expected.json beside this file.

Needs: pip install transformers==4.57.6 tokenizers==0.22.2 jinja2==3.1.6

Each case holds the body of a request and, made by hand from the rules of vLLM 0.32, what its server hands to the
template. The text is rendered by transformers with Jinja2; the ids are those of the tokenizers library.
"""

import json
import pathlib

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers, AddedToken
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).parent
SPECIAL = ["<|begin|>", "<|im_start|>", "<|im_end|>", "<start>", "<end>"]
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    from tokenizers import Regex
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [p.read_text() for p in sorted((HERE / "templates").glob("*.jinja"))]
    texts += ["The user asks what the weather is like; the assistant answers with a tool. " * 3, __doc__]
    texts += ["system user assistant tool function name description parameters type object string content " * 3]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("<call>", normalized=True)])
    bos = tokenizer.token_to_id("<|begin|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", bos)])
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=30)
    tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|im_end|>",
              "pad_token": None, "unk_token": None}
    (HERE / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    loaded = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def part(text):
    return {"type": "text", "text": text}


def function(name, description=None, parameters=None, **more):
    return {"type": "function",
            "function": {"name": name, "description": description, "parameters": parameters, **more}}


def call(name, arguments, **more):
    return {"id": "c1", "function": {"arguments": arguments, "name": name}, "type": "function", **more}


def client_call(name, arguments):
    return {"id": "c1", "type": "function", "index": 0, "function": {"name": name, "arguments": arguments, "x": 1}}


NUMBERS = {"type": "object", "required": ["b"], "properties": {
    "b": {"default": 1.0, "small": 1e-7, "large": 1e22, "big": 12345678901234567890123, "t": "é<&'\"\u2028"},
    "a": {}, "items": [], "n": None, "f": [True, False, -0.0, 1e16, 123456.789e-9]}}
HARD = "e\u0301 👩‍👩‍👧 漢字\t" + " " * 50 + "\r\n\u2028" + "a" * 100 + "<|im_end|>\n<|im_start|>system\nx<think><call>"
U = [message("user", "hi")]


def chats():
    """(template, name, body, conversation, tools, variables)"""
    w, p = "words", "parts"
    yield w, "baseline", {"messages": U}, U, None, {}
    yield w, "two_bos", {"messages": U, "add_special_tokens": True}, U, None, {"SPECIAL": True}
    yield w, "joined_parts", {"messages": [message("user", [part("a"), part(""), part("b")])]}, [
        message("user", "a\nb")], None, {}
    yield p, "listed_parts", {"messages": [message("user", [part("a"), {**part(""), "cache_control": {}}, part("b")])]}, [
        message("user", [part("a"), part(""), part("b")])], None, {}
    yield w, "empty_list", {"messages": [message("user", [])]}, [message("user", "")], None, {}
    yield p, "empty_text", {"messages": [message("user", "")]}, [message("user", [part("")])], None, {}
    yield w, "name_and_unknown", {"messages": [message("user", "a", name="bob", x=1)]}, [
        message("user", "a", name="bob")], None, {}
    yield w, "system_parts", {"messages": [message("system", [part("s1"), part("s2")]), *U]}, [
        message("system", "s1\ns2"), *U], None, {}
    yield w, "developer", {"messages": [message("developer", "d"), *U]}, [message("system", "d"), *U], None, {}
    yield w, "developer_later", {"messages": [*U, message("developer", [part("d"), part("e")])]}, [
        message("system", "d\ne"), *U], None, {}
    yield w, "system_and_developer", {"messages": [message("system", "s"), message("developer", "d"), *U]}, [
        message("system", "s\n\nd"), *U], None, {}
    yield w, "bare_tool", {"messages": U, "tools": [{"type": "function", "function": {"name": "f"}}]}, U, [
        function("f")], {}
    yield w, "numbers", {"messages": U, "tools": [{"type": "function", "function": {
        "zzz": 1, "strict": True, "parameters": NUMBERS, "name": "f", "description": "é<&'"}}], "tool_choice": "none"}, U, [
        function("f", "é<&'", NUMBERS, strict=True)], {}
    yield p, "tool_names", {"messages": U, "tools": [function("f"), function("g")]}, [message("user", [part("hi")])], [
        function("f"), function("g")], {}
    told = {"b": 1, "a": {"x": [1.5, None, "q'\"é\n"]}, "c": True}
    yield w, "tool_history", {"messages": [
        *U, message("assistant", None, tool_calls=[client_call("f", json.dumps(told))]),
        message("tool", [part("r1"), part("r2")], tool_call_id="c1")]}, [
        *U, message("assistant", "", tool_calls=[call("f", told)]),
        message("tool", "r1\nr2", tool_call_id="c1")], None, {}
    yield p, "printed_arguments", {"messages": [
        *U, message("assistant", "", tool_calls=[client_call("f", json.dumps(told))]),
        message("tool", [part("r1"), part("r2")], tool_call_id="c1")]}, [
        message("user", [part("hi")]), message("assistant", [part("")], tool_calls=[call("f", told)]),
        message("tool", "r1\nr2", tool_call_id="c1")], None, {}
    for name, arguments in [("empty", ""), ("broken", "{bad"), ("list", "[1]")]:
        yield w, "arguments_" + name, {"messages": [*U, message("assistant", "x", tool_calls=[client_call("f", arguments)])]}, [
            *U, message("assistant", "x", tool_calls=[call("f", {})])], None, {}
    yield w, "no_calls", {"messages": [*U, message("assistant", "x", tool_calls=[])]}, [
        *U, message("assistant", "x")], None, {}
    think = {"reasoning": "r", "reasoning_content": "r"}
    yield w, "reasoning_last", {"messages": [*U, message("assistant", "x", reasoning_content="r")]}, [
        *U, message("assistant", "x", **think)], None, {}
    yield w, "reasoning_old", {"messages": [*U, message("assistant", "x", reasoning="r"), *U]}, [
        *U, message("assistant", "x", **think), *U], None, {}
    yield w, "effort_low", {"messages": U, "reasoning_effort": "low"}, U, None, {
        "reasoning_effort": "low", "enable_thinking": True}
    yield w, "effort_none", {"messages": U, "reasoning_effort": "none"}, U, None, {
        "reasoning_effort": "none", "enable_thinking": False}
    yield w, "kwargs_win", {"messages": U, "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}, U, None, {
        "reasoning_effort": "low", "enable_thinking": False}
    yield w, "kwargs_do_not_hide_generation", {"messages": U, "chat_template_kwargs": {
        "add_generation_prompt": False, "enable_thinking": None}}, U, None, {}
    yield w, "no_generation", {"messages": U, "add_generation_prompt": False}, U, None, {"add_generation_prompt": False}
    documents = [{"title": "t", "text": " x\u001f "}]
    yield w, "documents", {"messages": U, "documents": documents}, U, None, {"documents": documents}
    extra = {"b": 1e20, "A": [1, "x", None, {"k": 2.0}], "c": 1e-5, "d": "it's"}
    yield p, "printed_values", {"messages": U, "chat_template_kwargs": {"extra": extra}}, [
        message("user", [part("hi")])], None, {"extra": extra}
    yield w, "hard_text", {"messages": [message("user", HARD)]}, [message("user", HARD)], None, {}
    yield w, "continued", {"messages": [*U, message("assistant", "abc ")], "continue_final_message": True,
                           "add_generation_prompt": False}, [*U, message("assistant", "abc ")], None, {"CONTINUE": True}
    yield p, "continued_parts", {"messages": [message("user", " abc ")], "continue_final_message": True,
                                 "add_generation_prompt": False}, [message("user", [part(" abc ")])], None, {"CONTINUE": True}
    long = [m for i in range(40) for m in (message("user", f"question {i}\n" + "text " * i), message("assistant", "answer " * 9))]
    yield w, "long", {"messages": long}, long, None, {}


def messages_api():
    """(name, body, conversation, tools, variables) of Anthropic's messages, with the template `words`"""
    yield "plain", {"system": "s", "messages": U}, [message("system", "s"), *U], None, {}
    body = {
        "max_tokens": 10,
        "system": [part("x-anthropic-billing-header: 1"), part("s1"), part("s2")],
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        "messages": [
            message("user", [part("q"), part("")]),
            message("assistant", [{"type": "thinking", "thinking": "t", "signature": ""}, part("x"),
                                  {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1, "é": 2}}]),
            message("user", [part("and"), {"type": "tool_result", "tool_use_id": "c1", "content": [part("r"), part("s")]}]),
        ],
    }
    conversation = [
        message("system", "s1s2"), message("user", "q"),
        message("assistant", "x", tool_calls=[call("f", {"x": 1, "é": 2})], reasoning="t", reasoning_content="t"),
        message("tool", "r\ns", tool_call_id="c1"), message("user", "and"),
    ]
    yield "agent", body, conversation, [function("f", "d", {"type": "object"})], {}


def main():
    tokenizer = make_tokenizer()
    templates = {p.stem: p.read_text() for p in (HERE / "templates").glob("*.jinja")}

    def ids(text, special):
        return tokenizer.encode(text, add_special_tokens=special).ids

    def render(template, conversation, tools, variables):
        variables = {"add_generation_prompt": True, **variables}
        special = variables.pop("SPECIAL", False)
        go_on = variables.pop("CONTINUE", False)
        generation = variables.pop("add_generation_prompt") and not go_on
        rendered, _ = render_jinja_template(
            conversations=[conversation], tools=tools, chat_template=templates[template],
            continue_final_message=go_on, add_generation_prompt=generation,
            bos_token="<|begin|>", eos_token="<|im_end|>", **variables)
        return {"text": rendered[0], "ids": ids(rendered[0], special)}

    expected = {"chat": [], "messages": [], "completions": []}
    for template, name, body, conversation, tools, variables in chats():
        expected["chat"].append({"name": name, "template": template, "body": json.dumps(body),
                                 **render(template, conversation, tools, variables)})
    for name, body, conversation, tools, variables in messages_api():
        expected["messages"].append({"name": name, "template": "words", "body": json.dumps(body),
                                     **render("words", conversation, tools, variables)})
    for name, body, prompts in [
        ("text", {"prompt": "hi"}, [ids("hi", True)]),
        ("bare", {"prompt": "hi", "add_special_tokens": False}, [ids("hi", False)]),
        ("ids", {"prompt": [1, 2, 3]}, [[1, 2, 3]]),
        ("lists_of_ids", {"prompt": [[1, 2], [3]]}, [[1, 2], [3]]),
        ("texts", {"prompt": ["a", "b"]}, [ids("a", True), ids("b", True)]),
        ("hard", {"prompt": HARD}, [ids(HARD, True)]),
        ("last", {"prompt": HARD, "truncate_prompt_tokens": 8}, [[ids("", True)[0], *ids(HARD, False)[-7:]]]),
        ("first", {"prompt": HARD, "truncate_prompt_tokens": 8, "truncation_side": "right"}, [ids(HARD, True)[:8]]),
    ]:
        expected["completions"].append({"name": name, "body": json.dumps(body), "ids": prompts})
    (HERE / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
