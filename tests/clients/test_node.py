"""Clients for Node against flashlane: openai-node, OpenAI's Agents SDK and Vercel's AI SDK, each with a tool's round trip. The scripts in node/ are the clients; what
they print is looked at here."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from rig import ROOT
from wire_check import a_websocket_was_used, websocket_bytes

NODE_MODULES = ROOT / ".deps/npm/node_modules"
MODEL = "flashlane-demo"
ANSWER = "sunny at 21 degrees"


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """The scripts, where Node finds the packages."""
    folder = tmp_path_factory.mktemp("node") / "clients"
    shutil.copytree(Path(__file__).with_name("node"), folder)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    return folder


@pytest.fixture
def client(gateway, folder):
    def run(script: str, *arguments: str) -> dict:
        command = [str(shutil.which("node")), script, gateway.base_url, MODEL, *arguments]
        ran = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return json.loads(ran.stdout)

    return run


def test_openai_makes_a_tools_round_trip_over_each_transport(gateway, client):
    before = websocket_bytes(gateway)
    said = client("openai.mjs")
    a_websocket_was_used(gateway, before)
    assert list(said) == ["http", "stream", "websocket"]
    for transport, turn in said.items():
        assert turn["called"] == "get_weather", transport
        assert isinstance(turn["arguments"]["city"], str), transport
        assert ANSWER in turn["said"], transport


def test_openai_steers_and_interrupts(client):
    told = client("steer.mjs")
    assert (told["said"], told["follows"], told["reason"]) == ("steered by node", True, "interrupted")
    kinds = told["kinds"]
    assert kinds.index("response.steer.accepted") < kinds.index("response.incomplete") < kinds.index("response.completed") < kinds.index("response.interrupt.accepted")
    assert kinds[-2:] == ["response.output_item.interrupted", "response.incomplete"]


@pytest.mark.parametrize("transport", ["http", "websocket"])
def test_an_agent_asks_its_tool_and_answers(gateway, client, transport):
    before = websocket_bytes(gateway)
    said = client("agents.mjs", transport)
    if transport == "websocket":
        a_websocket_was_used(gateway, before)
    assert said["asked"] == 2
    assert ANSWER in said["said"] and ANSWER in said["streamed"]


@pytest.mark.parametrize("api", ["responses", "chat"])
def test_the_ai_sdk_takes_its_steps(client, api):
    said = client("ai.mjs", api)
    assert (said["asked"], said["steps"], said["finish"]) == (2, 2, "stop")
    assert ANSWER in said["said"] and ANSWER in said["streamed"]
    assert isinstance(said["object"]["name"], str)
    assert said["inputTokens"] > 0
    assert "Ada" in said["again"]
    assert said["references"] == (1 if api == "responses" else 0)
