"""Profiles: `instructions_append` and `effort` of a model and of its tiers, as the engines get them: over both APIs and both transports, at engines of both contracts,
with a prefix that stays byte for byte what their caches have."""

import hashlib
import json
import urllib.request

import pytest
from openai import OpenAI
from websockets.sync.client import connect

from answering_engine import AnsweringEngine
from codex_cli import AppServer, Codex
from rig import ROOT, SERVER, Flashlane, endpoint, fetch
from scripted_responses import ScriptedResponses, message
from test_real_affinity import over_websocket

MODEL = "agent"
TOKEN = "flk_admin_0123456789abcdef"
LIGHT = 'Small, targeted edits.\nRun tests only when "asked".'
GENERAL = "Say what you do."
RULES = "You are a coding agent."
TOOLS = [{"type": "function", "name": "run", "parameters": {}}]
CALL = [{"role": "assistant", "tool_calls": [{"index": 0, "id": "c1", "function": {"name": "run", "arguments": "{}"}}]}]
# TOML's strings are JSON's here.
PROFILES = f"""
[[models]]
name = "{MODEL}"
route = "split"
upstream = {{ latency = "small", throughput = "large" }}
instructions_append = {json.dumps(GENERAL)}
latency = {{ instructions_append = {json.dumps(LIGHT)}, effort = "low" }}
"""


@pytest.fixture
def tiers():
    """The wafer, the GPU and the gateway before them."""
    with AnsweringEngine() as wafer, AnsweringEngine() as gpu:
        rows = endpoint("wafer", "latency", "openai", base_url=wafer.base_url) + endpoint("gpu", "throughput", "openai", base_url=gpu.base_url)
        with Flashlane(SERVER + rows + PROFILES) as gateway:
            yield wafer, gpu, gateway


def work(gateway: Flashlane, transport: str, steps: int) -> None:
    """A user's words, and then what tools gave, so many times: over one WebSocket by what is new alone, over HTTP with the whole history."""
    same = {"model": MODEL, "instructions": RULES, "tools": TOOLS, "store": False}
    items, fresh, previous = [], [{"role": "user", "content": "Mend it."}], None
    socket = connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") if transport == "websocket" else None
    for step in range(steps):
        if socket:
            response = over_websocket(socket, {**same, "input": fresh, "previous_response_id": previous})
        else:
            response = json.loads(fetch(f"{gateway.base_url}/responses", {**same, "input": [*items, *fresh]}))
        assert response["status"] == "completed", response
        items, previous = [*items, *fresh, *response["output"]], response["id"]
        fresh = [{"type": "function_call_output", "call_id": response["output"][-1]["call_id"], "output": f"ok {step}"}]
    if socket:
        socket.close()


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_each_tier_gets_its_own_and_what_was_sent_before_leads(tiers, transport):
    wafer, gpu, gateway = tiers
    wafer.deltas = gpu.deltas = CALL
    work(gateway, transport, 4)
    assert (len(gpu.asked), len(wafer.asked)) == (1, 3)
    assert gpu.asked[0]["messages"][0] == {"role": "system", "content": f"{RULES}\n\n{GENERAL}"}
    assert "reasoning_effort" not in gpu.asked[0]
    for asked in wafer.asked:
        assert asked["messages"][0] == {"role": "system", "content": f"{RULES}\n\n{LIGHT}"}
        assert [message["role"] for message in asked["messages"]].count("system") == 1
        assert (asked["model"], asked["reasoning_effort"]) == ("small", "low")
    for before, after in zip(wafer.bodies, wafer.bodies[1:]):
        assert before.endswith(b"]}") and after.startswith(before[:-2])


def test_chat_completions_have_it_too(tiers):
    wafer, gpu, gateway = tiers
    parts = [{"type": "text", "text": RULES}]
    with OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:

        def of(first: list[dict], **more: object) -> dict:
            client.chat.completions.create(model=MODEL, messages=[*first, {"role": "user", "content": "hi"}], extra_headers={"x-flashlane-tier": "latency"}, **more)
            return wafer.asked[-1]

        asked = of([{"role": "developer", "content": RULES}])
        assert asked["messages"] == [{"role": "developer", "content": f"{RULES}\n\n{LIGHT}"}, {"role": "user", "content": "hi"}]
        assert asked["reasoning_effort"] == "low"
        asked = of([{"role": "system", "content": parts}], reasoning_effort="high")
        assert asked["messages"][0]["content"] == [*parts, {"type": "text", "text": f"\n\n{LIGHT}"}]
        assert asked["reasoning_effort"] == "high"
        assert of([])["messages"][0] == {"role": "system", "content": LIGHT}
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
    assert gpu.asked[-1]["messages"][0] == {"role": "system", "content": GENERAL} and "reasoning_effort" not in gpu.asked[-1]


