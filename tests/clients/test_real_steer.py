"""Steers, interrupts and cancels at a real engine: SmolLM2 on llama.cpp's server, which keeps its prefix cache in slots.

What a steer takes to its first token is what the engine needs to stop, which it does between two tokens; what passes until it begins the steered prompt; and what it
needs for that prompt. The middle one is ours, and the engine's log tells it. Printed beside it, and not judged, since they say little on a busy machine: the whole time
by flashlane; by hand, which closes our half of the running request's connection, waits until the engine has closed its own, and sends the same messages; and that of the
same messages, as well cached, at an engine that has been at rest. STEER_ROUNDS (3) sets how many rounds there are.
"""

import http.client
import json
import os
import re
import socket
import statistics
import time
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import ClientConnection, connect

from rig import SERVER, Flashlane, endpoint, fetch, poll_until

MODEL = "smollm2-135m"
ROUNDS = int(os.environ.get("STEER_ROUNDS", "3"))
OURS_MS_MAX = 5
TOKENS_BEFORE = 24
STEER = "Stop. Answer with one short sentence about mountains instead."
MODELS = """
[[models]]
name = "smollm2-135m"
context_tokens_max = 8192
"""


@pytest.fixture(scope="module")
def gateway(real_model):
    engine = endpoint("engine", "throughput", "openai", dialect="llama_cpp", base_url=f"{real_model.url}/v1")
    with Flashlane(SERVER + engine + MODELS) as running:
        yield running


@pytest.fixture
def connection(gateway):
    with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as connection:
        yield connection


def story(name: str) -> str:
    """A question of its own, so that no slot knows more of it than the template."""
    return f"{name}. Write a long story about a lighthouse keeper, a storm, and the sea."


def begin(connection: ClientConnection, name: str, tokens_max: int = 64) -> str:
    """A long answer that has said some tokens; its id."""
    connection.send(json.dumps({"type": "response.create", "model": MODEL, "input": story(name), "max_output_tokens": tokens_max, "temperature": 0, "store": False}))
    response_id, deltas = "", 0
    while deltas < TOKENS_BEFORE:
        event = json.loads(connection.recv(timeout=60))
        response_id = event["response"]["id"] if event["type"] == "response.created" else response_id
        deltas += event["type"] == "response.output_text.delta"
        assert event["type"] not in ("error", "response.completed", "response.incomplete", "response.failed"), event
    return response_id


def wait_for_slots(real_model) -> float:
    """Until no slot works any more; how long that took, in seconds."""
    began_s = time.monotonic()
    poll_until(lambda: not any(slot["is_processing"] for slot in json.loads(fetch(f"{real_model.url}/slots"))), 10, "idle slots")
    return time.monotonic() - began_s


def prompt(name: str, said: str, steer: str) -> list[dict]:
    return [{"role": "user", "content": story(name)}, {"role": "assistant", "content": said}, {"role": "user", "content": steer}]


def of_the_steer(real_model) -> int:
    """Tokens of the steer's text, and of the template that closes the cut answer, opens the steer and the next answer."""
    body = {"content": f"<|im_end|>\n<|im_start|>user\n{STEER}<|im_end|>\n<|im_start|>assistant\n", "parse_special": True}
    return len(json.loads(fetch(f"{real_model.url}/tokenize", body))["tokens"])


def ours_ms(log: list[str]) -> float:
    """From where the engine let go of the cancelled request's slot to where it began the next one, by its log of both."""

    def when(lines: list[str], word: str) -> float:
        line = next(line for line in lines if word in line)
        minutes, seconds, ms, us = (int(part) for part in line.split(" ")[0].split("."))
        return (minutes * 60 + seconds) * 1000 + ms + us / 1000

    cancelled = next(re.search(r"cancel task, id_task = (\d+)", line) for line in log if "cancel task" in line)[1]
    after = next(place for place, line in enumerate(log) if "release" in line and f"task {cancelled} |" in line)
    return when(log[after + 1 :], "launch_slot_") - when(log[after:], "release")


