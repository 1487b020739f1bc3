"""What reads the files of deploy/ where they are used, asked for its opinion: systemd, the linter of Dockerfiles, Kubernetes' schemas, a reader of compose files, Grafana's types.
`tests/service` runs the units under a systemd; nothing here does."""

import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from rig import AT_ONCE, FLASHLANE, ROOT, SERVER, fetch, poll_until

DEPLOY = ROOT / "deploy"
TOOLS = ROOT / ".deps/deploy/bin"
UNITS = ["flashlane.service", "flashlane.socket", "flashlane-admin.socket"]
# Of ten at worst; systemd calls up to 2 "OK".
EXPOSURE_MAX = 1.4
# What Prometheus' annotations have and the types of Grafana 10.1 do not.
NOT_IN_TYPES = {"annotations.list.titleFormat"}


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def tool(name: str) -> Path:
    if not (TOOLS / name).exists():
        pytest.skip(f"{name} is not there: tests/setup installs it from PyPI")
    return TOOLS / name


def of_systemd(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"{name} is not there: Debian's package systemd brings it")


def test_systemd_reads_the_units_without_complaint(tmp_path):
    analyze = of_systemd("systemd-analyze")
    for unit in UNITS:
        (tmp_path / unit).write_text((DEPLOY / unit).read_text().replace("/usr/local/bin/flashlane", str(FLASHLANE)))
    verified = run(analyze, "verify", "--man=no", *(tmp_path / unit for unit in UNITS), env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"})
    ours = [line for line in verified.stderr.splitlines() if "flashlane" in line]
    assert (verified.returncode, ours) == (0, []), verified.stderr
    judged = run(analyze, "security", "--offline=true", f"--threshold={EXPOSURE_MAX * 10:.0f}", "--no-pager", tmp_path / "flashlane.service")
    assert judged.returncode == 0, judged.stdout.splitlines()[-1]


def test_systemd_activates_it_by_sockets_and_the_first_who_connects_is_served(tmp_path):
    activate = of_systemd("systemd-socket-activate")
    config = tmp_path / "flashlane.toml"
    config.write_text(f'{SERVER}{AT_ONCE}\n[[models]]\nname = "flashlane-demo"\nroute = "latency-only"\n')
    ports = [free_port(), free_port()]
    sockets = [f"--listen=127.0.0.1:{port}" for port in ports]
    # In the names' other order: they decide.
    command = [activate, *sockets, "--fdname=admin:clients", FLASHLANE, "serve", "--config", config]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert asked(f"http://127.0.0.1:{ports[1]}/v1/models")["data"][0]["id"] == "flashlane-demo"
        assert asked(f"http://127.0.0.1:{ports[0]}/limits")
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def asked(url: str) -> dict:
    """The answer, as soon as somebody listens there: who has connected once is not refused."""

    def answer() -> str | None:
        try:
            return fetch(url)
        except OSError as error:
            if not isinstance(getattr(error, "reason", None), ConnectionRefusedError):
                raise
            return None

    return json.loads(poll_until(answer, 20, url, 0.05))


def test_the_dockerfile_has_nothing_that_its_linter_names():
    linted = run(tool("hadolint"), "--failure-threshold", "info", DEPLOY / "Dockerfile")
    assert linted.returncode == 0, linted.stdout
    # One toolchain, wherever it is built.
    toolchain = re.search(r'channel = "(.+)"', (ROOT / "rust-toolchain.toml").read_text())[1]
    assert f"/rust:{toolchain}-" in (DEPLOY / "Dockerfile").read_text()


def test_kubernetes_takes_each_resource():
    for version in ("1.31", "1.37"):
        judged = run(tool("kubernetes-validate"), "--strict", "--kubernetes-version", version, DEPLOY / "kubernetes.yaml")
        said = judged.stdout + judged.stderr
        assert judged.returncode == 0 and said.count("passed for resource") == 3, said


def test_compose_is_read_and_each_file_that_it_mounts_is_there():
    read = run(tool("podman-compose"), "--file", DEPLOY / "compose.yaml", "config")
    assert read.returncode == 0, read.stderr
    services = yaml.safe_load(read.stdout)["services"]
    assert set(services) == {"flashlane", "prometheus", "grafana"}
    mounted = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    files = [DEPLOY / name for name in mounted if name.startswith("./")]
    assert len(files) == 5 and all(file.is_file() for file in files), files
    assert (ROOT / services["flashlane"]["build"]["dockerfile"]).is_file()


READ_BY_GRAFANAS_TYPES = """
import json, sys
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
register_default_plugins()
print(JSONEncoder().encode(Dashboard.from_json(json.load(open(sys.argv[1])))))
"""


def lost(sent, kept, at: str = ""):
    """Where something of what was sent is not in what was kept of it."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for name, value in sent.items():
            yield from lost(value, kept.get(name), f"{at}.{name}".lstrip("."))
    elif isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        for value, other in zip(sent, kept):
            yield from lost(value, other, at)
    elif sent != kept:
        yield at


def test_grafanas_own_types_keep_all_of_the_dashboard():
    dashboard = DEPLOY / "grafana-dashboard.json"
    read = run(tool("python"), "-c", READ_BY_GRAFANAS_TYPES, dashboard)
    assert read.returncode == 0, read.stderr
    assert set(lost(json.loads(dashboard.read_text()), json.loads(read.stdout))) == NOT_IN_TYPES
