"""What is left of the engines' work by sending a conversation where its prefix is cached, or is read ahead: two llama.cpp servers with SmolLM2 behind one flashlane.

Each engine's own words are what is compared: the `cached_tokens` of its usage, its /slots, its metrics; and, with a prompt that is read ahead and without in the same
rounds, the time to the first token. AFFINITY_CONVERSATIONS (4), AFFINITY_TURNS (3) and PREFILL_ROUNDS (2) set how much is said; what was measured is printed (`-s`).
"""

import http.client
import json
import os
import re
import statistics
import time
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect

from rig import SERVER, Flashlane, RealModel, endpoint, fetch, poll_until

CONVERSATIONS = int(os.environ.get("AFFINITY_CONVERSATIONS", "4"))
TURNS = int(os.environ.get("AFFINITY_TURNS", "3"))
PREFILL_ROUNDS = int(os.environ.get("PREFILL_ROUNDS", "2"))
CANCELS = 3
MODEL = "smollm2-135m"
MODELS = f'\n[[models]]\nname = "{MODEL}"\ncontext_tokens_max = 2048\n'
RULES = "You are the keeper of a lighthouse at the sea. Answer in one short sentence, in plain words, and never mention the weather of any other place. " * 2


@pytest.fixture(scope="module")
def engines():
    with RealModel(CTX="2048", SLOTS="6") as one, RealModel(CTX="2048", SLOTS="6") as other:
        yield one, other


def gateway(*engines: RealModel, more: str = "") -> Flashlane:
    rows = [endpoint(f"gpu-{number}", "throughput", "openai", dialect="llama_cpp", base_url=f"{engine.url}/v1") for number, engine in enumerate(engines)]
    return Flashlane(SERVER + "".join(rows) + MODELS + more)


class Conversation:
    """One that sends its whole history with each turn, over a connection of its own; or only what is new, over one WebSocket."""

    def __init__(self, name: str, over: Flashlane | None = None) -> None:
        # The name comes first: no two share more than the template's first tokens.
        self._instructions = f"{name}. {RULES}"
        self._items: list[dict] = []
        self._socket = connect(f"ws://127.0.0.1:{over.port}/v1/responses") if over else None
        self._previous: str | None = None
        self.usages: list[dict] = []

    def say(self, text: str, gateway: Flashlane) -> None:
        said = {"role": "user", "content": text}
        same = {"model": MODEL, "instructions": self._instructions, "max_output_tokens": 12, "temperature": 0, "store": False}
        if self._socket:
            response = over_websocket(self._socket, {**same, "input": [said], "previous_response_id": self._previous})
            self._previous = response["id"]
        else:
            response = json.loads(fetch(f"{gateway.base_url}/responses", {**same, "input": [*self._items, said]}, 60))
            self._items += [said, {"role": "assistant", "content": response["output"][0]["content"][0]["text"]}]
        self.usages.append(response["usage"])

    def close(self) -> None:
        if self._socket:
            self._socket.close()


def over_websocket(socket, request: dict) -> dict:
    """The response that a request comes to."""
    socket.send(json.dumps({"type": "response.create", **request}))
    while (event := json.loads(socket.recv(timeout=60)))["type"] not in ("response.completed", "response.incomplete"):
        assert event["type"] not in ("error", "response.failed"), event
    return event["response"]


def served_from_cache(conversations: list[Conversation]) -> float:
    """Of the prompt tokens that an earlier turn of the same conversation already sent, the share that the engines had in their caches."""
    pairs = [pair for conversation in conversations for pair in zip(conversation.usages, conversation.usages[1:])]
    sent = sum(before["input_tokens"] for before, _ in pairs)
    return sum(min(after["input_tokens_details"]["cached_tokens"], before["input_tokens"]) for before, after in pairs) / sent


def converse(conversations: list[Conversation], gateways: list[Flashlane]) -> None:
    """All conversations turn by turn. With several gateways, each turn goes to the next one."""
    for turn in range(TURNS):
        for number, conversation in enumerate(conversations):
            conversation.say(f"What do you see from the tower in hour {turn + 1}?", gateways[(number + turn) % len(gateways)])
    for conversation in conversations:
        conversation.close()


@pytest.mark.timeout(max(120, 10 * CONVERSATIONS * TURNS))
def test_a_conversation_finds_its_prefix_where_it_was(engines):
    with gateway(*engines) as one:
        # Every second one over a WebSocket, by its chain.
        with_affinity = [Conversation(f"Affinity {number}", one if number % 2 else None) for number in range(CONVERSATIONS)]
        converse(with_affinity, [one])
    # Behind a gateway each, in turns: what a balancer does that knows no conversation.
    with gateway(engines[0]) as first, gateway(engines[1]) as second:
        in_turns = [Conversation(f"Robin {number}") for number in range(CONVERSATIONS)]
        converse(in_turns, [first, second])
    affinity, robin = served_from_cache(with_affinity), served_from_cache(in_turns)
    print(f"\n{CONVERSATIONS} conversations of {TURNS} turns, prompts of {with_affinity[0].usages[0]['input_tokens']} to {with_affinity[0].usages[-1]['input_tokens']} tokens")
    print(f"of what an earlier turn already sent, from cache: {affinity:.1%} by affinity, {robin:.1%} in turns")
    assert affinity > 0.9
    assert robin < affinity


