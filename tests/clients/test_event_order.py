"""The order of a response's events, clause 2.1 of docs/PROTOCOL.md, for each kind of item and each end: the same over HTTP and the WebSocket, each event as
proto/openapi.json describes it, and the same response without a stream."""

import json
import urllib.error

import jsonschema
import pytest
from websockets.sync.client import connect

import strict
from answering_engine import AnsweringEngine
from rig import ONE_ENGINE, ROOT, Flashlane, fetch

MODELS = """
[[models]]
name = "scripted"
context_tokens_max = 131072
"""
TOOLS = [{"type": "function", "name": "f", "parameters": {"type": "object"}}, {"type": "custom", "name": "c"}]

ADDED, DONE = "output_item.added", "output_item.done"
TEXT = [ADDED, "content_part.added", "output_text.delta", "output_text.done", "content_part.done", DONE]
REFUSAL = [ADDED, "content_part.added", "refusal.delta", "refusal.done", "content_part.done", DONE]
REASONING = [ADDED, "content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done", DONE]
FUNCTION_CALL = [ADDED, "function_call_arguments.delta", "function_call_arguments.done", DONE]
CUSTOM_CALL = [ADDED, "custom_tool_call_input.delta", "custom_tool_call_input.done", DONE]


def call(index: int, name: str, *arguments: str) -> list[dict]:
    """The deltas of one call."""
    first = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
    return [{"tool_calls": [first]}, *({"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in arguments)]


def at_once(*calls: list[dict]) -> list[dict]:
    """Calls whose deltas come in turns."""
    return [delta for deltas in zip(*calls, strict=True) for delta in deltas]


WORDS = [{"role": "assistant", "content": "one"}, {"content": " two"}]
CASES = {
    "text": (WORDS, "stop", TEXT, "completed", None),
    "refusal": ([{"refusal": "I"}, {"refusal": " won't"}], "stop", REFUSAL, "completed", None),
    "reasoning": ([{"reasoning_content": "hm"}, {"reasoning_content": "m"}, *WORDS], "stop", REASONING + TEXT, "completed", None),
    "function call": (call(0, "f", '{"a":', "1}"), "tool_calls", FUNCTION_CALL, "completed", None),
    "custom tool call": (call(0, "c", '{"input":"a', '\\nb"}'), "tool_calls", CUSTOM_CALL, "completed", None),
    "text and two calls": ([*WORDS, *call(0, "f", "{}"), *call(1, "f", "{}")], "tool_calls", TEXT + FUNCTION_CALL * 2, "completed", None),
    "two calls at once": (at_once(call(0, "f", '{"a":', "1}"), call(1, "c", '{"input":', '"b"}')), "tool_calls", FUNCTION_CALL + CUSTOM_CALL, "completed", None),
    "length": (WORDS, "length", TEXT, "incomplete", "max_output_tokens"),
    "content filter": (WORDS, "content_filter", TEXT, "incomplete", "content_filter"),
    "cut": (WORDS, None, TEXT, "failed", None),
}
# What differs from answer to answer.
OWN = ("id", "created_at", "completed_at", "call_id", "store", "request_id")


@pytest.fixture(scope="module")
def engine():
    with AnsweringEngine() as running:
        yield running


@pytest.fixture(scope="module")
def scripted(engine):
    with Flashlane(ONE_ENGINE.format(base_url=engine.base_url) + MODELS) as running:
        yield running


def over_http(gateway: Flashlane, request: dict) -> list[dict]:
    return strict.check_sse(fetch(f"{gateway.base_url}/responses", {**request, "stream": True}))


def over_websocket(gateway: Flashlane, request: dict) -> list[dict]:
    with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as socket:
        socket.send(json.dumps({"type": "response.create", **request}))
        events = [json.loads(socket.recv(timeout=10))]
        while events[-1]["type"] not in ("response.completed", "response.incomplete", "response.failed", "error"):
            events.append(json.loads(socket.recv(timeout=10)))
    return events


def order(events: list[dict]) -> list[str]:
    """The types, each run of deltas as one."""
    kinds = [event["type"].removeprefix("response.") for event in events]
    return [kind for place, kind in enumerate(kinds) if not (kind.endswith(".delta") and place and kinds[place - 1] == kind)]


def common(value: object) -> object:
    """Without what differs from answer to answer."""
    if isinstance(value, dict):
        return {name: common(inner) for name, inner in value.items() if name not in OWN}
    return [common(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("deltas", "finish", "items", "status", "reason"), CASES.values(), ids=CASES)
def test_events_come_in_their_order_over_each_transport(engine, scripted, deltas, finish, items, status, reason):
    engine.deltas, engine.finish = deltas, finish
    request = {"model": "scripted", "input": "hello", "tools": TOOLS}
    described = jsonschema.Draft202012Validator({"$ref": "#/components/schemas/StreamEvent", "components": json.loads((ROOT / "proto/openapi.json").read_text())["components"]})
    answers = []
    for events in (over_http(scripted, request), over_websocket(scripted, request)):
        assert order(events) == ["created", "in_progress", *items, status]
        strict.check(events)
        for event in events:
            described.validate(event)
        answers.append(events[-1]["response"])
        assert answers[-1]["status"] == status
        assert (answers[-1]["incomplete_details"] or {}).get("reason") == reason
    assert common(answers[0]) == common(answers[1])
    if status != "failed":
        assert common(answers[0]) == common(json.loads(fetch(f"{scripted.base_url}/responses", request)))
        return
    # Without a stream nothing was promised yet, so that the status can say it.
    with pytest.raises(urllib.error.HTTPError) as raised:
        fetch(f"{scripted.base_url}/responses", request)
    assert (raised.value.code, json.loads(raised.value.read())["error"]["code"]) == (502, answers[0]["error"]["code"])


@pytest.mark.parametrize("choice", ["none", {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}], ids=["none", "allowed tools"])
def test_a_call_that_the_choice_does_not_allow_is_not_passed_on(engine, scripted, choice):
    engine.deltas, engine.finish = [*WORDS, *call(0, "c", '{"input":"a"}')], "tool_calls"
    request = {"model": "scripted", "input": "hello", "tools": TOOLS, "tool_choice": choice}
    for events in (over_http(scripted, request), over_websocket(scripted, request)):
        assert order(events) == ["created", "in_progress", *TEXT, "failed"]
        assert events[-1]["response"]["error"]["code"] == "server_error"
