"""The real Codex CLI as a subprocess: a fresh home folder with a provider that points at one address, `codex exec`, and `codex app-server`.

Knows how to run the binary offline and nothing about what it should send or be answered.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / ".deps/npm/node_modules/@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex"

CONFIG = """\
model = "{model}"
model_provider = "gateway"
check_for_update_on_startup = false
{top}
[analytics]
enabled = false

[features]
plugins = false

[model_providers.gateway]
name = "gateway"
base_url = "{base_url}"
env_key = "GATEWAY_API_KEY"
wire_api = "responses"
supports_websockets = {websockets}
request_max_retries = 1
stream_max_retries = 2
stream_idle_timeout_ms = 10000
websocket_connect_timeout_ms = 3000
{provider}"""


@dataclass
class Finished:
    """A finished `codex exec`: its exit code, what it said on each stream, and its last message."""

    exit_code: int
    stdout: str
    stderr: str
    last_message: str

    @property
    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.stdout.splitlines() if line.startswith("{")]

    def of_type(self, item_type: str) -> list[dict]:
        """The completed items of one type."""
        items = (e["item"] for e in self.events if e["type"] == "item.completed")
        return [item for item in items if item.get("type") == item_type]


class Codex:
    """One home folder and one work folder, both temporary."""

    def __init__(self, base_url: str, model: str, websockets: bool = True, catalog_url: str | None = None, top: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="flashlane-codex-", ignore_cleanup_errors=True)
        self.home = Path(self._folder.name) / "home"
        self.work = Path(self._folder.name) / "work"
        self.home.mkdir()
        self.work.mkdir()
        provider = f'model_catalog_url = "{catalog_url}"\n' if catalog_url else ""
        config = CONFIG.format(model=model, base_url=base_url, websockets=str(websockets).lower(), provider=provider, top=top)
        (self.home / "config.toml").write_text(config)

    def __enter__(self) -> Codex:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "CODEX_HOME": str(self.home), "GATEWAY_API_KEY": "sk-dummy", "RUST_LOG": "error"}

    def exec(self, prompt: str, timeout_s: float = 60) -> Finished:
        """Runs one prompt to its end. Always bounded: Codex waits for ever for a network that refuses it."""
        last = self.home / "last.txt"
        command = [BINARY, "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-o", last, prompt]
        ran = subprocess.run(command, cwd=self.work, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
        return Finished(ran.returncode, ran.stdout, ran.stderr, last.read_text() if last.exists() else "")


class AppServer:
    """`codex app-server`: JSON-RPC, one message a line, over its stdin and stdout."""

    def __init__(self, codex: Codex) -> None:
        self._process = subprocess.Popen(
            [BINARY, "app-server"], cwd=codex.work, env=codex.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._passed: list[dict] = []
        self._requests = 0
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> AppServer:
        self.request("initialize", {"clientInfo": {"name": "flashlane-tests", "title": "flashlane tests", "version": "1"}})
        self._write({"method": "initialized"})
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def request(self, method: str, params: dict, timeout_s: float = 20) -> dict:
        """Sends a request and returns its result."""
        self._requests += 1
        number = self._requests
        self._write({"id": number, "method": method, "params": params})
        answer = self.wait(lambda m: m.get("id") == number and "method" not in m, timeout_s)
        assert "result" in answer, answer
        return answer["result"]

    def notification(self, method: str, timeout_s: float = 20) -> dict:
        """Waits for the next notification of that name, those passed over before included, and returns its parameters."""
        return self.wait(lambda m: m.get("method") == method, timeout_s).get("params", {})

    def wait(self, fits: Callable[[dict], bool], timeout_s: float) -> dict:
        for at, message in enumerate(self._passed):
            if fits(message):
                return self._passed.pop(at)
        deadline = time.monotonic() + timeout_s
        while True:
            message = json.loads(self._lines.get(timeout=max(0.001, deadline - time.monotonic())))
            if fits(message):
                return message
            self._passed.append(message)

    def start_thread(self, work: Path) -> str:
        """A thread that needs no approval for anything; returns its id."""
        return self.request("thread/start", {"cwd": str(work), "approvalPolicy": "never", "sandbox": "danger-full-access"})["thread"]["id"]

    def start_turn(self, thread_id: str, text: str) -> str:
        return self.request("turn/start", {"threadId": thread_id, "input": [{"type": "text", "text": text}]})["turn"]["id"]

    def _write(self, message: dict) -> None:
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
