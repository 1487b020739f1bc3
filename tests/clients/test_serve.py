"""`flashlane serve` as its operator meets it: how it starts, what it says, how it ends, and its admin pages."""

import json
import subprocess
import time
import urllib.error

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from rig import DEMO, FLASHLANE, Flashlane, Process, fetch


def run(*arguments: str, timeout_s: float = 10) -> subprocess.CompletedProcess:
    return subprocess.run([FLASHLANE, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)


def test_it_is_ready_within_a_second_and_says_what_to_do_next():
    began_at_s = time.monotonic()
    with Flashlane(config=None) as gateway:
        assert time.monotonic() - began_at_s < 1
        said = gateway.process.output
    assert "simulat" in said
    assert "flashlane chat" in said
    for client in ("codex", "python", "node", "curl"):
        assert client in said


def test_a_taken_port_names_the_setting_that_changes_it(gateway):
    second = run("serve", "--listen", f"127.0.0.1:{gateway.port}", "--admin-listen", "127.0.0.1:0")
    assert second.returncode not in (0, 101)
    assert "listen" in second.stderr and str(gateway.port) in second.stderr


def test_a_bad_config_names_its_line_and_ends_with_64(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(DEMO + 'colour = "red"\n')
    checked = run("serve", "--config", str(path), "--check")
    assert checked.returncode == 64
    assert "colour" in checked.stderr
    line = 1 + DEMO.count("\n")
    assert str(line) in checked.stderr


def test_a_good_config_passes_the_check(tmp_path):
    path = tmp_path / "good.toml"
    path.write_text(DEMO)
    assert run("serve", "--config", str(path), "--check").returncode == 0


def test_a_termination_closes_sockets_cleanly_and_ends_with_zero():
    # The times of a service behind a balancer are longer than a test has.
    config = DEMO + "\n[server.drain]\nlisten_ms = 200\nidle_ms = 500\n"
    with Flashlane(config) as gateway, connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as connection:
        assert gateway.process.stop() == 0
        with pytest.raises(ConnectionClosedError):
            connection.recv(timeout=5)
        assert connection.protocol.close_rcvd.code == 1012


def test_the_admin_pages_answer(gateway):
    assert fetch(f"{gateway.admin_url}/livez")
    assert fetch(f"{gateway.admin_url}/readyz")
    assert "# TYPE flashlane_" in fetch(f"{gateway.admin_url}/metrics")


def test_an_event_stream_ends_in_done(gateway):
    said = fetch(f"{gateway.base_url}/responses", {"model": "flashlane-demo", "input": "hello", "stream": True})
    events = said.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    for event in events[:-1]:
        name, data = event.split("\n")
        assert name == "event: " + json.loads(data.removeprefix("data: "))["type"]


def test_http_2_is_spoken(gateway):
    command = ["curl", "-sS", "--http2-prior-knowledge", "-w", " %{http_version}", f"{gateway.base_url}/models"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    assert answer.endswith(" 2")
    assert "flashlane-demo" in answer


def test_the_simulator_serves_on_its_own_and_is_recognised(tmp_path):
    """`flashlane simulate` plays an engine; `serve --throughput` asks it what it has."""
    engine = Process([FLASHLANE, "simulate", "--listen", "127.0.0.1:0", "--profile", "gpu"])
    try:
        url = engine.wait_for(lambda line: "http://127.0.0.1:" in line, 5)
        base_url = "http://127.0.0.1:" + url.split("http://127.0.0.1:")[1].split("/")[0].split()[0] + "/v1"
        listed = json.loads(fetch(f"{base_url}/models"))["data"]
        assert listed[0]["owned_by"] == "simulator"
        gateway = Process([FLASHLANE, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--throughput", base_url])
        try:
            gateway.wait_for(lambda line: base_url in line and "base_url" in line, 5)
        finally:
            gateway.stop()
    finally:
        engine.stop()


def test_the_version_and_the_help_of_every_verb():
    version = run("--version").stdout
    assert version.startswith("flashlane 0.")
    for verb in ("serve", "chat", "connect", "simulate"):
        said = run(verb, "--help")
        assert said.returncode == 0
        assert "flashlane " + verb in said.stdout


def test_limits_change_while_it_runs_and_clients_are_told():
    with Flashlane() as gateway:
        def limits() -> dict:
            return json.loads(fetch(f"{gateway.admin_url}/limits"))["latency"]

        before = limits()
        patch = {"limits": {"requests_per_minute": 1}, "queue": {"wait_ms_max": 0}}
        changed = json.loads(fetch(f"{gateway.admin_url}/limits/latency", patch, method="PATCH"))
        assert changed == limits()
        assert changed == {"limits": before["limits"] | patch["limits"], "queue": before["queue"] | patch["queue"]}
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(f"{gateway.admin_url}/limits/latency", {"queue": {"ttft_ms_max": 0}}, method="PATCH")
        assert refused.value.code == 400
        assert json.load(refused.value)["error"]["param"] == "queue.ttft_ms_max"
        assert changed == limits()
        assert 'flashlane_limit_changes_total{tier="latency"} 1' in fetch(f"{gateway.admin_url}/metrics")
