"""The gateways that are measured, each in a process of its own before the scripted engine: ours, the comparisons from
benches/src/bin, and what others made, from PyPI. Their logs go nowhere and are as quiet as their flags allow."""

import http.client
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Where `flashlane bench` plays the engine.
ENGINE = "127.0.0.1:8720"
MODELS = ("bench", "bench-latency")
OTHERS = {"agentic-api": "0.9.0", "smg": "1.13.0", "vllm-router": "0.1.17"}
READY_S_MAX = 60

FLASHLANE = """
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
[server.limits]
connections_max = 16384
{server}
[[endpoints]]
name = "scripted"
tier = "throughput"
backend = "openai"
base_url = "http://{engine}/v1"
idle_connections_max = 1024
[[endpoints]]
name = "scripted-latency"
tier = "latency"
backend = "openai"
base_url = "http://{engine}/v1"
idle_connections_max = 1024
[[models]]
name = "bench"
context_tokens_max = 2000000
route = "throughput-only"
[[models]]
name = "bench-latency"
context_tokens_max = 2000000
route = "latency-only"
"""


class Gateway:
    """A running one: its name, its URL and its process."""

    def __init__(self, name, command, url=None):
        """Starts it. Without a URL it says on a line `ready URL` where it listens; with one it is asked until it answers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FLASHLANE_")}
        environment |= {"RUST_LOG": "warn"} if url else {}
        out = subprocess.DEVNULL if url else subprocess.PIPE
        self.name = name
        self.child = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, text=True, env=environment)
        try:
            self.url = url or self._ready_line()
            if url:
                self._wait()
        except BaseException:
            self.stop()
            raise

    def _ready_line(self):
        for line in self.child.stdout:
            if line.startswith("ready "):
                address = line.split()[1]
                return address if "://" in address else f"http://{address}"
        raise SystemExit(f"e2e: {self.name} did not start")

    def _wait(self):
        """Until it passes a request on to the engine."""
        body = json.dumps({"model": MODELS[0], "messages": [{"role": "user", "content": "Go on."}]}).encode()
        until = time.monotonic() + READY_S_MAX
        while time.monotonic() < until and self.child.poll() is None:
            request = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=5)
            try:
                request.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
                if request.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            finally:
                request.close()
            time.sleep(0.2)
        raise SystemExit(f"e2e: {self.name} did not answer within {READY_S_MAX} s")

    def stop(self):
        self.child.kill()
        self.child.wait()


class Engine(http.server.BaseHTTPRequestHandler):
    """The engine until the bench plays it: some gateways want to have seen one before they are ready. It speaks HTTP/1.0,
    so that no connection outlives it."""

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "bench"} for name in MODELS]})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        message = {"role": "assistant", "content": "~"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self.answer({"id": "chatcmpl-0", "object": "chat.completion", "created": 1760000000, "model": MODELS[0], "choices": [choice], "usage": usage})

    def log_message(self, *_):
        pass


def build():
    """Builds the release; the folder of the binaries."""
    for package in ("flashlane-gateway", "flashlane-benches"):
        subprocess.run(["cargo", "build", "--release", "-p", package], cwd=ROOT, check=True)
    metadata = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    metadata = subprocess.run(metadata, cwd=ROOT, check=True, capture_output=True, text=True)
    return pathlib.Path(json.loads(metadata.stdout)["target_directory"]) / "release"


TLS = """
[server.tls]
certificate_file = "{scratch}/certificate.pem"
key_file = "{scratch}/key.pem"
"""


def ours(folder, scratch, tls=False):
    """flashlane, and the two comparisons from this repository; with `tls`, flashlane and the textbook gateway once more, with
    a certificate for loopback that is made here."""
    (scratch / "flashlane.toml").write_text(FLASHLANE.format(engine=ENGINE, server=""))
    commands = {
        "relay": [folder / "relay", "127.0.0.1:0", ENGINE],
        "baseline": [folder / "baseline", "127.0.0.1:0", f"http://{ENGINE}/v1"],
        "flashlane": [folder / "flashlane", "serve", "--config", scratch / "flashlane.toml"],
    }
    if tls:
        subprocess.run([folder / "certificate", scratch], check=True)
        (scratch / "tls.toml").write_text(FLASHLANE.format(engine=ENGINE, server=TLS.format(scratch=scratch)))
        files = [scratch / "certificate.pem", scratch / "key.pem"]
        commands["baseline TLS"] = [*commands["baseline"], *files]
        commands["flashlane TLS"] = [folder / "flashlane", "serve", "--config", scratch / "tls.toml"]
    for name, command in commands.items():
        yield Gateway(name, command)


def others(scratch):
    """What others made, as their documents say to start it before one engine that is there; all else is their default."""
    for name, version in OTHERS.items():
        binary = install(name, version)
        port, port_of_metrics = free_port(), free_port()
        router = ["--host", "127.0.0.1", "--port", str(port), "--worker-urls", f"http://{ENGINE}"]
        router += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(port_of_metrics)]
        command = {
            "agentic-api": [binary / "agentic-server", "--llm-api-base", f"http://{ENGINE}", "--gateway-host", "127.0.0.1"]
            + ["--gateway-port", str(port), "--db-url", f"sqlite://{scratch}/agentic.db?mode=rwc"],
            "smg": [binary / "smg", "launch", *router, "--backend", "openai", "--disable-tokenizer-autoload", "--log-level", "warn"],
            "vllm-router": [binary / "vllm-router", *router, "--log-level", "warning"],
        }[name]
        yield Gateway(name, command, f"http://127.0.0.1:{port}")


def install(name, version):
    """The folder of its binaries, in an environment of its own."""
    home = ROOT / ".deps" / "others" / f"{name}-{version}"
    if not (home / "installed").exists():
        print(f"e2e: installing {name} {version}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin" / "pip", "install", "--quiet", f"{name}=={version}"], check=True)
        (home / "installed").touch()
    return home / "bin"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class stand_in:
    """An engine for as long as gateways start: `with stand_in(): ...`."""

    def __enter__(self):
        host, port = ENGINE.split(":")
        self.server = http.server.ThreadingHTTPServer((host, int(port)), Engine)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
