"""Checks Pointsman against real vLLM servers behind a real Envoy. Run by `make test-vllm`.

Two servers of one API process each, then a third of two processes: 50 chat requests, half of them streamed, go through Envoy; the answers,
their usage, where shared prefixes went, what was read of a queue, and which servers were asked for a filtered metrics page are checked.
"""

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

MODEL = "m"
GROUPS = 5
REQUESTS = 50
VLLM_ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_SERVER_DEV_MODE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what: str, probe, patience: float = 60.0):
    """The first true value of `probe`, tried until it has one."""
    deadline = time.monotonic() + patience
    last = None
    while time.monotonic() < deadline:
        try:
            found = probe()
            if found:
                return found
        except (OSError, http.client.HTTPException, AssertionError) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"not within {patience} s: {what} (last error: {last})")


class Daemon:
    """A child process with its output in a file; stopped when the block ends."""

    def __init__(self, name: str, logs: pathlib.Path, args: list, env: dict | None = None):
        self.name, self.log = name, logs / f"{name}.log"
        self.file = open(self.log, "wb")
        environment = {**os.environ, **(env or {})}
        self.process = subprocess.Popen(
            args, stdin=subprocess.DEVNULL, stdout=self.file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )

    def lives(self) -> None:
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace").splitlines()[-30:]
            sys.exit(f"{self.name} ended with {self.process.returncode}:\n" + "\n".join(tail))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.file.close()


def get(port: int, path: str, timeout: float = 30.0, host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def series(port: int, name: str, **labels: str) -> float | None:
    """Sum of the samples with these labels on a metrics page."""
    status, page = get(port, "/metrics")
    assert status == 200, page
    total = None
    for line in page.splitlines():
        match = re.fullmatch(re.escape(name) + r"(?:\{(.*)\})? (\S+)", line)
        if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
            total = (total or 0.0) + float(match[2])
    return total


def chat(port: int, text: str, tokens: int, stream: bool) -> dict:
    """One chat request: status, server, text and usage of the answer."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "ignore_eos": True, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        raw = answer.read().decode()
    result = {"status": answer.status, "server": answer.headers.get("x-picked"), "raw": raw, "done": not stream}
    if answer.status != 200:
        return result
    if stream:
        text, usage = "", None
        for line in raw.splitlines():
            if line == "data: [DONE]":
                result["done"] = True
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                usage = event.get("usage") or usage
                text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    else:
        whole = json.loads(raw)
        text, usage = whole["choices"][0]["message"]["content"], whole["usage"]
    return {**result, "text": text, "usage": usage}


def start_vllm(stack, options, name: str, *flags: str, model=None, context: int = 4096, port: int = 0, host="127.0.0.1") -> tuple[Daemon, int]:
    port = port or free_port()
    args = ["prlimit", "--data=8000000000", str(options.venv / "bin" / "vllm"), "serve", str(model or options.venv / "model")]
    args += ["--served-model-name", MODEL, "--load-format", "dummy", "--dtype", "float32", "--max-model-len", str(context), "--enforce-eager"]
    args += ["--host", host, "--port", str(port), "--enable-prefix-caching", "--max-num-seqs", "4", *flags]
    return stack.enter_context(Daemon(name, options.logs, args, VLLM_ENV)), port


def until_healthy(server: Daemon, port: int) -> None:
    def healthy():
        server.lives()
        return get(port, "/health")[0] == 200

    until(f"{server.name} serves", healthy, 300)


def start_envoy(stack, options, grpc: str) -> int:
    """Envoy with the users' file, other ports, and the picker's answer in a header."""
    text = options.envoy_file.read_text()
    admin_file = options.logs / "envoy-admin"
    admin_file.unlink(missing_ok=True)
    host, port = grpc.rsplit(":", 1)
    picked = '- header: {key: x-picked, value: "%DYNAMIC_METADATA(envoy.lb:x-gateway-destination-endpoint)%"}'
    indent = " " * 18
    for old, new in [
        ("127.0.0.1, port_value: 19000", "127.0.0.1, port_value: 0"),
        ("0.0.0.0, port_value: 8081", "127.0.0.1, port_value: 0"),
        ("127.0.0.1, port_value: 9002", f"{host}, port_value: {port}"),
        (f"{indent}virtual_hosts:\n", f"{indent}response_headers_to_add:\n{indent}{picked}\n{indent}virtual_hosts:\n"),
    ]:
        assert old in text, f"the Envoy file no longer has {old!r}"
        text = text.replace(old, new)
    file = options.logs / "envoy.yaml"
    file.write_text(text)
    args = [str(options.envoy), "-c", str(file), "--admin-address-path", str(admin_file), "--disable-hot-restart", "--concurrency", "1"]
    envoy = stack.enter_context(Daemon("envoy", options.logs, args))

    def listener():
        envoy.lives()
        admin = int(admin_file.read_text().rsplit(":", 1)[1])
        assert get(admin, "/ready")[0] == 200
        statuses = json.loads(get(admin, "/listeners?format=json")[1])["listener_statuses"]
        return statuses[0]["local_address"]["socket_address"]["port_value"]

    return until("envoy listens", listener)


def start_pointsman(stack, options, endpoints: pathlib.Path) -> dict:
    config = options.logs / "epp.yaml"
    config.write_text(
        f"""apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: file-discovery
  parameters: {{path: {endpoints}, watchFile: true}}
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: queue-scorer, weight: 1}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 1}}
  - {{pluginRef: prefix-cache-scorer, weight: 5}}
  - pluginRef: max-score-picker
dataLayer:
  discovery: {{pluginRef: file-discovery}}
