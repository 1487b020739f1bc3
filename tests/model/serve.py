"""Serves a GGUF file with the llama.cpp HTTP server that the xllamacpp wheel holds, until SIGTERM or SIGINT.

Usage: serve.py MODEL PORT (0: any free port). Prints `READY http://HOST:PORT` on stdout when it serves. Environment: SLOTS, CTX (tokens a slot),
THREADS, MODEL_ID. It binds loopback only, and opens /metrics, /slots and /props, which the tests read.
"""

import os
import signal
import sys
import threading
from pathlib import Path

import xllamacpp

TEMPLATE = Path(__file__).with_name("chat.jinja")


def main() -> None:
    model, port = sys.argv[1], int(sys.argv[2])
    slots = int(os.environ.get("SLOTS", "4"))
    threads = int(os.environ.get("THREADS", "1"))  # a second thread gains nothing here and collapses when the cores are busy

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {os.environ.get("MODEL_ID", "smollm2-135m")}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel, params.n_ctx = slots, slots * int(os.environ.get("CTX", "8192"))
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.endpoint_metrics = params.endpoint_slots = params.endpoint_props = True
    params.use_jinja, params.chat_template = True, TEMPLATE.read_text()

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = xllamacpp.Server(params)
    print(f"READY {server.listening_address}", flush=True)
    stop.wait()
    os._exit(0)  # the wheel's server thread has no stop of its own


main()
