"""Compares what Pointsman predicts of prompts and caches with what two real vLLM servers say. Run by `make test-vllm`.

Some 300 requests go through a real Envoy, one after another: chats with tools over several turns, completions, Anthropic's messages, responses,
salts, a LoRA adapter, prompts that evict each other, after `reset_prefix_cache`, after an interruption of the events, after a server was killed,
and after the picker was started again. For each, the number of tokens has to be that of the server, and the tokens predicted to come from its
cache have to be those that it reports. Then one server starts with another chat template, which has to be noticed, and gets its own back.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import socketserver
import sys
import threading
import time

import check
import vectors

CHAT, TEXT, ANTHROPIC, RESPONSES = vectors.CHAT, vectors.TEXT, vectors.ANTHROPIC, vectors.RESPONSES
HOSTS = {"vllm-a": "127.0.47.1", "vllm-b": "127.0.47.2"}
BLOCK = 32
# Blocks of a server's cache. Prompts of the test are short against it, apart from those that shall evict.
BLOCKS = 400
EVENTS, REPLAY = 15557, 15558
TOOL = vectors.function(description="Tells the weather.", parameters={"type": "object", "properties": {"city": {"type": "string"}}})


class Relay:
    """Connections to an address are led to a port of this machine, until they are cut."""

    def __init__(self, host, port, target):
        self.open, self.cut_off = set(), False
        relay = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                if relay.cut_off:
                    return
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target), 5) as server:
                    server.settimeout(None)
                    relay.open |= {self.request, server}
                    back = threading.Thread(target=relay.copy, args=(server, self.request), daemon=True)
                    back.start()
                    relay.copy(self.request, server)
                    back.join()
                    relay.open -= {self.request, server}

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        self.server = Server((host, port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for side in (source, target):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def cut(self, off):
        self.cut_off = off
        for side in list(self.open) if off else []:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


class Server:
    """A vLLM server that tells of its cache, on an address of its own."""

    def __init__(self, options, name, port):
        self.options, self.name, self.host, self.port = options, name, HOSTS[name], port
        self.events, self.replay = check.free_port(), check.free_port()
        self.relays = [Relay(self.host, EVENTS, self.events), Relay(self.host, REPLAY, self.replay)]
        self.stack, self.runs = contextlib.ExitStack(), 0

    def start(self, template="words"):
        self.runs += 1
        events = {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "topic": f"kv@{self.host}:{self.port}@{check.MODEL}",
            "endpoint": f"tcp://*:{self.events}",
            "replay_endpoint": f"tcp://*:{self.replay}",
        }
        template = self.options.template if template == "words" else template
        flags = ["--kv-events-config", json.dumps(events), "--chat-template", str(template), "--enable-prompt-tokens-details"]
        flags += ["--block-size", str(BLOCK), "--num-gpu-blocks-override", str(BLOCKS)]
        flags += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        flags += ["--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"adapter={self.options.adapter}"]
        model = self.options.venv / "model-vectors"
        self.daemon, _ = check.start_vllm(
            self.stack, self.options, f"{self.name}-{self.runs}", *flags, model=model, port=self.port, host=self.host
        )
        return self

    def wait(self):
        def healthy():
            self.daemon.lives()
            return check.get(self.port, "/health", host=self.host)[0] == 200

        check.until(f"{self.name} serves", healthy, 300)

    def kill(self):
        """The server dies, and everything that it started."""
        group = os.getpgid(self.daemon.process.pid)
        os.killpg(group, signal.SIGKILL)
        self.daemon.process.wait()

    def reset(self):
        status, _ = vectors.post(self.port, "/reset_prefix_cache", "", host=self.host)
        assert status == 200, status


def make_adapter(folder):
    """A LoRA adapter of random weights for the tiny Llama."""
    import torch
    from safetensors.torch import save_file

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    weights = {}
    for layer in range(2):
        for name, rows in [("q_proj", 64), ("v_proj", 32)]:
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{stem}.lora_A.weight"] = torch.randn(8, 64)
            weights[f"{stem}.lora_B.weight"] = torch.randn(rows, 8)
    save_file(weights, str(folder / "adapter_model.safetensors"))
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "bias": "none", "base_model_name_or_path": "m"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def start_picker(stack, options, servers, runs):
    endpoints = options.logs / "exact-endpoints.yaml"
    rows = [f'- {{name: {server.name}, address: "{server.host}", port: "{server.port}"}}' for server in servers]
    endpoints.write_text("endpoints:\n" + "\n".join(rows) + "\n")
    config = options.logs / "exact.yaml"
    config.write_text(
        f"""apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: file-discovery
  parameters: {{path: {endpoints}}}
