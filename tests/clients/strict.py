"""Judges the events of a response as a strict outside suite would: each against the types of OpenAI's own package, in strict mode, and all of them against
the order of the contract. It is written from these two and knows nothing of how flashlane makes them.

`check(events)` takes the events of one response, from `response.created` to what follows its end, and raises `Deviation`.
"""

from __future__ import annotations

import json
import typing

import pydantic
from openai.types.responses import ResponsesServerEvent

EVENTS = {typing.get_args(model.model_fields["type"].annotation)[0]: model for model in typing.get_args(typing.get_args(ResponsesServerEvent)[0])}
# Events that the package does not have, and that docs/PROTOCOL.md states.
OWN = {"response.flashlane.child.created", "response.flashlane.child.joined", "keepalive", "response.interrupt.accepted", "response.output_item.interrupted", "responsesapi.websocket_timing"}
# Values beyond the package's enumerations, stated by docs/PROTOCOL.md (2.1, 3.6, 4): where, and which.
OWN_REASONS = {"interrupted", "cancelled"}
OWN_ERROR_CODES = {"context_length_exceeded", "server_is_overloaded", "invalid_value"}

TERMINAL = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}
ASIDES = {"response.flashlane.child.created", "response.flashlane.child.joined", "response.steer.accepted", "response.steer.pending", "response.steer.failed", "response.interrupt.accepted", "response.output_item.interrupted"}
UNNUMBERED = {"keepalive", "responsesapi.websocket_timing"}

# Present in every response object, whatever the package calls optional; the second row may not be null.
FIELDS = """id object created_at status error incomplete_details completed_at output usage instructions model tools tool_choice parallel_tool_calls metadata temperature top_p
previous_response_id reasoning max_output_tokens max_tool_calls safety_identifier prompt_cache_key
truncation text presence_penalty frequency_penalty top_logprobs store background service_tier""".split()
NEVER_NULL = """id object created_at status output model tools tool_choice parallel_tool_calls
truncation text presence_penalty frequency_penalty top_logprobs store background service_tier""".split()

# What happens to the content of each kind of item: its delta and done events, the field of the done event and of the part or item, and whether it has parts.
CONTENTS = {
    "output_text": ("response.output_text", "text", True),
    "refusal": ("response.refusal", "refusal", True),
    "reasoning_text": ("response.reasoning_text", "text", True),
    "function_call": ("response.function_call_arguments", "arguments", False),
    "custom_tool_call": ("response.custom_tool_call_input", "input", False),
}
PARTS_OF = {"message": {"output_text", "refusal"}, "reasoning": {"reasoning_text"}}


class Deviation(AssertionError):
    """What was sent is not what the contract says."""


def demand(holds: object, what: str, event: object) -> None:
    if not holds:
        raise Deviation(f"{what}: {event}")


def check_type(event: dict) -> None:
    """One event against its type."""
    kind = event.get("type")
    if kind in OWN:
        return
    demand(kind in EVENTS, "an event that the package does not know", event)
    try:
        EVENTS[kind].model_validate(as_the_package_knows(event), strict=True)
    except pydantic.ValidationError as error:
        raise Deviation(f"{error}\n{event}") from error
    if "response" in event:
        check_response(event["response"])


def as_the_package_knows(event: dict) -> dict:
    """The event without the values that are our own."""
    response = event.get("response") or {}
    if (response.get("incomplete_details") or {}).get("reason") in OWN_REASONS:
        response = {**response, "incomplete_details": {"reason": "steered"}}
    if (response.get("error") or {}).get("code") in OWN_ERROR_CODES:
        response = {**response, "error": {**response["error"], "code": "server_error"}}
    return {**event, "response": response} if response else event


