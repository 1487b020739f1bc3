"""Steers in quick succession, clause 3.8 of docs/PROTOCOL.md, against an engine whose second answer is held back until both are there."""

import json
import threading

from websockets.sync.client import connect

from rig import ONE_ENGINE, Flashlane
from upstream import ScriptedUpstream

MODELS = """
[session]
announce_after_ms = 60000

[[models]]
name = "held"
context_tokens_max = 131072
"""


class HeldUpstream(ScriptedUpstream):
    """Answers its first request at once, and each later one when `may_answer` is set, unless its client has gone by then."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict] = []
        self.may_answer = threading.Event()

    def _stream(self, connection, request: dict) -> None:
        self.asked.append(request)
        if len(self.asked) > 1:
            self.may_answer.wait(10)
        try:
            super()._stream(connection, request)
        except ConnectionError:
            pass


def test_a_second_steer_joins_the_successor_that_is_being_made():
    with HeldUpstream() as engine, Flashlane(ONE_ENGINE.format(base_url=engine.base_url) + MODELS) as gateway:
        with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as socket:

            def until(kind: str) -> dict:
                while (event := json.loads(socket.recv(timeout=10)))["type"] != kind:
                    assert event["type"] not in ("error", "response.steer.failed", "response.failed"), event
                return event

            socket.send(json.dumps({"type": "response.create", "model": "held", "input": "count", "store": False}))
            steered = until("response.created")["response"]["id"]
            until("response.output_text.delta")
            steer = {"type": "response.steer", "previous_response_id": steered}
            socket.send(json.dumps({**steer, "input": "more slowly"}))
            assert until("response.incomplete")["response"]["incomplete_details"]["reason"] == "steered"
            socket.send(json.dumps({**steer, "input": "and backwards"}))
            assert until("response.steer.accepted")["steer"]["previous_response_id"] == steered
            engine.may_answer.set()
            assert until("response.created")["response"]["previous_response_id"] == steered
        assert [message["content"] for message in engine.asked[-1]["messages"]][-2:] == ["more slowly", "and backwards"]
