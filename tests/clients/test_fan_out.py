"""Fan-out by clients of others: openai's package over HTTP and the WebSocket, with the field that this server adds. PROTOCOL clause 15."""

import json

import openai
import pytest

import strict
from answering_engine import AnsweringEngine
from rig import SERVER, Flashlane, endpoint, fetch

MODELS = """
[[models]]
name = "small"
context_tokens_max = 131072

[[models]]
name = "large"
context_tokens_max = 131072
route = "throughput-only"

[session]
children_max = 8
"""
CHILDREN = [
    {"name": "bugs", "input": "Look for bugs."},
    {"name": "style", "input": [{"role": "user", "content": "Look at the style."}], "max_output_tokens": 50},
    {"name": "tests", "input": "Which tests are missing?", "model": "large", "reasoning": {"effort": "high"}},
]
ASKED = {"model": "small", "input": "Here is the diff.", "instructions": "You review.", "store": False}
FAN_OUT = {"flashlane": {"fan_out": CHILDREN}}
SAID = [("bugs", "fast"), ("style", "fast"), ("tests", "large")]


@pytest.fixture
def engines():
    with AnsweringEngine() as wafer, AnsweringEngine() as gpu:
        wafer.deltas, gpu.deltas = [{"content": "fast"}], [{"content": "large"}]
        yield wafer, gpu


@pytest.fixture
def gateway_before(engines):
    wafer, gpu = engines
    config = SERVER + endpoint("wafer", "latency", "openai", base_url=wafer.base_url) + endpoint("gpu", "throughput", "openai", base_url=gpu.base_url)
    with Flashlane(config + MODELS) as running:
        yield running


@pytest.fixture
def client(gateway_before):
    with openai.OpenAI(base_url=gateway_before.base_url, api_key="sk-one", max_retries=0) as client:
        yield client


def results(response) -> list[tuple[str, str]]:
    return [(item.flashlane["child"]["name"], item.content[0].text) for item in response.output]


def test_the_sdk_fans_out_and_goes_on_from_all_results(engines, client):
    wafer, gpu = engines
    response = client.responses.create(**ASKED, extra_body=FAN_OUT)
    assert results(response) == SAID
    assert (response.status, response.output_text, response.usage.total_tokens) == ("completed", "fastfastlarge", 24)
    told = [[message["content"] for message in request["messages"]] for request in [*wafer.asked, *gpu.asked]]
    assert [messages[:2] for messages in told] == [["You review.", "Here is the diff."]] * 3
    assert (gpu.asked[0]["model"], gpu.asked[0]["reasoning_effort"]) == ("large", "high")
    assert [request.get("max_tokens", request.get("max_completion_tokens")) for request in wafer.asked] == [None, 50]

    carried = [item.model_dump(exclude_none=True) for item in response.output]
    history = [{"role": "user", "content": "Here is the diff."}, *carried, {"role": "user", "content": "So?"}]
    client.responses.create(model="small", input=history, store=False)
    assert [message["content"] for message in wafer.asked[-1]["messages"]] == ["Here is the diff.", "[bugs]\nfast\n\n[style]\nfast\n\n[tests]\nlarge", "So?"]


def test_a_strict_reader_takes_its_stream(gateway_before, client):
    events = strict.check_sse(fetch(f"{gateway_before.base_url}/responses", {**ASKED, **FAN_OUT, "stream": True}))
    strict.check(events)
    assert [event["item"]["flashlane"]["child"]["status"] for event in events if event["type"] == "response.output_item.done"] == ["completed"] * 3
    with client.responses.stream(**ASKED, extra_body=FAN_OUT) as stream:
        kinds = [event.type for event in stream]
        assert results(stream.get_final_response()) == SAID
    assert (kinds.count("response.output_item.added"), kinds[-1]) == (3, "response.completed")


def test_over_a_websocket_each_child_is_a_lane(client):
    with client.responses.connect() as connection:
        connection.send({"type": "response.create", **ASKED, **FAN_OUT})
        lanes: dict[str | None, list[dict]] = {}
        while not any(event["type"] == "response.completed" for event in lanes.get(None, [])):
            event = json.loads(connection.recv_bytes())
            lanes.setdefault(event.get("stream_id"), []).append(event)
    assert set(lanes) == {None, "bugs", "style", "tests"}
    for events in lanes.values():
        strict.check([{name: value for name, value in event.items() if name != "stream_id"} for event in events])
        assert events[-1]["type"] == "response.completed"
    items = lanes[None][-1]["response"]["output"]
    assert [item["flashlane"]["child"]["id"] for item in items] == [lanes[name][0]["response"]["id"] for name, _ in SAID]


def test_without_leave_and_with_a_wrong_field_it_is_refused_by_its_path(gateway_before, client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(**ASKED, extra_body={"flashlane": {"fan_out": [{"name": "a", "input": "x", "speed": 1}]}})
    assert raised.value.param == "flashlane.fan_out[0].speed"
    with Flashlane() as other, openai.OpenAI(base_url=other.base_url, api_key="sk-one", max_retries=0) as another:
        with pytest.raises(openai.BadRequestError) as raised:
            another.responses.create(model="flashlane-demo", input="x", extra_body=FAN_OUT)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "flashlane")


def test_a_child_whose_engine_breaks_off_is_told_beside_the_others(engines, client):
    _, gpu = engines
    gpu.finish = None
    response = client.responses.create(**ASKED, extra_body=FAN_OUT)
    failed = response.output[2]
    assert (response.status, failed.status, failed.flashlane["child"]["status"], failed.flashlane["child"]["error"]["code"]) == ("completed", "incomplete", "failed", "server_error")
    assert failed.content[0].text.startswith("large\n\n(This part failed: ")
