"""What a change of tier costs the first token, with the conversation read before at the other tier and without: a split model on two llama.cpp servers with SmolLM2.

Users are answered by one engine and tools by the other, over one WebSocket. A turn that stays where the one before it was is what a turn is measured against that goes
over, with `prefill_on_handover` and without, turn by turn in the same rounds; each sends some 30 new tokens, and the client takes its time before it. HANDOVER_ROUNDS
(2) sets how many conversations each way has; what was measured is printed (`-s`).
"""

import json
import os
import re
import statistics
import time
from itertools import count

import pytest
from websockets.sync.client import connect

from rig import SERVER, Flashlane, RealModel, endpoint, fetch, poll_until

ROUNDS = int(os.environ.get("HANDOVER_ROUNDS", "2"))
MODEL = "smollm2-135m"
SPLIT = f'\n[[models]]\nname = "{MODEL}"\ncontext_tokens_max = 4096\nroute = "split"\n'
READS = "".join(f"\n[queue.{tier}]\nprefill_on_handover = true\nhandover_tokens_min = 16\nprefill_ms_max = 60000\n" for tier in ("latency", "throughput"))
RULES = "You are the keeper of a lighthouse at the sea. Answer in one short sentence, in plain words, and never mention the weather of any other place. " * 12
TOOLS = [{"type": "function", "name": "look", "description": "Looks out of the window.", "parameters": {"type": "object", "properties": {}}}]
SEEN = "Three ships from the north, a rowing boat near the rocks, two gulls on the rail, and behind them nothing but the calm grey sea"
FIRST = ("response.output_text.delta", "response.function_call_arguments.delta", "response.output_item.added")


@pytest.fixture(scope="module")
def engines():
    with RealModel(CTX="4096", SLOTS="4") as wafer, RealModel(CTX="4096", SLOTS="4") as gpu:
        yield wafer, gpu


def gateway(engines: tuple[RealModel, RealModel], more: str = "") -> Flashlane:
    names = (("wafer", "latency"), ("gpu", "throughput"))
    rows = [endpoint(*name, "openai", dialect="llama_cpp", base_url=f"{engine.url}/v1") for name, engine in zip(names, engines)]
    return Flashlane(SERVER + "".join(rows) + SPLIT + more)


class Conversation:
    """One WebSocket's, whose turns each wait until both engines are at rest."""

    def __init__(self, name: str, gateway: Flashlane, engines: tuple[RealModel, RealModel]) -> None:
        # The name comes first: no two share more than the template's first tokens.
        self._same = {"model": MODEL, "instructions": f"{name}. {RULES}", "tools": TOOLS, "max_output_tokens": 48, "temperature": 0, "store": False}
        self._socket = connect(f"ws://127.0.0.1:{gateway.port}/v1/responses")
        self._engines, self._previous, self._numbers = engines, None, count(1)
        self._call_id = ""

    def begin(self) -> None:
        """The first turn of all, which ends in a call."""
        self.user()
        assert self._call_id, "the model has called nothing"

    def user(self) -> float:
        """To the first token of what the throughput tier answers, in milliseconds."""
        said = {"role": "user", "content": f"{next(self._numbers)}. {SEEN}. Use the tool."}
        ms, response = self._turn([said], "default")
        self._call_id = next((item["call_id"] for item in response["output"] if item["type"] == "function_call"), "")
        return ms

    def tool(self) -> float:
        """The same of the latency tier, which is given what a tool has found: one that the model has called, or the client for it."""
        call_id = self._call_id or f"call_{next(self._numbers)}"
        called = [] if self._call_id else [{"type": "function_call", "call_id": call_id, "name": "look", "arguments": "{}"}]
        self._call_id = ""
        return self._turn([*called, {"type": "function_call_output", "call_id": call_id, "output": f"{next(self._numbers)}. {SEEN}."}], "priority")[0]

    def _turn(self, said: list[dict], service_tier: str) -> tuple[float, dict]:
        began_s, first_s = time.monotonic(), None
        self._socket.send(json.dumps({"type": "response.create", **self._same, "input": said, "previous_response_id": self._previous}))
        while (event := json.loads(self._socket.recv(timeout=120)))["type"] not in ("response.completed", "response.incomplete"):
            assert event["type"] not in ("error", "response.failed"), event
            if event["type"] in FIRST and first_s is None:
                first_s = time.monotonic()
        assert first_s is not None and event["response"]["service_tier"] == service_tier, event
        self._previous = event["response"]["id"]
        # What is read now was asked for before the last event came.
        time.sleep(0.05)
        poll_until(lambda: all(engine.metric("requests_processing") == 0 for engine in self._engines), 60, "engines at rest")
        return (first_s - began_s) * 1000, event["response"]

    def close(self) -> None:
        self._socket.close()


def handed_over(gateway: Flashlane, kind: str) -> int:
    rows = re.findall(rf'flashlane_prefill_tokens_total\{{cause="handover",kind="{kind}",tier="\w+"\}} (\d+)', fetch(f"{gateway.admin_url}/metrics"))
    return sum(map(int, rows))


@pytest.mark.timeout(max(240, 120 * ROUNDS))
def test_a_turn_that_goes_over_begins_as_soon_as_one_that_stays(engines):
    ttft_ms: dict[tuple[str, str], list[float]] = {}
    with gateway(engines) as without, gateway(engines, READS) as reading:
        for number in range(ROUNDS):
            talks = {way: Conversation(f"{way} {number}", of_way, engines) for way, of_way in (("without", without), ("with", reading))}
            for talk in talks.values():
                talk.begin()
            for what in ("tool goes over", "tool stays", "user goes over", "user stays"):
                for way, talk in talks.items():
                    ttft_ms.setdefault((way, what), []).append(talk.user() if what.startswith("user") else talk.tool())
            for talk in talks.values():
                talk.close()
        read, used = handed_over(reading, "input") - handed_over(reading, "cached"), handed_over(reading, "used")
        assert handed_over(without, "input") == 0
    medians = {what: statistics.median(times) for what, times in ttft_ms.items()}
    for who in ("tool", "user"):
        stays = statistics.median(ttft_ms["without", f"{who} stays"] + ttft_ms["with", f"{who} stays"])
        over = {way: medians[way, f"{who} goes over"] for way in ("without", "with")}
        print(f"\nto the first token, {who}: stays {stays:.0f} ms, goes over {over['without']:.0f} ms ({over['without'] / stays:.2f} x), read before {over['with']:.0f} ms ({over['with'] / stays:.2f} x)")
        # On machines at rest it is 1.2 at most: BENCHMARKS.
        assert over["with"] < 2 * stays and over["with"] < over["without"]
    print(f"tokens read before their turns: {read}, of them {used} of use: {1 - used / read:.1%} wasted, over {ROUNDS} conversations that end")
    assert 0 < used <= read