def check_response(response: dict) -> None:
    """A response object, wherever it stands."""
    demand(not (absent := [name for name in FIELDS if name not in response]), f"fields are missing, {absent}", response)
    demand(not (null := [name for name in NEVER_NULL if response[name] is None]), f"fields are null, {null}", response)
    status = response["status"]
    demand((response["error"] is not None) == (status == "failed"), "an error says failed, and failed an error", response)
    demand((response["incomplete_details"] is not None) == (status == "incomplete"), "incomplete says why, and nothing else does", response)
    demand((response["completed_at"] is not None) == (status == "completed"), "what is completed says when, and nothing else does", response)
    if status in ("completed", "incomplete"):
        usage = response["usage"]
        demand(usage is not None and usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], "usage does not add up", response)
        demand(usage["input_tokens_details"]["cached_tokens"] <= usage["input_tokens"], "more is cached than there is", response)
        demand(usage["output_tokens_details"]["reasoning_tokens"] <= usage["output_tokens"], "more is reasoning than there is", response)
    ids = [item.get("id") for item in response["output"]]
    demand(all(ids) and len(set(ids)) == len(ids), "items without ids of their own", response)


def check(events: list[dict]) -> None:
    """The events of one response."""
    for event in events:
        check_type(event)
    numbered = [event for event in events if event["type"] not in UNNUMBERED and event["type"] != "response.steer.failed"]
    demand([event["sequence_number"] for event in numbered] == list(range(len(numbered))), "numbers with gaps", [event["sequence_number"] for event in numbered])
    told = [event for event in numbered if event["type"] not in ASIDES]
    ends = [place for place, event in enumerate(told) if event["type"] in TERMINAL]
    demand(ends == [len(told) - 1], "not exactly one terminal event, and that last", [event["type"] for event in told])
    created, end = told[0], told[-1]
    demand(created["type"] == "response.created", "it does not begin with response.created", created)
    background = created["response"]["background"]
    demand(created["response"]["status"] == ("queued" if background else "in_progress"), "a wrong status to begin with", created)
    lifecycle = [event for event in told if "response" in event]
    for event in lifecycle:
        same = ("id", "created_at", "model", "previous_response_id", "metadata", "store", "background", "tools", "instructions")
        demand(all(event["response"][name] == created["response"][name] for name in same), "the response has changed", (created, event))
        demand(event is end or not event["response"]["output"], "output before the end", event)
    demand(end["response"]["status"] == TERMINAL[end["type"]], "a status that is not its event's", end)
    between = told[1:-1]
    if background:
        demand(between and between.pop(0)["type"] == "response.queued", "a background response that was not queued", told)
    if not between and end["type"] == "response.completed":
        demand(end["response"]["output"] == [], "a warm-up with output", end)  # exactly created and completed
        return
    demand(between and between.pop(0)["type"] == "response.in_progress", "no response.in_progress", told)
    dropped = {event["output_index"] for event in numbered if event["type"] == "response.output_item.interrupted"}
    check_items(between, end["response"], dropped)


def check_lane(events: list[dict]) -> None:
    """The events of one lane of a WebSocket: one response after the other, each with what follows its end."""
    begins = [place for place, event in enumerate(events) if event["type"] == "response.created"]
    demand(begins[:1] == [0], "a lane that does not begin with response.created", events[:1])
    for begin, end in zip(begins, [*begins[1:], len(events)], strict=True):
        check(events[begin:end])


def check_items(events: list[dict], response: dict, dropped: set[int]) -> None:
    """All that is said of items, one item after the other; and that the final output is what was said."""
    done: list[dict] = []
    while events:
        index = events[0].get("output_index")
        demand(events[0]["type"] == "response.output_item.added", "something outside of an item", events[0])
        demand(index == len(done) + len([place for place in dropped if place < index]), "an output_index out of turn", events[0])
        length = next((place for place, event in enumerate(events) if place and event["type"] == "response.output_item.added"), len(events))
        item, events = events[:length], events[length:]
        demand(all(event.get("output_index") == index for event in item), "events of another item", item)
        if index in dropped:
            # A call that another endpoint makes otherwise: nothing ran by it.
            demand(not events or item[0]["item"]["type"].endswith("_call"), "an item after the one that was dropped", events)
            continue
        done.append(check_item(item))
    demand(response["output"] == done, "the final output is not what was said", (response["output"], done))
    # Thoughts that were cut are thought anew.
    cut = [place for place, item in enumerate(done) if item.get("status") == "incomplete" and (item["type"] != "reasoning" or place == len(done) - 1)]
    demand(not cut or (cut == [len(done) - 1] and response["status"] != "completed"), "an item that was cut and is not the last of a response that was", response)


