"""strict.py can fail: a stream that it takes is spoiled in one place, and is taken no more."""

import copy
import json

import pytest

import strict
from rig import fetch

WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture(scope="module")
def streams(gateway) -> dict[str, list[dict]]:
    asked = {"text": {"input": "repeat: one two three"}, "call": {"input": "call get_weather", "tools": [WEATHER]}}
    events = {}
    for name, request in asked.items():
        events[name] = strict.check_sse(fetch(f"{gateway.base_url}/responses", {"model": "flashlane-demo", "stream": True, **request}))
        strict.check(events[name])
    return events


def place(events: list[dict], kind: str) -> int:
    return next(place for place, event in enumerate(events) if event["type"] == kind)


def numbered(events: list[dict]) -> list[dict]:
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def without(kind: str):
    return lambda events: numbered([event for event in events if event["type"] != kind])


def twice(kind: str):
    return lambda events: numbered([*events[: place(events, kind) + 1], *events[place(events, kind) :]])


def altered(kind: str, *path_and_value: object):
    *path, last, value = path_and_value

    def spoil(events: list[dict]) -> list[dict]:
        inner = events[place(events, kind)]
        for name in path:
            inner = inner[name]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
        return events

    return spoil


@pytest.mark.parametrize(
    ("stream", "spoil"),
    [
        *(("text", without(f"response.{kind}")) for kind in ("created", "in_progress", "output_item.added", "content_part.added", "output_text.done", "content_part.done", "output_item.done", "completed")),
        *(("text", twice(f"response.{kind}")) for kind in ("created", "in_progress", "output_item.added", "output_text.done", "completed")),
        ("text", lambda events: events[:3] + events[4:]),
        ("text", lambda events: [*events, {"type": "response.unheard_of", "sequence_number": len(events)}]),
        ("text", altered("response.output_text.delta", "delta", 5)),
        ("text", altered("response.output_text.delta", "delta", "other")),
        ("text", altered("response.output_text.delta", "logprobs", ...)),
        ("text", altered("response.output_text.delta", "item_id", "msg_other")),
        ("text", altered("response.output_text.done", "text", "other")),
        ("text", altered("response.output_item.done", "item", "id", "msg_other")),
        ("text", altered("response.output_item.added", "output_index", 1)),
        ("text", altered("response.completed", "response", "id", "resp_other")),
        ("text", altered("response.completed", "response", "output", [])),
        ("text", altered("response.completed", "response", "status", "incomplete")),
        ("text", altered("response.completed", "response", "usage", "total_tokens", 1)),
        ("text", altered("response.completed", "response", "truncation", None)),
        ("text", altered("response.created", "response", "safety_identifier", ...)),
        ("call", without("response.function_call_arguments.done")),
        ("call", altered("response.function_call_arguments.done", "name", "other")),
        ("call", altered("response.output_item.done", "item", "call_id", "call_other")),
        ("call", altered("response.output_item.added", "item", "arguments", "{")),
    ],
)
def test_a_stream_that_is_spoiled_is_not_taken(streams, stream, spoil):
    events = spoil(copy.deepcopy(streams[stream]))
    with pytest.raises(strict.Deviation):
        strict.check(events)


@pytest.mark.parametrize("spoil", [lambda text: text.replace("data: [DONE]\n\n", ""), lambda text: text.replace("event: response.created", "event: response.other"), lambda text: text.replace("event: response.created\n", "")])
def test_a_framing_that_is_spoiled_is_not_taken(streams, spoil):
    text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in streams["text"]) + "data: [DONE]\n\n"
    assert strict.check_sse(text) == streams["text"]
    with pytest.raises(strict.Deviation):
        strict.check_sse(spoil(text))
