"""A captured session as a file: what its requests have in common is kept once, and long texts by their beginning and their length. Knows no socket."""

import json
import re

# Stands for the id of the response of this place; 0 is the first.
PREVIOUS = "response "
CUT = re.compile(r"(.*)…\[(\d+) bytes\]", re.DOTALL)
FILLER = "words that stand for those of the client, as many as it had; "
# What ids of the capture begin with.
ID = "00000000-0000-7000-8000-"


def json_bytes(text):
    """What a string takes in JSON, without its quotes."""
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def shortened(text, chars_max):
    """Its beginning, and how long it is."""
    return f"{text[:chars_max]}…[{json_bytes(text)} bytes]"


def filled(value):
    """The same with every text as long as it was."""
    if isinstance(value, dict):
        return {name: filled(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner) for inner in value]
    found = CUT.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return value
    head, left = found[1], int(found[2]) - json_bytes(found[1])
    return head + (FILLER * (left // len(FILLER) + 1))[:left]


def packed(requests):
    """What all of them say, and what each says beside it. An input that begins as that of the request before says only how much of it."""
    first, *others = requests
    same = {name: value for name, value in first.items() if name != "input" and all(other.get(name) == value for other in others)}
    own, before = [], []
    for request in requests:
        whole = request["input"]
        again = len(before) if before and whole[: len(before)] == before else 0
        differs = {name: value for name, value in request.items() if name not in same and name != "input"}
        own.append({**differs, "again": again, "input": whole[again:]})
        before = whole
    return {"same": same, "requests": own}


def unpacked(capture):
    """The requests, whole."""
    requests, before = [], []
    for own in capture["requests"]:
        rest = {name: value for name, value in own.items() if name != "again"}
        before = before[: own["again"]] + own["input"]
        requests.append(filled({**capture["same"], **rest, "input": before}))
    return requests


def is_after_tools(request):
    """What it answers came from tools and from nobody else."""
    return bool(request["input"]) and request["input"][-1].get("type") == "function_call_output"


def anew(request, model, ids, responses):
    """A request of the capture as one of a new session: with its own ids (24 letters, in the place of `ID`), for `model`, going on from what was answered now."""
    request = json.loads(json.dumps({**request, "model": model}).replace(ID, ids))
    previous = request.get("previous_response_id")
    if previous is not None:
        request["previous_response_id"] = responses[int(previous.removeprefix(PREVIOUS))]
    return request