- type: token-producer
  parameters:
    modelName: {check.MODEL}
    local: {{folder: {options.venv / "model-vectors"}, chatTemplate: {options.template}, maxModelLen: 4096, aliases: [adapter]}}
- type: precise-prefix-cache-producer
  parameters:
    kvEventsConfig: {{podDiscoveryConfig: {{socketPort: {EVENTS}, replaySocketPort: {REPLAY}}}}}
    proof: {{retryAfter: 2s}}
- type: prefix-cache-scorer
  parameters: {{prefixMatchInfoProducerName: precise-prefix-cache-producer}}
- type: max-score-picker
dataLayer:
  discovery: {{pluginRef: file-discovery}}
schedulingProfiles:
- name: default
  plugins: [{{pluginRef: prefix-cache-scorer}}, {{pluginRef: max-score-picker}}]
"""
    )
    args = [str(options.pointsman), "--config-file", str(config), "--pool-name", "vllm", "--tracing=false", "--print-addresses", "-v", "4"]
    args += ["--bind-address", "127.0.0.1", "--grpc-port", str(options.grpc), "--grpc-health-port", "0", "--metrics-port", "0", "--decision-header"]
    args += ["--refresh-prometheus-metrics-interval", "500ms"]
    daemon = stack.enter_context(check.Daemon(f"exact-pointsman-{runs}", options.logs, args))

    def addresses():
        daemon.lives()
        found = dict(re.findall(r"^(grpc|health|metrics) (\S+)$", daemon.log.read_text(), re.MULTILINE))
        return found if len(found) == 3 else None

    metrics = int(check.until("pointsman listens", addresses)["metrics"].rsplit(":", 1)[1])
    check.until("both servers are heard", lambda: check.series(metrics, "llm_d_epp_kv_cache_events_active_subscribers") == 2)
    return daemon, metrics


class Run:
    """Sends requests, and keeps what was predicted of each and what came of it."""

    def __init__(self, entry, metrics):
        self.entry, self.metrics, self.rows = entry, metrics, []

    def send(self, phase, path, body, stream=False):
        """One request. Its answer, and the server."""
        limit = "max_output_tokens" if path == RESPONSES else "max_tokens"
        body = {"model": check.MODEL, limit: 4, **body}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        connection = http.client.HTTPConnection("127.0.0.1", self.entry, timeout=120)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            raw = answer.read().decode()
        assert answer.status == 200, (phase, path, answer.status, raw[:500])
        if stream:
            events = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
            whole = {"usage": [event["usage"] for event in events if event.get("usage")][-1]}
        else:
            whole = json.loads(raw)
        self.note(phase, path, whole["usage"], answer.headers.get("x-picked"))
        return whole, answer.headers.get("x-picked")

    def note(self, phase, path, usage, server):
        def record():
            newest = json.loads(check.get(self.metrics, "/debug/decisions?limit=1")[1])["decisions"][0]
            record = json.loads(check.get(self.metrics, f"/debug/decisions/@{newest['sequence']}")[1])
            done = (record.get("ended") or record.get("outcome") or {})
            return record if "usage" in json.dumps(record) and done else None

        record = check.until("the decision is on record", record, 10)
        prompt, ended = record["prompt"], find(record, "usage")
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        tokens = usage.get("prompt_tokens", usage.get("input_tokens"))
        cached = details.get("cached_tokens") or usage.get("cache_read_input_tokens") or 0
        if path == ANTHROPIC:
            tokens += cached + (usage.get("cache_creation_input_tokens") or 0)
        predicted = find(record, "predicted_cached_tokens") or 0
        # The last token is always computed, so that its block is no hit.
        predicted = min(predicted, (tokens - 1) // BLOCK * BLOCK)
        row = {"phase": phase, "path": path, "server": server, "exact": prompt.get("exact"), "tokens": prompt["tokens"], "counted": tokens}
        self.rows.append({**row, "predicted": predicted, "cached": cached, "usage": ended})
        # Events are on their way while the answer is, and a little longer.
        time.sleep(0.1)

    def page(self):
        page = json.loads(check.get(self.metrics, "/debug/prefix")[1])
        return page["plugins"]["precise-prefix-cache-producer"]

    def caught_up(self):
        """True if something is known of each engine."""
        engines = self.page()["engines"]
        return len(engines) == len(HOSTS) and all(engine["blocks"] for engine in engines)

    def state(self, model=check.MODEL):
        models = self.page()["models"]
        return next((row["state"] for row in models if row["model"] == model), "none")


def find(value, key):
    """The first value of this key, at any depth."""
    if isinstance(value, dict):
        if key in value:
            return value[key]
        value = list(value.values())
    for one in value if isinstance(value, list) else []:
        if (found := find(one, key)) is not None:
            return found
    return None


def words(seed, count):
    texts = "the pointsman sets points that send each train to its own track and waits while others pass by é 漢字".split()
    return " ".join(texts[(seed * 31 + at * (seed % 5 + 1)) % len(texts)] + str((seed * 7 + at) % 10) for at in range(count))


def chats(run):
    """20 chats of 4 turns; each second one has tools and calls them, each second turn is streamed."""
    for number in range(20):
        messages = [{"role": "system", "content": "You are a pointsman. " + words(number % 3, 20)}]
        more = {"tools": [TOOL]} if number % 2 else {}
        for turn in range(4):
            messages.append({"role": "user", "content": words(number * 10 + turn, 15)})
            run.send("chats", CHAT, {"messages": messages, **more}, stream=turn % 2 == 1)
            if more and turn % 2 == 0:
                messages.append({"role": "assistant", "content": None, "tool_calls": [vectors.call(json.dumps({"city": f"Köln {turn}"}))]})
                messages.append({"role": "tool", "tool_call_id": "c1", "content": [vectors.text("12.5 °C"), vectors.text("rain")]})
            else:
                messages.append({"role": "assistant", "content": words(turn, 10), "reasoning_content": "hm"})


def other_apis(run):
    for number in range(12):
        text = words(number % 5, 60)
        run.send("completions", TEXT, {"prompt": text}, stream=number % 2 == 1)
        run.send("completions", TEXT, {"prompt": [1 + (number % 3 + at) % 700 for at in range(100 + number)]})
        run.send("completions", TEXT, {"prompt": text, "truncate_prompt_tokens": 70})
    for number in range(12):
        body = {
            "system": [vectors.text("x-anthropic-billing-header: 1"), vectors.text(words(1, 40))],
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
            "messages": [{"role": "user", "content": [vectors.text(words(number % 4, 20))]}],
        }
        run.send("messages", ANTHROPIC, body)
        body["messages"] += [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1, "é": 2}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": words(number, 8)}, vectors.text("go on")]},
        ]
        run.send("messages", ANTHROPIC, body)
    for number in range(8):
        run.send("responses", RESPONSES, {"input": words(number % 3, 50), "instructions": words(2, 20)})
        run.send("responses", RESPONSES, {"input": vectors.ITEMS, "instructions": words(2, 20), "tools": [vectors.RESPONSES_TOOL]})


def salts_and_adapters(run):
    for number in range(30):
        salt = {"cache_salt": ["one", "two"][number % 2]} if number % 3 else {}
        run.send("salts", CHAT, {"messages": [{"role": "user", "content": words(number // 6, 50)}], **salt})
    for number in range(16):
        model = {"model": "adapter"} if number % 2 else {}
        run.send("adapter", CHAT, {"messages": [{"role": "user", "content": words(number // 4 + 50, 50)}], **model})


def pressure(run):
    """Prompts that together are more than the caches hold, each twice and at the end again."""
    for number in [*range(12), *range(12), *range(11, -1, -1)]:
        run.send("pressure", CHAT, {"messages": [{"role": "user", "content": words(100 + number, 700)}]})


def again(run, phase, count=16):
    for number in range(count):
        messages = [{"role": "system", "content": words(7, 60)}, {"role": "user", "content": words(200 + number // 3, 40)}]
        run.send(phase, CHAT, {"messages": messages}, stream=number % 2 == 1)


def judge(rows):
    """Prints each difference, and fails unless there are few enough."""
    inexact = [row for row in rows if not row["exact"]]
    counts = [row for row in rows if row["exact"] and row["tokens"] != row["counted"]]
    hits = [row for row in rows if row["exact"] and row["predicted"] != row["cached"]]
    for what, differ in [("without exact tokens", inexact), ("token counts", counts), ("cached tokens", hits)]:
        print(f"     {what}: {len(differ)} of {len(rows)} differ")
        for row in differ:
            print("      ", json.dumps(row))
    by_phase = {}
    for row in rows:
        of = by_phase.setdefault(row["phase"], [0, 0, 0])
        of[0], of[1], of[2] = of[0] + 1, of[1] + row["cached"], of[2] + row["tokens"]
    for phase, (count, cached, tokens) in by_phase.items():
        print(f"     {phase}: {count} requests, {cached} of {tokens} tokens from a cache")
    assert not inexact and not counts, "all of these requests are supported"
    assert len(hits) <= len(rows) / 100, f"{len(hits)} of {len(rows)} differ"
    print(f"ok   {len(rows)} requests: token counts equal, cached tokens equal in {100 - 100 * len(hits) / len(rows):.1f} %")


def new_text(number):
    """A text that begins as no other does, so that any server may get it."""
    return hashlib.sha256(str(number).encode()).hexdigest() + " and so on" * 20


def changed_template(run, server, options):
    for number in range(45):
        run.send("before the change", CHAT, {"messages": [{"role": "user", "content": new_text(400 + number)}]})
    check.until("the model is exact", lambda: run.state() == "exact", 30)
    other = options.logs / "changed.jinja"
    other.write_text("{{- '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}" + options.template.read_text())
    server.kill()
    server.start(other).wait()
    print("     one server has another template")
    rows, requests = run.rows, 0
    while run.state() not in ("off",):
        requests += 1
        assert requests <= 20, f"the state is {run.state()} after 20 requests"
        run.send("changed", CHAT, {"messages": [{"role": "user", "content": new_text(500 + requests)}]})
    print(f"ok   noticed after {requests} requests: the approximate index decides")
    server.kill()
    server.start().wait()
    for number in range(600):
        if run.state() != "off":
            break
        run.send("set right", CHAT, {"messages": [{"role": "user", "content": new_text(600 + number)}]})
    assert run.state() != "off"
    print(f"ok   set right, exact tokens decide again after {number} requests")
    del rows[:]


def warm(run):
    """Sends a request, and tells whether exact tokens have been made."""
    run.send("warm", CHAT, {"messages": vectors.HI})
    return (check.series(run.metrics, "pointsman_preparations_total", outcome="done") or 0) > 0


def compare(run, servers, options, picker):
    """Requests of every kind, in every condition of the servers and the picker."""
    heard = lambda: check.series(run.metrics, "llm_d_epp_kv_cache_events_active_subscribers") == 2
    chats(run)
    other_apis(run)
    salts_and_adapters(run)
    pressure(run)
    servers[0].reset()
    again(run, "reset")
    for relay in servers[1].relays[:1]:
        relay.cut(True)
        for number in range(6):
            body = {"model": check.MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": words(300 + number, 60)}]}
            vectors.post(servers[1].port, CHAT, json.dumps(body), host=servers[1].host)
        relay.cut(False)
    check.until("the server is heard again", heard, 30)
    time.sleep(1)
    for number in range(6):
        run.send("interrupted", CHAT, {"messages": [{"role": "user", "content": words(300 + number, 60)}]})
    again(run, "interrupted", 8)
    servers[0].kill()
    servers[0].start().wait()
    check.until("the server is heard again", heard, 30)
    time.sleep(1)
    again(run, "restarted server")
    picker.close()
    _, run.metrics = start_picker(picker, options, servers, 2)
    check.until("tokens are made", lambda: warm(run))
    run.rows.pop()
    check.until("the engines have repeated what they told", run.caught_up, 20)
    again(run, "restarted picker")
    pressure_again = [11, 10, 9, 8]
    for number in pressure_again:
        run.send("restarted picker", CHAT, {"messages": [{"role": "user", "content": words(100 + number, 700)}]})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["venv", "pointsman", "envoy", "envoy-file", "logs"]:
        parser.add_argument(f"--{name}", type=lambda text: pathlib.Path(text).absolute(), required=True)
    parser.add_argument("--only", choices=["cache", "template"], help="only this half")
    options = parser.parse_args()
    options.logs.mkdir(parents=True, exist_ok=True)
    options.template, options.adapter = vectors.DATA / "templates/words.jinja", options.venv / "adapter"
    options.grpc = check.free_port()
    vectors.make_model(options.venv / "model-vectors")
    make_adapter(options.adapter)
    with contextlib.ExitStack() as stack:
        port = check.free_port()
        servers = [Server(options, name, port) for name in HOSTS]
        for server in servers:
            stack.enter_context(server.stack)
            server.start()
        for server in servers:
            server.wait()
        picker = stack.enter_context(contextlib.ExitStack())
        _, metrics = start_picker(picker, options, servers, 1)
        run = Run(check.start_envoy(stack, options, f"127.0.0.1:{options.grpc}"), metrics)
        check.until("tokens are made", lambda: warm(run))
        run.rows.clear()
        print("ok   two vLLM servers are up, and Pointsman hears their events")
        if options.only != "template":
            compare(run, servers, options, picker)
            judge(run.rows)
        run.rows.clear()
        if options.only != "cache":
            changed_template(run, servers[1], options)
    print("all checks passed")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    main()