"""
    )
    args = [str(options.pointsman), "--config-file", str(config), "--pool-name", "vllm", "--tracing=false", "--print-addresses"]
    args += ["--bind-address", "127.0.0.1", "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0"]
    args += ["--refresh-prometheus-metrics-interval", "200ms"]
    pointsman = stack.enter_context(Daemon("pointsman", options.logs, args))

    def addresses():
        pointsman.lives()
        found = dict(re.findall(r"^(grpc|health|metrics) (\S+)$", pointsman.log.read_text(), re.MULTILINE))
        return found if len(found) == 3 else None

    return until("pointsman listens", addresses)


def write_endpoints(file: pathlib.Path, servers: dict) -> None:
    lines = [f'- {{name: {name}, address: "127.0.0.1", port: "{port}"}}' for name, port in servers.items()]
    following = file.with_suffix(".next")
    following.write_text("endpoints:\n" + "\n".join(lines) + "\n")
    following.rename(file)


def check_load(entry: int, servers: dict) -> None:
    """50 chat requests in groups that share a prefix."""
    words = "the pointsman sets the points that send each train to its own track and waits ".split()
    prefixes = [" ".join(words[(group + at) % len(words)] + (str(group) if at % 7 == 0 else "") for at in range(500)) for group in range(GROUPS)]

    def one(number: int) -> dict:
        group = number % GROUPS
        return {"group": group, **chat(entry, f"{prefixes[group]} {number}", 16, number % 2 == 1)}

    # The first of each group finds no prefix anywhere; the rest should follow it.
    answers = [one(number) for number in range(GROUPS)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers += pool.map(one, range(GROUPS, REQUESTS))

    known = {f"127.0.0.1:{port}" for port in servers.values()}
    for number, answer in enumerate(answers):
        assert answer["status"] == 200, (number, answer)
        # Some tokens of a model with random weights print as nothing; the token counts tell whether the answer is whole.
        assert answer["done"] and answer["text"] is not None, (number, answer)
        assert answer["usage"]["completion_tokens"] == 16, (number, answer)
        assert answer["usage"]["prompt_tokens"] > 300, (number, answer)
        assert answer["server"] in known, (number, answer)
    assert any(answer["text"] for answer in answers), "no answer has any text"
    homes = [{answer["server"] for answer in answers if answer["group"] == group} for group in range(GROUPS)]
    followed = sum(1 for number, answer in enumerate(answers) if number >= GROUPS and answer["server"] == answers[number % GROUPS]["server"])
    counts = {server: sum(1 for answer in answers if answer["server"] == server) for server in sorted(known)}
    print(f"ok   {len(answers)} chat requests, half streamed, all answered with usage; by server {counts}")
    assert followed >= 0.9 * (REQUESTS - GROUPS), (followed, homes)
    print(f"ok   {followed} of {REQUESTS - GROUPS} requests went where their prefix was")
    hits = sum(series(port, "vllm:prefix_cache_hits_total") or 0 for port in servers.values())
    assert hits > 0, "no server found a prefix in its cache"
    print(f"ok   the servers' own prefix caches saved {hits:.0f} prompt tokens")


def check_queue(metrics: int, servers: dict) -> None:
    """What was read of a server's queue is what the server says."""
    name, port = next(iter(servers.items()))
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        running = [pool.submit(chat, port, f"queue {number}", 600, False) for number in range(12)]

        def same():
            says = series(port, "vllm:num_requests_waiting")
            read = series(metrics, "llm_d_epp_per_endpoint_queue_size", model_server_endpoint=name)
            return says if says and says == read else None

        depth = until("the queue that was read equals the server's", same)
        for request in running:
            assert request.result()["status"] == 200
    print(f"ok   a queue of {depth:.0f} was read as {depth:.0f}")
    until("the queue is seen empty", lambda: series(metrics, "llm_d_epp_per_endpoint_queue_size", model_server_endpoint=name) == 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["venv", "pointsman", "envoy", "envoy-file", "logs"]:
        parser.add_argument(f"--{name}", type=lambda text: pathlib.Path(text).absolute(), required=True)
    options = parser.parse_args()
    options.logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        single = {name: start_vllm(stack, options, name) for name in ["vllm-a", "vllm-b"]}
        double = start_vllm(stack, options, "vllm-c", "--api-server-count", "2")
        for daemon, port in [*single.values(), double]:
            until_healthy(daemon, port)
        print("ok   three vLLM servers are up, one of them with two API processes")
        servers = {name: port for name, (_, port) in single.items()}
        endpoints = options.logs / "endpoints.yaml"
        write_endpoints(endpoints, servers)
        addresses = start_pointsman(stack, options, endpoints)
        metrics = int(addresses["metrics"].rsplit(":", 1)[1])
        entry = start_envoy(stack, options, addresses["grpc"])

        until("both are scraped", lambda: series(metrics, "llm_d_epp_ready_endpoints") == 2)
        until("the filtered page is adopted", lambda: series(metrics, "pointsman_scrape_filtered_endpoints") == 2)
        print("ok   the filtered metrics page was adopted on both servers")
        check_load(entry, servers)
        check_queue(metrics, servers)

        write_endpoints(endpoints, {**servers, "vllm-c": double[1]})
        until("the third is scraped", lambda: series(metrics, "llm_d_epp_ready_endpoints") == 3)
        probes = lambda: (series(metrics, "pointsman_scrape_filter_probes_total") or 0) >= 3
        until("the third was asked for a filtered page", probes)
        assert series(metrics, "pointsman_scrape_filtered_endpoints") == 2
        check_queue(metrics, {"vllm-c": double[1]})
        assert series(metrics, "pointsman_scrape_filtered_endpoints") == 2
        print("ok   the filtered page was refused on the server with two API processes")
    print("all checks passed")


if __name__ == "__main__":
    main()