def check_item(events: list[dict]) -> dict:
    """One item from its added to its done event; the item as it is done."""
    added, done = events[0], events[-1]
    demand(done["type"] == "response.output_item.done", "an item that is not done", done)
    begun, item, body = added["item"], done["item"], events[1:-1]
    kind = item["type"]
    for name in ("id", "type", "call_id", "name", "role", "namespace"):
        demand(begun.get(name) == item.get(name), f"{name} has changed", (begun, item))
    demand("status" not in begun or begun["status"] == "in_progress", "an item that begins at its end", begun)
    demand("status" not in item or item["status"] in ("completed", "incomplete"), "an item that is done and goes on", item)
    if kind in PARTS_OF:
        demand(not begun.get("content"), "content before its part", begun)
        parts = []
        while body:
            end = next((place for place, event in enumerate(body) if event["type"] == "response.content_part.done"), None)
            demand(end is not None and body[0]["type"] == "response.content_part.added", "a part without its beginning or end", body)
            parts.append(check_part(kind, item["id"], len(parts), body[: end + 1]))
            body = body[end + 1 :]
        demand(item["content"] == parts, "the item's content is not its parts", (item, parts))
    elif kind in CONTENTS:
        prefix, field, _ = CONTENTS[kind]
        demand(begun[field] == "", f"{field} before its deltas", begun)
        demand(spoken(body, prefix, field, item["id"]) == item[field], f"{field} is not its deltas", item)
        demand(kind != "function_call" or body[-1].get("name") == item["name"], "the call is done without its name", body[-1])
    else:
        demand(kind == "compaction" and all(event["type"] == "response.compaction.compacting" for event in body), "an item of an unknown kind", item)
    return item


def check_part(kind: str, item_id: str, index: int, events: list[dict]) -> dict:
    """One part of an item's content; the part as it is done."""
    part, begun, body = events[-1]["part"], events[0]["part"], events[1:-1]
    demand(part["type"] == begun["type"] and part["type"] in PARTS_OF[kind], "a part of another type", events)
    prefix, field, _ = CONTENTS[part["type"]]
    demand(begun[field] == "" and begun.get("annotations", []) == [], "a part that begins with content", begun)
    demand(all(event["content_index"] == index and event["item_id"] == item_id for event in events), "events of another part", events)
    demand(spoken(body, prefix, field, item_id) == part[field], "the part is not its deltas", part)
    return part


def spoken(events: list[dict], prefix: str, field: str, item_id: str) -> str:
    """What the deltas say, and that the done event behind them says the same."""
    demand(events and events[-1]["type"] == f"{prefix}.done", "no done event", events)
    demand(all(event["type"] == f"{prefix}.delta" for event in events[:-1]), "not only deltas", events)
    demand(all(event["item_id"] == item_id for event in events), "events of another item", events)
    text = "".join(event["delta"] for event in events[:-1])
    demand(events[-1][field] == text, "the done event is not its deltas", events[-1])
    return text


def check_error(event: dict) -> None:
    """An error event of a WebSocket."""
    check_type(event)
    demand(400 <= event["status"] < 600, "a status of no error", event)
    demand({"message", "type", "param", "code"} <= set(event["error"]), "an error without its four fields", event)


def check_sse(text: str) -> list[dict]:
    """The events of a whole event stream, whose framing is looked at as well."""
    demand(text.endswith("data: [DONE]\n\n"), "a stream without its end mark", text[-100:])
    events = []
    for block in text.removesuffix("data: [DONE]\n\n").removesuffix("\n\n").split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        if not lines:
            continue
        demand(len(lines) == 2 and lines[0].startswith("event: ") and lines[1].startswith("data: "), "not one event and one data line", block)
        events.append(json.loads(lines[1].removeprefix("data: ")))
        demand(events[-1]["type"] == lines[0].removeprefix("event: "), "the event's name is not its type", block)
    return events
