"""`response.steer` by the official clients, each path of it, and how soon it takes effect."""

import json
import statistics
import time

import openai
import pytest
from openai.types.responses import ResponseSteerAcceptedEvent, ResponseSteerFailedEvent, ResponseSteerPendingEvent
from websockets.sync.client import connect

import strict
from rig import Flashlane
from test_openai_python import texts, until_completed

MODEL = "flashlane-demo"
# Slow enough that a call can be steered while it is made.
SLOW = "flashlane-demo-gpu"
GET_WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
APPLY_PATCH = {"type": "custom", "name": "apply_patch"}
ROUNDS = 15
STEER_MS_MAX = 5


@pytest.fixture(scope="module")
def client(gateway):
    with openai.OpenAI(base_url=gateway.base_url, api_key="sk-dummy", max_retries=0, timeout=20) as client:
        yield client


def until(connection, kind: str) -> list:
    """The events up to the first of a kind."""
    events = []
    while not events or events[-1].type != kind:
        events.append(connection.recv())
        strict.check_type(events[-1].to_dict())
    return events


def failure(connection) -> ResponseSteerFailedEvent:
    event = until(connection, "response.steer.failed")[-1]
    assert isinstance(event, ResponseSteerFailedEvent)
    return event


def test_messages_steer_and_several_steers_are_joined(client):
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input="count from 1 to 2000", store=False)
        events = until(connection, "response.output_text.delta")
        running = events[0].response.id
        message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "repeat: by a message"}]}
        connection.response.steer(previous_response_id=running, input=[message])
        events += until(connection, "response.steer.accepted")
        accepted = events[-1]
        assert isinstance(accepted, ResponseSteerAcceptedEvent) and accepted.steer.previous_response_id == running
        events += until(connection, "response.incomplete")
        strict.check([event.to_dict() for event in events])
        assert events[-1].response.incomplete_details.reason == "steered"
        assert events[-1].response.output[-1].status == "incomplete"
        assert texts(until_completed(connection)) == "by a message"


@pytest.mark.parametrize("tool", [GET_WEATHER, APPLY_PATCH], ids=lambda tool: tool["type"])
def test_a_steer_of_a_call_waits_for_its_output(client, tool):
    with client.responses.connect() as connection:
        connection.response.create(model=SLOW, input=f"call {tool['name']}", tools=[tool], store=False)
        events = until(connection, "response.output_item.added")
        running = events[0].response.id
        for words in ("My name is Ada.", "what is my name"):
            connection.response.steer(previous_response_id=running, input=words)
        events += until(connection, "response.completed")
        call = events[-1].response.output[-1]
        pending = [until(connection, "response.steer.pending")[-1] for _ in range(2)]
        strict.check([event.to_dict() for event in [*events, *pending]])
        assert all(isinstance(event, ResponseSteerPendingEvent) and event.reason == "waiting_for_required_input" for event in pending)
        [stub] = pending[0].required_input
        assert stub == pending[1].required_input[0]
        assert (stub.type, stub.call_id) == (f"{call.type}_output", call.call_id)
        connection.response.create(
            model=MODEL, input=[{**stub.to_dict(), "output": "done"}], tools=[tool], tool_choice="none", previous_response_id=running, store=False
        )
        # The words of the steers stand behind the output, and are not sent again.
        assert "Ada" in texts(until_completed(connection))


def test_a_steer_that_cannot_be_used_comes_back_with_its_reason(client):
    with client.responses.connect() as connection:
        connection.response.steer(previous_response_id="resp_" + "0" * 32, input="repeat: nobody")
        failed = failure(connection)
        assert (failed.error.code, failed.steer.input) == ("response_not_found", "repeat: nobody")

        connection.response.create(model=MODEL, input="repeat: over", store=False)
        over = until_completed(connection)[-1].response.id
        connection.response.steer(previous_response_id=over, input="repeat: too late")
        assert failure(connection).error.code == "response_already_completed"

        connection.response.create(model=SLOW, input="call get_weather", tools=[GET_WEATHER], store=False)
        running = until(connection, "response.output_item.added")[0].response.id
        for wrong in ("", []):
            connection.response.steer(previous_response_id=running, input=wrong)
            assert failure(connection).error.code == "invalid_input"
        for _ in range(17):
            connection.response.steer(previous_response_id=running, input="more")
        failed = failure(connection)
        assert (failed.error.code, failed.steer.input) == ("too_many_pending_steers", "more")

        # The lane goes another way: what had been accepted comes back.
        until(connection, "response.completed")
        connection.response.create(model=MODEL, input="repeat: elsewhere", store=False)
        assert failure(connection).error.code == "response_not_active"
        until(connection, "response.completed")


def ttft_ms(connection, sent_s: float, created: int) -> float:
    """From `sent_s` to the first delta behind so many more `response.created`."""
    while True:
        kind = json.loads(connection.recv(timeout=20))["type"]
        created -= kind == "response.created"
        if not created and kind == "response.output_text.delta":
            return (time.monotonic() - sent_s) * 1000


def test_a_steers_first_token_comes_as_soon_as_any(capsys):
    """Against an engine that stops at once, the simulator: one time to a first token, and 5 ms."""
    fresh, steered = [], []
    with Flashlane() as gateway, connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as connection:
        for _ in range(ROUNDS):
            sent_s = time.monotonic()
            connection.send(json.dumps({"type": "response.create", "model": MODEL, "input": "count from 1 to 2000", "store": False}))
            running = json.loads(connection.recv(timeout=20))["response"]["id"]
            fresh.append(ttft_ms(connection, sent_s, 0))
            sent_s = time.monotonic()
            connection.send(json.dumps({"type": "response.steer", "previous_response_id": running, "input": "repeat: on"}))
            steered.append(ttft_ms(connection, sent_s, 1))
            while json.loads(connection.recv(timeout=20))["type"] != "response.completed":
                pass
    with capsys.disabled():
        print(f"\nsimulator, medians of {ROUNDS}: first token {statistics.median(fresh):.2f} ms, steer to first token {statistics.median(steered):.2f} ms")
    assert statistics.median(steered) <= statistics.median(fresh) + STEER_MS_MAX


@pytest.mark.parametrize("event", ["response.interrupt", "response.cancel"])
def test_a_response_that_is_stopped_ends_in_order(gateway, event):
    with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as connection:
        connection.send(json.dumps({"type": "response.create", "model": MODEL, "input": "count from 1 to 2000", "store": False}))
        events = []
        while not events or events[-1]["type"] != "response.incomplete":
            events.append(json.loads(connection.recv(timeout=20)))
            if events[-1]["type"] == "response.output_item.added":
                connection.send(json.dumps({"type": event, "response_id": events[0]["response"]["id"]}))
    strict.check(events)
    assert events[-1]["response"]["incomplete_details"]["reason"] == ("interrupted" if event == "response.interrupt" else "cancelled")
    assert events[-1]["response"]["output"] == []