def test_a_cancel_frees_the_slot_for_the_next_turn(engines):
    freed_ms, next_ms = [], []
    with gateway(engines[0]) as one, connect(f"ws://127.0.0.1:{one.port}/v1/responses") as socket:
        for number in range(CANCELS):
            # Left alone it would go on for many seconds.
            socket.send(json.dumps({"type": "response.create", "model": MODEL, "input": f"{number}. Write a long story.", "max_output_tokens": 1500, "temperature": 0, "store": False}))
            events = [until(socket, "response.created"), until(socket, "response.output_text.delta")]
            assert working(engines[0]) == 1
            began_s = time.monotonic()
            socket.send(json.dumps({"type": "response.cancel", "response_id": events[0]["response"]["id"]}))
            poll_until(lambda: working(engines[0]) == 0, 10, "a free slot", every_s=0.002)
            freed_ms.append((time.monotonic() - began_s) * 1000)
            assert engines[0].metric("requests_processing") == 0
            until(socket, "response.incomplete")
            began_s = time.monotonic()
            over_websocket(socket, {"model": MODEL, "input": "Hi.", "max_output_tokens": 1, "store": False})
            next_ms.append((time.monotonic() - began_s) * 1000)
    freed, then = statistics.median(freed_ms), statistics.median(next_ms)
    print(f"\n{CANCELS} cancels, medians: {freed:.0f} ms until the slot is free, {then:.0f} ms for the whole next turn of one token")
    # The engine decides a token to its end, and the machine may be busy.
    assert freed < 500


def until(socket, kind: str) -> dict:
    """The next event of that type."""
    while (event := json.loads(socket.recv(timeout=60)))["type"] != kind:
        assert event["type"] not in ("error", "response.failed"), event
    return event


def working(engine: RealModel) -> int:
    return sum(slot["is_processing"] for slot in json.loads(fetch(f"{engine.url}/slots")))


@pytest.mark.timeout(max(120, 60 * PREFILL_ROUNDS))
def test_a_prompt_that_is_read_ahead_halves_the_time_to_the_first_token(engines):
    ttft_ms: dict[str, list[float]] = {"without": [], "read": [], "being read": []}
    with gateway(engines[0]) as without, gateway(engines[0], more="\n[queue.throughput]\nprefill_on_warm_up = true\nprefill_ms_max = 60000\n") as reading:
        for number in range(PREFILL_ROUNDS):
            for way, gateway_of_way in (("without", without), ("read", reading), ("being read", reading)):
                ttft_ms[way].append(first_turn_ms(gateway_of_way, f"{way} {number}", is_read=way == "read"))
    medians = {way: statistics.median(times) for way, times in ttft_ms.items()}
    compared = {way: statistics.median(overtaken_ms(engines[1], f"{way} {number}", way) for number in range(PREFILL_ROUNDS)) for way in ("waits", "cancels")}
    print(f"\nto the first token after a warm-up, medians of {PREFILL_ROUNDS} rounds: " + ", ".join(f"{way} {ms:.0f} ms" for way, ms in medians.items()))
    print("at the engine itself, of a turn that comes while its prefix is read: " + ", ".join(f"{way} {ms:.0f} ms" for way, ms in compared.items()))
    assert medians["read"] < medians["without"] / 2


def first_turn_ms(gateway: Flashlane, name: str, *, is_read: bool) -> float:
    """From a session's first turn to its first token. The warm-up before it names all but the question; with `is_read` its prompt has been read by then."""
    same = {"model": MODEL, "instructions": f"{name}. {RULES}", "temperature": 0, "max_output_tokens": 4, "store": False}
    read_before = prefills(gateway)
    with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as socket:
        warm_up = over_websocket(socket, {**same, "generate": False})
        if is_read:
            poll_until(lambda: prefills(gateway) > read_before, 60, "the prompt is read")
        began_s = time.monotonic()
        socket.send(json.dumps({"type": "response.create", **same, "input": "What do you see?", "previous_response_id": warm_up["id"]}))
        until(socket, "response.output_text.delta")
        took_ms = (time.monotonic() - began_s) * 1000
        until(socket, "response.incomplete")
    return took_ms


def prefills(gateway: Flashlane) -> int:
    counted = re.search(r'flashlane_prefills_total\{cause="warm-up",outcome="completed",tier="throughput"\} (\d+)', fetch(f"{gateway.admin_url}/metrics"))
    return int(counted[1]) if counted else 0


def overtaken_ms(engine: RealModel, name: str, way: str) -> float:
    """To the first token of a turn at the engine itself that comes 300 ms after a request of one token for its prefix: which it waits for, or cancels."""
    prefix = [{"role": "system", "content": f"{name}. {RULES}"}]
    ahead = Direct(engine, prefix, 1)
    time.sleep(0.3)
    began_s = time.monotonic()
    if way == "waits":
        ahead.read_to_the_end()
    ahead.close()
    turn = Direct(engine, [*prefix, {"role": "user", "content": "What do you see?"}], 4)
    turn.read_to_the_first_token()
    took_ms = (time.monotonic() - began_s) * 1000
    turn.read_to_the_end()
    turn.close()
    return took_ms


class Direct:
    """One streamed request to an engine itself."""

    def __init__(self, engine: RealModel, messages: list[dict], tokens_max: int) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(engine.url).netloc, timeout=60)
        body = {"model": MODEL, "messages": messages, "stream": True, "max_tokens": tokens_max, "temperature": 0}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        self._answer: http.client.HTTPResponse | None = None

    def read_to_the_first_token(self) -> None:
        self._answer = self._answer or self._connection.getresponse()
        while line := self._answer.readline().decode():
            if line.startswith("data: {") and json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content"):
                return

    def read_to_the_end(self) -> None:
        self._answer = self._answer or self._connection.getresponse()
        self._answer.read()

    def close(self) -> None:
        self._connection.close()