class Direct:
    """One streamed request to the engine itself."""

    def __init__(self, url: str, messages: list[dict]) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = {"model": MODEL, "messages": messages, "stream": True, "max_tokens": 64, "temperature": 0}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        self._socket = self._connection.sock
        self._answer = self._connection.getresponse()

    def tokens(self, count: int) -> str:
        """What the next so many tokens say."""
        said = []
        while len(said) < count:
            line = self._answer.readline().decode()
            if line.startswith("data: {") and (content := json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content")):
                said.append(content)
        return "".join(said)

    def leave(self) -> None:
        """Ends it, and waits until the engine has."""
        self._socket.shutdown(socket.SHUT_WR)
        while self._answer.readline():
            pass
        self._connection.close()


def steered(connection: ClientConnection, name: str) -> tuple[float, dict]:
    """By flashlane: milliseconds to the successor's first token, and its usage."""
    running = begin(connection, name)
    sent_s = time.monotonic()
    connection.send(json.dumps({"type": "response.steer", "previous_response_id": running, "input": STEER}))
    first_ms, is_successor = 0.0, False
    while True:
        event = json.loads(connection.recv(timeout=60))
        assert event["type"] not in ("error", "response.steer.failed", "response.failed"), event
        is_successor |= event["type"] == "response.created"
        if is_successor and not first_ms and event["type"] == "response.output_text.delta":
            first_ms = (time.monotonic() - sent_s) * 1000
        if is_successor and event["type"] in ("response.completed", "response.incomplete"):
            return first_ms, event["response"]["usage"]


def steered_by_hand(real_model, name: str, rests: bool) -> float:
    """The same with the engine alone; where it `rests` in between, the clock begins after that."""
    first = Direct(real_model.url, [{"role": "user", "content": story(name)}])
    said = first.tokens(TOKENS_BEFORE)
    sent_s = time.monotonic()
    first.leave()
    if rests:
        wait_for_slots(real_model)
        sent_s = time.monotonic()
    second = Direct(real_model.url, prompt(name, said, STEER))
    second.tokens(1)
    first_ms = (time.monotonic() - sent_s) * 1000
    second.leave()
    return first_ms


def test_a_steer_finds_its_history_in_the_engines_slot(gateway, connection, real_model, capsys):
    allowed = of_the_steer(real_model)
    through, by_hand, resting, again, ours = [], [], [], [], []
    for number in range(ROUNDS):
        wait_for_slots(real_model)
        logged = len(real_model.process.lines)
        ms, usage = steered(connection, f"Round {number}")
        through.append(ms)
        again.append(usage["input_tokens"] - usage["input_tokens_details"]["cached_tokens"])
        wait_for_slots(real_model)
        ours.append(ours_ms(real_model.process.lines[logged:]))
        for row, rests in ((by_hand, False), (resting, True)):
            wait_for_slots(real_model)
            row.append(steered_by_hand(real_model, f"Hand {number} {rests}", rests))
    medians = [statistics.median(row) for row in (through, by_hand, resting)]
    with capsys.disabled():
        print(f"\nllama.cpp, {ROUNDS} rounds: tokens read again {again}, the steer's own {allowed}; from its stop to the steered prompt, median {statistics.median(ours):.2f} ms; "
              f"to the first token, medians: steer {medians[0]:.1f} ms, by hand {medians[1]:.1f} ms, at rest {medians[2]:.1f} ms")
    # The last token that was said may not have been read by the engine yet.
    assert max(again) <= allowed + 1
    assert statistics.median(ours) <= OURS_MS_MAX


@pytest.mark.parametrize("event", ["response.interrupt", "response.cancel"])
def test_an_interrupt_and_a_cancel_free_the_slot(connection, real_model, event):
    # Left alone it would go on for many seconds.
    running = begin(connection, event, tokens_max=4000)
    assert real_model.metric("requests_processing") == 1
    connection.send(json.dumps({"type": event, "response_id": running}))
    assert wait_for_slots(real_model) < 1
    while (end := json.loads(connection.recv(timeout=60)))["type"] != "response.incomplete":
        pass
    assert end["response"]["incomplete_details"]["reason"] == ("interrupted" if event == "response.interrupt" else "cancelled")


def test_what_follows_an_interrupt_finds_its_history(connection, real_model):
    wait_for_slots(real_model)
    running = begin(connection, "What follows")
    connection.send(json.dumps({"type": "response.interrupt", "response_id": running}))
    # The cut item is dropped; the question is still in the slot.
    connection.send(json.dumps({"type": "response.create", "model": MODEL, "input": "Something else.", "previous_response_id": running, "max_output_tokens": 8, "temperature": 0, "store": False}))
    ends = []
    while len(ends) < 2:
        event = json.loads(connection.recv(timeout=60))
        if event["type"] in ("response.completed", "response.incomplete"):
            ends.append(event["response"])
    assert ends[0]["incomplete_details"]["reason"] == "interrupted"
    usage = ends[-1]["usage"]
    template = of_the_steer(real_model)
    assert usage["input_tokens"] - usage["input_tokens_details"]["cached_tokens"] <= template
