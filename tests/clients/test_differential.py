"""proto/requests.jsonl over four ways: as JSON, as an event stream, over a WebSocket for each request, and over one WebSocket for a case. All give the same response
object or the same error, and the streams the same events in the same order; each is also judged by strict.py.

What may differ: ids, moments, what is sealed, how a text is cut into deltas; and a response that fails after it was announced, which without a stream is an error
(docs/PROTOCOL.md, 2.1).
"""

import http.client
import json
import re
import runpy

import pytest
from websockets.sync.client import connect

import strict
from playing_engine import PlayingEngine
from rig import AT_ONCE, ROOT, SERVER, Flashlane, endpoint

REQUESTS = ROOT / "proto/requests.jsonl"
CASES = [json.loads(line) for line in REQUESTS.read_text().splitlines()]
# What fails before it has begun is an error, however slow this machine is.
SESSION = "\n[session]\nannounce_after_ms = 5000\n"
MODELS = """
[[models]]
name = "plain"
route = "latency-only"

[[models]]
name = "eyes"
route = "latency-only"
modalities = ["text", "image", "file"]

[[models]]
name = "small"
route = "latency-only"
context_tokens_max = 64
"""
ENGINES_MODEL = '\n[[models]]\nname = "{name}"\nroute = "throughput-only"\n'

IDS = re.compile(r"\b(resp|msg|rs|fc|ctc|cmp|call|chatcmpl)_?-?[0-9a-f]{16,}(_\d+)?\b")
OF_ITS_OWN = ("created_at", "completed_at", "encrypted_content", "request_id")


@pytest.fixture(scope="module")
def gateway():
    names = sorted({step["model"] for case in CASES for step in case["steps"] if str(step.get("model")).startswith("engine-")})
    with PlayingEngine() as engine:
        played = endpoint("engine", "throughput", "openai", base_url=engine.base_url, first_byte_ms_max=300)
        config = SERVER + SESSION + AT_ONCE + played + MODELS + "".join(ENGINES_MODEL.format(name=name) for name in names)
        with Flashlane(config) as running:
            yield running


def ask(gateway: Flashlane, method: str, path: str, body: bytes | None = None) -> tuple[int, dict, str]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    connection.request(method, path, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.headers), text


def error_of(status: int, headers: dict, text: str) -> dict:
    body = json.loads(text)
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
    return {"status": status, **body["error"], "retry-after": headers.get("retry-after")}


class AsJson:
    """One answer: `response` and no events, or `error`."""

    def __init__(self, gateway: Flashlane) -> None:
        self.gateway = gateway

    def send(self, step: dict) -> tuple[list[dict], dict | None, dict | None]:
        body = step["raw"] if "raw" in step else json.dumps({**step, "stream": False})
        status, headers, text = ask(self.gateway, "POST", "/v1/responses", body.encode())
        return ([], json.loads(text), None) if status == 200 else ([], None, error_of(status, headers, text))

    def close(self) -> None:
        pass


class AsStream(AsJson):
    def send(self, step: dict) -> tuple[list[dict], dict | None, dict | None]:
        body = step["raw"] if "raw" in step else json.dumps({**step, "stream": True})
        status, headers, text = ask(self.gateway, "POST", "/v1/responses", body.encode())
        if status != 200:
            return [], None, error_of(status, headers, text)
        events = strict.check_sse(text)
        return events, events[-1]["response"], None


class OverOneWebSocket:
    def __init__(self, gateway: Flashlane) -> None:
        self.gateway = gateway
        self.socket = connect(f"ws://127.0.0.1:{gateway.port}/v1/responses", max_size=None)

    def send(self, step: dict) -> tuple[list[dict], dict | None, dict | None]:
        self.socket.send(step["raw"] if "raw" in step else json.dumps({"type": "response.create", **step}))
        events = []
        while not events or events[-1]["type"] not in strict.TERMINAL:
            event = json.loads(self.socket.recv(timeout=20))
            if event["type"] == "error":
                assert not events, events
                strict.check_error(event)
                named = {name: event["error"][name] for name in ("message", "type", "param", "code")}
                assert named == {**named, **{name: event[name] for name in ("message", "param", "code")}}, event
                return [], None, {"status": event["status"], **named, "retry-after": (event["error"].get("headers") or {}).get("retry-after")}
            events.append(event)
        return events, events[-1]["response"], None

    def close(self) -> None:
        self.socket.close()


