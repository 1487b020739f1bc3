"""The blocks that `flashlane connect` prints, run as printed by the clients they are for; and a `flashlane chat` fed by a pipe."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from codex_cli import Codex
from rig import FLASHLANE, ROOT

NODE_MODULES = ROOT / ".deps/npm/node_modules"


def connect(*arguments: str, **environment: str) -> str:
    """What `flashlane connect` prints."""
    return subprocess.run([FLASHLANE, "connect", *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=10, check=True).stdout


def run(command: list[str | Path], folder: Path) -> str:
    ran = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_python_block_runs(gateway, tmp_path):
    (tmp_path / "hello.py").write_text(connect("python", "--url", gateway.base_url))
    said = run([sys.executable, "hello.py"], tmp_path)
    assert "Ada" in said, said


def test_the_node_block_runs(gateway, tmp_path):
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / "hello.mjs").write_text(connect("node", "--url", gateway.base_url))
    said = run([str(shutil.which("node")), "hello.mjs"], tmp_path)
    assert "Ada" in said, said


def test_the_curl_block_runs(gateway, tmp_path):
    (tmp_path / "hello.sh").write_text(connect("curl", "--url", gateway.base_url))
    said = run(["sh", "-eu", "hello.sh"], tmp_path)
    assert "response.completed" in said and "data: [DONE]" in said
    assert '"flashlane-demo"' in said


def test_codex_runs_on_the_config_that_connect_writes_and_undo_takes_it_out(gateway):
    with Codex("http://unused", "unused") as codex:
        path = codex.home / "config.toml"
        mine = '# mine\nmodel = "gpt-5.5"\ncheck_for_update_on_startup = false\n\n[analytics]\nenabled = false # no\n\n[features]\nplugins = false\n'
        path.write_text(mine)
        connect("codex", "--url", gateway.base_url, "--write", CODEX_HOME=str(codex.home))
        ran = codex.exec("Write a file hello.txt containing hi there")
        assert (codex.work / "hello.txt").read_text().strip() == "hi there", ran
        assert not ran.of_type("error"), ran.stdout
        connect("codex", "--undo", CODEX_HOME=str(codex.home))
        assert path.read_text() == mine


def test_codex_runs_on_the_printed_block_alone(gateway):
    with Codex("http://unused", "unused") as codex:
        (codex.home / "config.toml").write_text(connect("codex", "--url", gateway.base_url))
        ran = codex.exec("Write a file hello.txt containing hi there")
        assert (codex.work / "hello.txt").read_text().strip() == "hi there", ran
        assert not ran.of_type("error"), ran.stdout


def test_a_chat_fed_by_a_pipe_answers_on_stdout_and_tells_its_tier_beside(gateway):
    command = [FLASHLANE, "chat", "--url", gateway.base_url, "--model", "flashlane-demo"]
    ran = subprocess.run(command, input="My name is Ada.\nWhat is my name?\n", capture_output=True, text=True, timeout=20)
    assert ran.returncode == 0, ran.stderr
    assert "Ada" in ran.stdout
    assert "latency" in ran.stderr and "simulat" in ran.stdout + ran.stderr
