"""Prometheus and promtool as tests/setup has put them there, or as they are on the path. Knows nothing of flashlane."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.parse
from pathlib import Path

from rig import ROOT, Process, fetch, poll_until


def program(name: str) -> str:
    """Where one of the two is."""
    unpacked = ROOT / ".deps/prometheus/usr/bin" / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    assert found, f"{name} is missing: tests/setup unpacks it where there is apt-get"
    return found


def promtool(*arguments: str, stdin: str = "", timeout_s: float = 120) -> str:
    """What promtool says; its complaint is the test's."""
    run = subprocess.run([program("promtool"), *arguments], input=stdin, capture_output=True, text=True, timeout=timeout_s)
    assert run.returncode == 0, f"{run.stdout}{run.stderr}"
    return run.stdout + run.stderr


class Prometheus:
    """A Prometheus of our own rules that scrapes one address every second."""

    def __init__(self, target: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = folder / "prometheus.yml"
        text = (ROOT / "deploy/prometheus.yml").read_text()
        text = text.replace("127.0.0.1:8701", target).replace("15s", "1s").replace("[alerts.yaml]", f"[{ROOT}/deploy/alerts.yaml]")
        assert target in text
        config.write_text(text)
        self._url = f"http://127.0.0.1:{port}"
        arguments = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        self.process = Process([program("prometheus"), *arguments])

    def query(self, expression: str) -> list[dict]:
        """An instant query's result."""
        answer = fetch(f"{self._url}/api/v1/query?query={urllib.parse.quote(expression, safe='')}")
        return json.loads(answer)["data"]["result"]

    def get(self, path: str) -> dict:
        return json.loads(fetch(self._url + path))["data"]

    def __enter__(self) -> Prometheus:
        poll_until(lambda: self._answers(), 30, "Prometheus is ready")
        return self

    def _answers(self) -> bool:
        try:
            return bool(fetch(f"{self._url}/-/ready"))
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        self.process.stop()
