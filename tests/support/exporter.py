"""Serves vLLM's load figures by the Python library that vLLM uses, in one of the forms that vLLM uses it. Prints its port, then serves.

    exporter.py plain|instrumented|multiprocess WAITING FOLDER

The folder is for the files that several processes share.
"""

import os
import socket
import sys

FORM, WAITING, FOLDER = sys.argv[1], float(sys.argv[2]), sys.argv[3]
if FORM == "multiprocess":
    # Read by the library when it is imported.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = FOLDER

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, Histogram, make_asgi_app, multiprocess

KWARGS = {"multiprocess_mode": "mostrecent"} if FORM == "multiprocess" else {}


def figures() -> None:
    """The series that pickers look for, and some that they do not."""
    labels = {"model_name": "m", "engine": "0"}
    for name, value in [("num_requests_waiting", WAITING), ("num_requests_running", 1.0), ("kv_cache_usage_perc", 0.25)]:
        Gauge(f"vllm:{name}", "A figure.", labels.keys(), **KWARGS).labels(**labels).set(value)
    by_reason = Gauge("vllm:num_requests_waiting_by_reason", "Another figure.", [*labels, "reason"], **KWARGS)
    by_reason.labels(**labels, reason="capacity").set(99)
    Histogram("vllm:e2e_request_latency_seconds", "Latency.", labels.keys()).labels(**labels).observe(1)


def serve_asgi(app) -> None:
    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    print(f"port {listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


figures()
if FORM == "plain":
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1")
    print(f"port {server.server_port}", flush=True)
    thread.join()
else:
    from fastapi import FastAPI
    from prometheus_fastapi_instrumentator import Instrumentator
    from starlette.routing import Mount

    registry = prometheus_client.REGISTRY
    if FORM == "multiprocess":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    app = FastAPI()
    Instrumentator(registry=registry).instrument(app).expose(app)
    app.routes.append(Mount("/metrics", make_asgi_app(registry=registry)))
    serve_asgi(app)
