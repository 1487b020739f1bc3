"""Starts and stops the processes that the tests need: flashlane itself, and a real model on llama.cpp.

Everything binds loopback on a free port, waits by polling until it is ready, and is ended by its own process id. It knows nothing about what a test wants to
see.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
FLASHLANE = Path(os.environ.get("FLASHLANE", ROOT / "target/ci/flashlane"))
READY = re.compile(r"ready http://127\.0\.0\.1:(\d+) admin http://127\.0\.0\.1:(\d+)")

# On free ports; endpoints follow.
SERVER = """
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
"""


def endpoint(name: str, tier: str, backend: str, **fields: str | int) -> str:
    """An endpoint of a config; more of its fields may follow."""
    fields = {"name": name, "tier": tier, "backend": backend, **fields}
    return "\n[[endpoints]]\n" + "".join(f"{field} = {json.dumps(value)}\n" for field, value in fields.items())


# What `flashlane serve` runs with no file, spelled out on free ports, so that a test may add to it.
DEMO = f"""{SERVER}{endpoint("wafer", "latency", "simulator")}{endpoint("gpu", "throughput", "simulator")}
[[models]]
name = "flashlane-demo"
context_tokens_max = 131072
"""
# Whose engine is at `base_url`; models follow.
ONE_ENGINE = SERVER + endpoint("engine", "throughput", "openai", base_url="{base_url}")
# A simulator that takes no time.
AT_ONCE = endpoint("at-once", "latency", "simulator", first_token_ms=0, tokens_per_second=0)


def poll_until(fits: Callable[[], object], timeout_s: float, what: str, every_s: float = 0.01) -> object:
    """Asks again and again until the answer is truthy, and returns it."""
    deadline = time.monotonic() + timeout_s
    while not (answer := fits()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        time.sleep(every_s)
    return answer


def fetch(url: str, body: dict | None = None, timeout_s: float = 10, method: str | None = None) -> str:
    """One request by the standard library; raises on a status that is no success."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"} if data else {}, method=method)
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return answer.read().decode()


def ports(line: str) -> tuple[int, int] | None:
    """Where clients and operators connect, of the line that says so: words, or an object where the log is JSON."""
    if line.startswith("{"):
        said = json.loads(line)
        line = f"ready {said['clients']} admin {said['admin']}" if said["message"] == "ready" else ""
    ready = READY.search(line)
    return (int(ready[1]), int(ready[2])) if ready else None


class Process:
    """A child whose output is kept line by line. Its two streams are read apart, so that no line of the one ends up within a line of the other."""

    def __init__(self, command: list[str | Path], environment: dict[str, str] | None = None) -> None:
        self.lines: list[str] = []
        inherited = {name: value for name, value in os.environ.items() if name != "FLASHLANE_CONFIG"}
        self._process = subprocess.Popen(
            command, env={**inherited, **(environment or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        streams = (self._process.stdout, self._process.stderr)
        self._readers = [threading.Thread(target=self._read, args=(stream,), daemon=True) for stream in streams]
        for reader in self._readers:
            reader.start()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def resident_bytes(self) -> int:
        """The memory it holds (Linux)."""
        rows = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmRSS:"))

    def wait_for(self, fits: Callable[[str], object], timeout_s: float) -> str:
        """The first line that fits. Without one the process is stopped, and what it said is in the error; one that has ended is not waited for."""

        def first() -> str | None:
            ended = self._process.poll() is not None and not any(reader.is_alive() for reader in self._readers)
            line = next((line for line in list(self.lines) if fits(line)), None)
            if line is None and ended:
                raise TimeoutError(f"it ended with {self._process.returncode}")
            return line

        try:
            return str(poll_until(first, timeout_s, "a certain line"))
        except TimeoutError as error:
            self.stop()
            raise RuntimeError(f"{error}; it said:\n{self.output}") from error

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to end, insists after five seconds, and returns its exit code."""
        self._process.send_signal(number)
        try:
            return self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        """Ends it without a word."""
        self._process.kill()
        self._process.wait()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.append(line.rstrip("\n"))


class Flashlane:
    """The gateway under test, with a config text or with none (the embedded default, on free ports)."""

    def __init__(self, config: str | None = DEMO, environment: dict[str, str] | None = None) -> None:
        self._config = config
        self._environment = {"NO_COLOR": "1", **(environment or {})}

    def __enter__(self) -> Flashlane:
        self._folder = tempfile.TemporaryDirectory(prefix="flashlane-")
        command: list[str | Path] = [FLASHLANE, "serve"]
        if self._config is None:
            command += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        else:
            path = Path(self._folder.name) / "flashlane.toml"
            path.write_text(self._config)
            command += ["--config", path]
        self.process = Process(command, self._environment)
        self.port, self.admin_port = ports(self.process.wait_for(ports, 10))
        poll_until(self._is_ready, 10, "/readyz")
        return self

    def __exit__(self, *_: object) -> None:
        # As Ctrl-C: after SIGTERM it listens on, for those who balance between servers.
        self.process.stop(signal.SIGINT)
        self._folder.cleanup()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def _is_ready(self) -> bool:
        try:
            fetch(f"{self.admin_url}/readyz")
        except OSError:
            return False
        return True


class RealModel:
    """SmolLM2 on llama.cpp's server, by tests/real-model, with settings of that in the environment."""

    def __init__(self, **environment: str) -> None:
        self._environment = environment

    def __enter__(self) -> RealModel:
        self.process = Process([ROOT / "tests/real-model", "0"], self._environment)
        ready = self.process.wait_for(lambda line: line.startswith("READY "), 120)
        self.url = ready.removeprefix("READY ")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def metric(self, name: str) -> float:
        """One of its own metrics, as `requests_processing`."""
        rows = (line.split() for line in fetch(f"{self.url}/metrics").splitlines() if line.startswith(f"llamacpp:{name} "))
        return float(next(rows)[1])