class OverWebSockets(OverOneWebSocket):
    """A connection for each request: what it goes on from comes from the store."""

    def send(self, step: dict) -> tuple[list[dict], dict | None, dict | None]:
        self.close()
        self.__init__(self.gateway)
        return super().send(step)


WAYS = {"json": AsJson, "stream": AsStream, "websockets": OverWebSockets, "one websocket": OverOneWebSocket}


def filled(step: object, responses: list[dict]) -> object:
    """A step with the ids of what came before it."""
    if isinstance(step, dict):
        return {name: filled(value, responses) for name, value in step.items()}
    if isinstance(step, list):
        return [filled(value, responses) for value in step]
    if step == "$call":
        return next(item["call_id"] for response in reversed(responses) for item in response["output"] if "call_id" in item)
    if step == "$item":
        return responses[0]["output"][-1]["id"]
    return responses[int(step[1:])]["id"] if isinstance(step, str) and re.fullmatch(r"\$\d", step) else step


def common(value: object) -> object:
    """Without moments and seals, and with ids by their first sight."""
    seen: dict[str, str] = {}

    def walk(value: object) -> object:
        if isinstance(value, dict):
            return {name: "..." if name in OF_ITS_OWN and inner is not None else walk(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner) for inner in value]
        return IDS.sub(lambda id: seen.setdefault(id[0], f"{id[1]}-{len(seen)}"), value) if isinstance(value, str) else value

    return walk(value)


def joined(events: list[dict]) -> list[dict]:
    """The events with each run of deltas as one, and without their numbers."""
    result: list[dict] = []
    for event in events:
        event = {name: value for name, value in event.items() if name != "sequence_number"}
        if event["type"].endswith(".delta") and result[-1]["type"] == event["type"]:
            result[-1]["delta"] += event["delta"]
        else:
            result.append(event)
    return result


def run(gateway: Flashlane, case: dict, way: str) -> list[tuple[list[dict], dict | None, dict | None]]:
    """What each step came to."""
    sender, answers = WAYS[way](gateway), []
    try:
        for step in case["steps"]:
            answers.append(sender.send(filled(step, [response for _, response, _ in answers])))
    finally:
        sender.close()
    for events, response, _ in answers:
        if events:
            strict.check(events)
        if response:
            strict.check_response(response)
            warm_up = response["status"] == "completed" and response["output"] == [] and response["usage"]["output_tokens"] == 0
            if response["store"] and response["status"] != "failed" and not warm_up:
                status, _, text = ask(gateway, "GET", f"/v1/responses/{response['id']}")
                assert (status, json.loads(text)) == (200, response)
    return answers


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_request_has_the_same_answer_over_each_transport(gateway, case):
    ran = {way: run(gateway, case, way) for way in WAYS}
    events, response, error = ran["stream"][-1]
    assert (response["status"] if response else f"{error['status']} {error['code']}") == case["ends"], response or error
    for way, answers in ran.items():
        for step, (these, response, error) in enumerate(answers):
            expected_events, expected, expected_error = ran["stream"][step]
            if way == "json" and expected and expected["status"] == "failed":
                assert error and response is None, "nothing was promised yet"
                assert (error["code"], error["message"]) == (expected["error"]["code"], expected["error"]["message"])
                continue
            assert common(error) == common(expected_error), way
            assert common(response) == common(expected), way
            if way != "json":
                assert common(joined(these)) == common(joined(expected_events)), way


def test_the_requests_are_what_their_script_writes():
    assert runpy.run_path(str(REQUESTS.with_suffix(".py")))["written"]() == REQUESTS.read_text(), "run python3 proto/requests.py"


def test_the_requests_reach_what_can_be_reached():
    """A corpus of refusals alone would show nothing."""
    ends = [case["ends"] for case in CASES]
    assert len(ends) == 200 and ends.count("completed") >= 120
    assert {end.split()[-1] for end in ends} >= {
        *("completed", "incomplete", "failed", "None", "invalid_json", "missing_required_parameter", "invalid_type", "invalid_value", "unsupported_parameter"),
        *("mutually_exclusive_parameters", "context_length_exceeded", "previous_response_not_found", "model_not_found"),
        *("payload_too_large", "rate_limit_exceeded", "server_error"),
    }
