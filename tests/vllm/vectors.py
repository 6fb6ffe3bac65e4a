"""Records which token ids a real vLLM makes of requests of every kind, into crates/tokens/tests/data/vllm.json.

    tests/vllm/setup.sh target/venv-vllm
    target/venv-vllm/bin/python tests/vllm/vectors.py --venv target/venv-vllm --logs target/vllm-logs

The model is the tokenizer in crates/tokens/tests/data with a tiny random Llama. Three servers run one after another, with the flags of
`SERVERS`. Each body goes to the render endpoint of its API, which runs the code of the API itself up to the ids; bodies that a server refuses
are recorded with the status of its answer. Bodies of `TRUE` are generated from as well, and the number of tokens in the usage has to be that of
the ids. With `--compare` nothing is written, and the run fails if a server says anything else than what was recorded.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import pathlib
import shutil
import struct
import sys

import check

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "crates/tokens/tests/data"
OUT = DATA / "vllm.json"
COMMON = ["--enable-scale-out", "--enable-tokenizer-info-endpoint", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
# Name of the server: template, context, flags. The test in crates/tokens builds its profiles from the same names.
SERVERS = {
    "words": ("words", 1_500_000, []),
    "parts": ("parts", 4096, []),
    "defaults": (
        "words",
        4096,
        ["--exclude-tools-when-tool-choice-none", "--default-chat-template-kwargs", '{"enable_thinking": false}'],
    ),
}
CHAT, TEXT, ANTHROPIC, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"


def text(value):
    return {"type": "text", "text": value}


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def tool(content):
    return {"role": "tool", "tool_call_id": "c1", "content": content}


def call(arguments, **more):
    return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}, **more}


def function(**more):
    return {"type": "function", "function": {"name": "f", **more}}


def lines(first, count):
    """A long text that the test makes again by the same rule."""
    return "".join(f"line {n} of the report: {n * 7919 % 10007} units\n" for n in range(first, first + count))


HI = [user("hi")]
NUMBERS = {
    "type": "object",
    "required": ["b"],
    "properties": {
        "b": {"default": 1.0, "small": 1e-7, "large": 1e22, "big": 12345678901234567890123, "t": "é<&'\""},
        "a": {},
        "items": [],
        "f": [True, False, None, -0.0, 1e16, 1e15, 123456.789e-9, 0.1],
    },
}
HARD = "e\u0301 👩‍👩‍👧 漢字\t\t" + " " * 50 + "a\r\nb\u2028c" + "a" * 1000 + "'s I'LL 12345 \n\n \n x"
SPECIAL = "<|im_end|>\n<|im_start|>system\nx<think><call><|im_start|"
LONG = "the quick brown fox jumps over the lazy dog and says what it says " * 20
AGENT = {
    "max_tokens": 10,
    "system": [text("x-anthropic-billing-header: a=1"), text("s1"), text("s2")],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"b": {}, "a": {"type": "string"}}}}],
    "messages": [
        user([text("q"), text("")]),
        assistant([{"type": "thinking", "thinking": "t", "signature": "s"}, text("x"), {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1, "é": 2}}]),
        user([{"type": "tool_result", "tool_use_id": "c1", "content": [text("r"), text("s")]}, text("and")]),
    ],
}
ITEMS = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]},
    {"type": "reasoning", "id": "r1", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
    {"type": "function_call", "id": "f1", "call_id": "c1", "name": "f", "arguments": '{"b": 1, "a": 2}'},
    {"type": "function_call_output", "call_id": "c1", "output": "r"},
]
RESPONSES_TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}, "strict": True}


def vectors():
    """(number, server, path, body): the vectors of the rules, and what was added to them under number 0."""
    chat = lambda number, server, messages, **more: (number, server, CHAT, {"messages": messages, **more})
    complete = lambda number, server="words", **body: (number, server, TEXT, body)
    for server in SERVERS:
        yield chat(1, server, HI)
        yield chat(2, server, HI, add_special_tokens=True)
    yield complete(3, prompt="hi")
    yield complete(4, prompt="hi", add_special_tokens=False)
    yield complete(5, prompt=[1, 2, 3])
    yield complete(6, prompt=[[1, 2], [3]])
    yield complete(7, prompt=["a", "b"])
    for more in [{}, {"truncation_side": "right"}, {"truncation_side": "left"}, {"add_special_tokens": False}]:
        yield complete(8 if not more else 9, prompt=LONG, truncate_prompt_tokens=8, **more)
    yield complete(9, prompt=list(range(2, 40)), truncate_prompt_tokens=8)
    yield complete(9, prompt=list(range(2, 40)), truncate_prompt_tokens=8, truncation_side="right")
    yield chat(9, "words", [user(LONG)], truncate_prompt_tokens=12)
    yield chat(9, "words", [user(LONG)], truncate_prompt_tokens=12, truncation_side="right")
    yield complete(10, "parts", prompt=LONG * 20, truncate_prompt_tokens=-1)
    yield complete(10, "parts", prompt=LONG * 20, truncate_prompt_tokens=-1, max_tokens=1)
    yield chat(10, "parts", [user(LONG * 20)], truncate_prompt_tokens=-1)
    yield chat(10, "parts", [user(LONG * 20)], truncate_prompt_tokens=-1, max_tokens=5)
    yield complete(10, "parts", prompt=LONG, truncate_prompt_tokens=5000)
    yield complete(10, "parts", prompt=LONG * 20)
    for server in ["words", "parts"]:
        yield chat(11, server, [user([text("a"), text("b")])])
        yield chat(12, server, [user([text("a"), text(""), text("b")])])
        yield chat(13, server, [user([])])
        yield chat(13, server, [user("")])
        yield chat(14, server, [user("a", name="bob", x=1)])
        yield chat(15, server, [user([{**text("a"), "cache_control": {"type": "ephemeral"}}])])
        yield chat(16, server, [{"role": "system", "content": [text("s1"), text("s2")]}, *HI])
        yield chat(17, server, [{"role": "system", "content": "s1"}, {"role": "system", "content": "s2"}, *HI])
        yield chat(18, server, [{"role": "developer", "content": "d"}, *HI])
        yield chat(19, server, [*HI, {"role": "developer", "content": "d"}])
        yield chat(20, server, [{"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, *HI])
        yield chat(32, server, [*HI, assistant(None, tool_calls=[call("{}")]), tool([text("r1"), text("r2")])])
        yield chat(27, server, [*HI, assistant(None, tool_calls=[call('{"b": 1, "a": 2}')]), tool("r")])
        yield chat(30, server, [*HI, assistant("", tool_calls=[call('{"b": 1.0, "a": [1e-7, "é"]}', index=0, x=1)]), tool("r")])
        yield chat(38, server, [user(SPECIAL)])
        yield chat(39, server, [user(HARD)])
    tools = [function()]
    for server in SERVERS:
        yield chat(21, server, HI, tools=tools)
        yield chat(24, server, HI, tools=tools, tool_choice="none")
    yield chat(21, "words", HI, tools=tools, tool_choice="auto")
    yield chat(22, "words", HI, tools=[function(parameters={"type": "object", "required": ["b"], "properties": {"b": {}, "a": {}}})])
    yield chat(23, "words", HI, tools=[function(description="é<&'\"\n", parameters=NUMBERS)])
    yield chat(25, "words", HI, tools=[function(strict=True, zzz=1, description="d")])
    yield chat(25, "words", HI, tools=[{**function(), "zzz": 1}])
    yield chat(26, "words", HI, tools=[])
    for arguments in ["", "{bad", "[1]", "null", "1", '{"a": NaN}', '{"a": 1, "a": 2}', ' {"z": "\\ud83d\\ude00"} ']:
        yield chat(28 if not arguments else 29, "words", [*HI, assistant("x", tool_calls=[call(arguments)])])
    yield chat(31, "words", [*HI, assistant("x", tool_calls=[])])
    yield chat(33, "words", [*HI, assistant("x", reasoning_content="r"), *HI])
    yield chat(33, "words", [*HI, assistant("x", reasoning_content="r")])
    yield chat(33, "words", [*HI, assistant("x", reasoning="r")])
    yield chat(33, "words", [*HI, assistant("x", reasoning="r", reasoning_content="other")])
    for server in ["words", "defaults"]:
        for effort in ["low", "none", "high"]:
            yield chat(34, server, HI, reasoning_effort=effort)
        for thinking in [False, True, None]:
            yield chat(35, server, HI, chat_template_kwargs={"enable_thinking": thinking})
    yield chat(35, "words", HI, chat_template_kwargs={"enable_thinking": False}, reasoning_effort="low")
    yield chat(36, "words", HI, chat_template_kwargs={"add_generation_prompt": False})
    yield chat(36, "words", HI, add_generation_prompt=False)
    for server in ["words", "parts"]:
        yield chat(37, server, [*HI, assistant("abc ")], continue_final_message=True, add_generation_prompt=False)
        yield chat(37, server, [*HI, assistant([text("ab"), text("c ")])], continue_final_message=True, add_generation_prompt=False)
    yield chat(37, "words", [*HI, assistant("abc")], continue_final_message=True)
    yield complete(39, prompt=HARD)
    yield complete(38, prompt=SPECIAL)
    yield (40, "words", ANTHROPIC, AGENT)
    yield (40, "words", ANTHROPIC, {"max_tokens": 10, "system": "s", "messages": HI})
    yield (40, "words", ANTHROPIC, {"max_tokens": 10, "messages": [user([text("a"), text("b")]), assistant("c"), user("d")]})
    yield (40, "words", ANTHROPIC, {**AGENT, "tool_choice": {"type": "none"}})
    yield (40, "defaults", ANTHROPIC, {**AGENT, "tool_choice": {"type": "none"}})
    yield (41, "words", RESPONSES, {"input": "hi"})
    yield (41, "words", RESPONSES, {"input": "hi", "instructions": "s"})
    yield (41, "words", RESPONSES, {"input": ITEMS, "instructions": "s", "tools": [RESPONSES_TOOL]})
    yield (41, "words", RESPONSES, {"input": ITEMS[:1] + ITEMS[2:]})
    yield (41, "words", RESPONSES, {"input": [*ITEMS, *ITEMS], "reasoning": {"effort": "low"}})
    said = {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "said", "annotations": []}]}
    yield (41, "words", RESPONSES, {"input": [ITEMS[0], ITEMS[1], said, ITEMS[0]]})
    yield (41, "words", RESPONSES, {"input": [ITEMS[0], said, ITEMS[2], ITEMS[3]]})
    yield (41, "words", RESPONSES, {"input": [user("q"), assistant("a"), user("r")]})
    yield (41, "words", RESPONSES, {"input": [ITEMS[0], {**said, "status": "incomplete"}]})
    yield (41, "defaults", RESPONSES, {"input": "hi"})
    calls = [ITEMS[0], ITEMS[2], {**ITEMS[2], "id": "f2", "call_id": "c2"}, ITEMS[3], {**ITEMS[3], "call_id": "c2"}]
    yield (41, "words", RESPONSES, {"input": calls})
    yield (41, "words", RESPONSES, {"input": [ITEMS[0], ITEMS[2], {**ITEMS[3], "output": [{"type": "input_text", "text": "r"}]}]})
    summed = {"type": "reasoning", "id": "r2", "summary": [{"type": "summary_text", "text": "s"}, {"type": "summary_text", "text": "u"}]}
    yield (41, "words", RESPONSES, {"input": [ITEMS[0], summed]})
    yield (41, "words", RESPONSES, {"input": [ITEMS[0], {**ITEMS[1], "content": []}]})
    yield (41, "words", RESPONSES, {"input": [ITEMS[0], {**summed, **ITEMS[1]}, ITEMS[1]]})
    yield (41, "words", RESPONSES, {"input": [ITEMS[0], ITEMS[1], assistant("a"), assistant("b"), ITEMS[2]]})
    for server in ["words", "defaults"]:
        yield (41, server, RESPONSES, {"input": "hi", "tools": [RESPONSES_TOOL], "tool_choice": "none"})
    yield (41, "words", RESPONSES, {"input": "hi", "chat_template_kwargs": {"enable_thinking": False}, "reasoning": {"effort": "high"}})
    yield (41, "parts", RESPONSES, {"input": LONG * 20, "truncation": "auto", "max_output_tokens": 5})
    yield chat(43, "words", [user([text("a"), {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, text("b")])])
    # What the vectors leave open.
    yield chat(0, "words", HI, documents=[{"title": "t", "text": " x "}])
    yield chat(0, "parts", HI, chat_template_kwargs={"extra": {"b": 1e20, "A": [1, "x", None, {"k": 2.0}], "c": 1e-5, "d": "it's"}})
    yield chat(0, "words", [{"role": "system", "content": "x-anthropic-billing-header: a\nb"}, *HI])
    yield chat(0, "words", [{"role": "critic", "content": "c"}, *HI])
    yield chat(0, "words", [user(None)])
    yield chat(0, "words", [{"role": "user"}])
    yield chat(0, "words", [assistant(None)])
    yield chat(0, "words", [])
    yield chat(0, "words", [user(["a", "b"])])
    yield chat(0, "words", [*HI, assistant([{"type": "refusal", "refusal": "no"}])])
    yield chat(0, "words", HI, tools=tools, tool_choice="required")
    yield chat(0, "words", HI, tools=tools, tool_choice={"type": "function", "function": {"name": "f"}})
    yield chat(0, "words", HI, chat_template="{{ 'x' }}")
    yield chat(0, "words", HI, kv_transfer_params={"prompt_token_ids": [5, 6, 7]})
    yield complete(0, prompt=[1, 2, 99999])
    yield complete(0, prompt=[])
    yield complete(0, prompt="")
    yield complete(0, prompt=["a", [1]])
    yield complete(0, prompt="a", suffix="b")


# A vector 44: bodies that no JSON library writes.
RAW = [
    (44, "words", CHAT, '{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":NaN}'),
    (44, "words", CHAT, '{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}'),
    (44, "words", CHAT, '{"model":"m","messages":[{"role":"user","content":"hi","role":"system"}]}'),
]
# Vector 45: the number of lines of each message. The second has a turn more.
LARGE = [[9000], [9000, 20, 300], [9000, 20, 300, 20, 30000]]
# These are generated from as well.
TRUE = {1, 3, 5, 7, 8, 11, 16, 20, 21, 27, 33, 38, 39, 40, 41}


def post(port, path, body, host="127.0.0.1"):
    connection = http.client.HTTPConnection(host, port, timeout=120)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        raw = answer.read().decode()
    try:
        return answer.status, json.loads(raw)
    except ValueError:
        return answer.status, raw


def ids_of(answer):
    """Ids of each prompt in the answer of a render endpoint."""
    return [one["token_ids"] for one in (answer if isinstance(answer, list) else [answer])]


def outcome(port, path, body):
    status, answer = post(port, path + "/render", body)
    return {"ids": ids_of(answer)} if status == 200 else {"status": status}


def confirmed(port, number, path, body, got):
    """Fails unless generating counts as many tokens as there are ids."""
    if number not in TRUE or "ids" not in got:
        return
    limit = "max_output_tokens" if path == RESPONSES else "max_tokens"
    status, answer = post(port, path, json.dumps({**body, limit: 1}))
    assert status == 200, (status, answer)
    usage = answer["usage"]
    counted = usage.get("prompt_tokens", usage.get("input_tokens"))
    if path == ANTHROPIC:
        counted += (usage.get("cache_read_input_tokens") or 0) + (usage.get("cache_creation_input_tokens") or 0)
    wanted = sum(len(ids) for ids in got["ids"])
    assert counted == wanted, f"{path} {body}: the usage says {counted}, the ids are {wanted}"


def record(port, server):
    cases = []
    for number, on, path, body in vectors():
        if on == server:
            body = {"model": "m", **body}
            got = outcome(port, path, json.dumps(body))
            confirmed(port, number, path, body, got)
            cases.append({"vector": number, "server": server, "path": path, "body": json.dumps(body, ensure_ascii=False), **got})
    for number, on, path, body in RAW:
        if on == server:
            cases.append({"vector": number, "server": server, "path": path, "body": body, **outcome(port, path, body)})
    for counts in LARGE if server == "words" else []:
        starts = [sum(counts[:at]) for at in range(len(counts))]
        messages = [{"role": ["user", "assistant"][at % 2], "content": lines(starts[at], count)} for at, count in enumerate(counts)]
        status, answer = post(port, CHAT + "/render", json.dumps({"model": "m", "messages": messages}))
        assert status == 200, (status, answer)
        [ids] = ids_of(answer)
        digest = hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()
        cases.append({"vector": 45, "server": server, "path": CHAT, "lines": counts, "count": len(ids), "sha256": digest})
    return cases


def make_model(folder):
    """The tokenizer of the tests with a tiny Llama whose vocabulary is as large."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(DATA / name, folder / name)
    config = json.loads((folder.parent / "model/config.json").read_text())
    config.update(vocab_size=787, max_position_embeddings=1_500_000, bos_token_id=780, eos_token_id=782, pad_token_id=782)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 782}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["venv", "logs"]:
        parser.add_argument(f"--{name}", type=lambda path: pathlib.Path(path).absolute(), required=True)
    parser.add_argument("--compare", action="store_true", help="compare with what was recorded")
    parser.add_argument("--servers", nargs="*", default=list(SERVERS), help="only these")
    options = parser.parse_args()
    options.logs.mkdir(parents=True, exist_ok=True)
    folder = options.venv / "model-vectors"
    make_model(folder)
    cases = []
    for name in options.servers:
        template, context, flags = SERVERS[name]
        flags = ["--chat-template", str(DATA / f"templates/{template}.jinja"), *COMMON, *flags]
        with contextlib.ExitStack() as stack:
            server, port = check.start_vllm(stack, options, f"vllm-{name}", *flags, model=folder, context=context)
            check.until_healthy(server, port)
            cases += record(port, name)
            print(f"ok   {name}: {sum(1 for case in cases if case['server'] == name)} requests")
    wanted = json.loads(OUT.read_text())["cases"] if OUT.exists() else []
    if options.compare:
        differ = [case for case in cases if case not in wanted]
        for case in differ[:20]:
            print("recorded otherwise:", json.dumps(case, ensure_ascii=False)[:400])
        sys.exit(1 if differ else 0)
    kept = [case for case in wanted if case["server"] not in options.servers]
    made = "by tests/vllm/vectors.py with vLLM 0.32.0 on a CPU and transformers 5.19.0"
    rows = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in kept + cases)
    OUT.write_text(f'{{"made":{json.dumps(made)},"cases":[\n{rows}\n]}}\n')


if __name__ == "__main__":
    main()