@pytest.mark.parametrize("transport", ["http", "websocket"])
def test_a_server_of_the_responses_api_has_it_in_its_instructions(transport):
    with ScriptedResponses(lambda request, turn: [message("yes")]) as engine:
        rows = endpoint("inner", "latency", "responses", base_url=engine.base_url, transport=transport)
        model = f'\n[[models]]\nname = "{MODEL}"\ninstructions_append = {json.dumps(LIGHT)}\neffort = "minimal"\n'
        with Flashlane(SERVER + rows + model) as gateway, OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
            first = client.responses.create(model=MODEL, input="hi", instructions=RULES)
            client.responses.create(model=MODEL, input="and then", instructions=RULES, previous_response_id=first.id, reasoning={"effort": "high"})
            client.responses.create(model=MODEL, input="alone")
        asked = engine.seen.requests
    assert [request["instructions"] for request in asked] == [f"{RULES}\n\n{LIGHT}"] * 2 + [LIGHT]
    assert [request["reasoning"]["effort"] for request in asked] == ["minimal", "high", "minimal"]
    assert asked[1]["input"][: len(asked[0]["input"])] == asked[0]["input"]


@pytest.mark.parametrize("websockets", [True, False], ids=["websocket", "http"])
def test_codex_has_it_behind_its_own_first_words(websockets):
    """Codex sends no `instructions`, but a developer message that leads its input."""
    model = f'\n[[models]]\nname = "{MODEL}"\ninstructions_append = {json.dumps(LIGHT)}\neffort = "low"\n'
    with AnsweringEngine() as engine, Flashlane(SERVER + endpoint("wafer", "latency", "openai", base_url=engine.base_url) + model) as gateway:
        with Codex(gateway.base_url, MODEL, websockets) as codex, AppServer(codex) as app:
            thread = app.start_thread(codex.work)
            for text in ("hello", "and again"):
                app.start_turn(thread, text)
                assert app.notification("turn/completed")["turn"]["status"] == "completed"
    first, second = engine.bodies
    for asked in engine.asked:
        assert asked["messages"][0]["content"].startswith("You are a coding agent") and asked["messages"][0]["content"].endswith(f"\n\n{LIGHT}")
        assert (json.dumps(asked).count("Small, targeted edits."), asked["reasoning_effort"]) == (1, "low")
    assert second.startswith(first[:-2])


def test_operators_see_it():
    admin = f'\n[server.admin]\ntoken_sha256 = ["{hashlib.sha256(TOKEN.encode()).hexdigest()}"]\n'
    rows = endpoint("wafer", "latency", "simulator") + endpoint("gpu", "throughput", "simulator")
    with Flashlane(SERVER + admin + rows + PROFILES) as gateway:
        request = urllib.request.Request(f"{gateway.admin_url}/config", headers={"authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            shown = json.load(answer)["config"]["models"][0]
    assert (shown["instructions_append"], shown["effort"]) == (GENERAL, None)
    assert (shown["latency"]["instructions_append"], shown["latency"]["effort"], shown["throughput"]["effort"]) == (LIGHT, "low", None)


def test_the_example_ships_a_light_one_that_is_off():
    """What stands behind `# ` is a config as well."""
    lines = (ROOT / "deploy/flashlane.toml").read_text().splitlines()
    begins = next(at for at, line in enumerate(lines) if line.startswith("# latency = { effort"))
    assert not any(line.startswith("latency =") for line in lines)
    light = lines[begins].removeprefix("# ")
    with AnsweringEngine() as wafer:
        rows = endpoint("wafer", "latency", "openai", base_url=wafer.base_url)
        with Flashlane(f'{SERVER}{rows}\n[[models]]\nname = "{MODEL}"\n{light}\n') as gateway:
            fetch(f"{gateway.base_url}/responses", {"model": MODEL, "input": "hi"})
    text = wafer.asked[0]["messages"][0]["content"]
    assert "small" in text.lower() and "tests" in text and wafer.asked[0]["reasoning_effort"] == "low", text


def test_a_real_engine_keeps_what_it_has_cached(real_model):
    """The turns after the first read what is new alone."""
    model = f'\n[[models]]\nname = "smollm2-135m"\ncontext_tokens_max = 2048\ninstructions_append = {json.dumps(LIGHT * 4)}\n'
    with Flashlane(SERVER + endpoint("real", "throughput", "openai", dialect="llama_cpp", base_url=f"{real_model.url}/v1") + model) as gateway:
        usages, previous = [], None
        with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as socket:
            for text in ("Name a port.", "And another.", "A third."):
                same = {"model": "smollm2-135m", "instructions": RULES * 4, "max_output_tokens": 8, "temperature": 0, "store": False}
                response = over_websocket(socket, {**same, "input": text, "previous_response_id": previous})
                usages.append(response["usage"])
                previous = response["id"]
    for before, after in zip(usages, usages[1:]):
        # The last tokens of a prompt open the answer, and a template may write them otherwise once it has one.
        assert after["input_tokens_details"]["cached_tokens"] >= before["input_tokens"] - 8, usages
    assert usages[0]["input_tokens"] > 80, "with the profile"
