"""The processes of the soak: the gateway with its config, the simulated endpoints, the clients. It knows nothing of what is done to them, and when."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLASHLANE = Path(os.environ.get("FLASHLANE", ROOT / "target/ci/flashlane"))
LOG_BYTES_MAX = 32 << 20
PACES = {"wafer-1": (5, 4000), "wafer-2": (5, 4000), "gpu-1": (20, 1000), "gpu-2": (20, 1000)}

# What holds content or counts by design is small here, so that it is full before anything is measured.
CONFIG = """
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
[server.tls]
certificate_file = "{folder}/certificate.pem"
key_file = "{folder}/key.pem"
[server.limits]
handshakes_per_second_per_address_max = 0
handshakes_waiting_per_address_max = 0
background_turns_max = {background}
[session]
recognised_bytes_max = 4194304
recognised_bytes_per_key_max = 2097152
[routing]
affinity_entries_max = 1024
[store]
folder = "{folder}/data"
bytes_max = 16777216
records_max = 5000
usage_age_ms_max = 60000
[telemetry]
log_format = "json"
turns_kept_max = 1000
[limits.throughput]
requests_per_minute = {requests}
[queue.latency]
concurrency_max = {concurrency}
wait_ms_max = 500
[queue.throughput]
turns_max = {waiting}
first_token_ms_max = 4000
[[models]]
name = "quick"
route = "latency-first"
[[models]]
name = "roomy"
route = "throughput-first"
"""
KEY = '[[keys]]\nname = "{name}"\nsha256 = [{digests}]\n'
ENDPOINT = """
[[endpoints]]
name = "{name}"
tier = "{tier}"
backend = "openai"
base_url = "http://127.0.0.1:{port}/v1"
simulated = true
first_byte_ms_max = 4000
idle_ms_max = 4000
idle_connection_ms_max = 5000
weight = {weight}
"""


@dataclass
class Settings:
    """What reloads change."""

    keys: dict[str, list[str]]
    endpoints: dict[str, int]
    weights: dict[str, int] = field(default_factory=dict)
    background: int = 64
    requests: int = 1_000_000
    concurrency: int = 128
    waiting: int = 256

    def text(self, folder: Path) -> str:
        parts = [CONFIG.format(folder=folder, **{name: getattr(self, name) for name in ("background", "requests", "concurrency", "waiting")})]
        for name, port in self.endpoints.items():
            tier = "latency" if name.startswith("wafer") else "throughput"
            parts.append(ENDPOINT.format(name=name, tier=tier, port=port, weight=self.weights.get(name, 1)))
        for name, secrets in self.keys.items():
            digests = ", ".join(f'"{hashlib.sha256(secret.encode()).hexdigest()}"' for secret in secrets)
            parts.append(KEY.format(name=name, digests=digests))
        return "".join(parts)


class Simulator:
    """An endpoint in a process of its own, at a port that stays its own."""

    def __init__(self, name: str) -> None:
        self.first_token_ms, self.tokens_per_second = PACES[name]
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [FLASHLANE, "simulate", "--listen", f"127.0.0.1:{self.port}", "--first-token-ms", str(self.first_token_ms)]
        command += ["--tokens-per-second", str(self.tokens_per_second)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True)
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)/v1", self._process.stdout.readline())[1])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)


class Gateway:
    """The flashlane that is watched."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.config = folder / "flashlane.toml"
        self._folder, self._log = folder, folder / "log"
        self.write(settings)
        environment = {name: value for name, value in os.environ.items() if name != "FLASHLANE_CONFIG"}
        with self._log.open("ab") as log:
            command = [FLASHLANE, "serve", "--config", self.config]
            self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        found = None
        while not found:
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError(f"it did not start: {self._log.read_text()}")
            found = re.search(r'"admin":"http://127\.0\.0\.1:(\d+)","clients":"https://127\.0\.0\.1:(\d+)"', line)
        self.admin, self.port = int(found[1]), int(found[2])
        threading.Thread(target=self._process.stdout.read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def write(self, settings: Settings) -> None:
        self.write_text(settings.text(self._folder))

    def write_text(self, text: str) -> None:
        scratch = self.config.with_suffix(".new")
        scratch.write_text(text)
        scratch.rename(self.config)

    def hang_up(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    def errors(self) -> list[str]:
        """ERROR lines since the last look; the log is cut where it has become large."""
        if self._log.stat().st_size < LOG_BYTES_MAX:
            return []
        return self.last_errors()

    def last_errors(self) -> list[str]:
        with self._log.open(errors="replace") as log:
            # A bad file of ours is one, too.
            found = [line.strip() for line in log if '"level":"ERROR"' in line and "the config of before holds" not in line]
        os.truncate(self._log, 0)
        return found

    def metrics(self) -> Metrics:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=30) as answer:
            return Metrics(answer.read().decode())

    def stop(self) -> int:
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self._text = text

    def sum(self, name: str, label: str = "") -> float:
        """Of all rows of a metric that have the label, as `kind="internal"`."""
        rows = re.findall(rf"^{name}(?:\{{([^}}]*)\}})? (\S+)$", self._text, re.MULTILINE)
        return sum(float(value) for labels, value in rows if label in labels)


def memory(pid: int) -> dict[str, float]:
    """In MB (a million bytes)."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(rows[row].split()[0]) * 1024 / 1e6 for name, row in (("rss", "VmRSS"), ("anonymous", "RssAnon"))}


class Clients:
    """The process that makes the load."""

    def __init__(self, folder: Path, clients: int, seed: int) -> None:
        """With the first certificate in the folder."""
        command = [FLASHLANE.parent / "soak", str(folder), str(clients), str(seed)]
        self.counts: dict = {"turns": 0}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the clients did not start")

    def start(self, port: int) -> None:
        self.order(f"127.0.0.1:{port}")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def order(self, words: str) -> None:
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()

    def end(self, seconds: float) -> bool:
        """Lets them finish. False: some never did."""
        self.order("end")
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        is_over = self._process.poll() == 0
        self.kill()
        self._reader.join()
        return is_over

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        for line in self._process.stdout:
            self.counts = json.loads(line)
