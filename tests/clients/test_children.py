"""Children of responses by the real openai Python SDK, which knows nothing of them: `extra_body` asks for them, and plain requests find them."""

import json

import openai
import pytest
import websockets.sync.client

import strict

from rig import DEMO, Flashlane, fetch, poll_until

MODEL = "flashlane-demo"
CHILDREN = DEMO + "\n[session]\nchildren_max = 4\n"
CREATED = "response.flashlane.child.created"
JOINED = "response.flashlane.child.joined"


@pytest.fixture(scope="module")
def gateway():
    with Flashlane(config=CHILDREN) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway):
    with openai.OpenAI(base_url=gateway.base_url, api_key="sk-dummy", max_retries=0, timeout=20) as client:
        yield client


def delegate(**children: str) -> dict:
    return {"flashlane": {"delegate": [{"name": name, "input": text} for name, text in children.items()]}}


def ended(client, parent: str) -> list[dict]:
    """The parent's children, once none of them runs."""

    def look():
        children = client.get(f"/responses/{parent}/children", cast_to=object)["data"]
        return None if any(child["status"] == "in_progress" for child in children) else children

    return poll_until(look, 10, "the children to end")


def test_a_response_hands_out_work_and_the_next_has_the_results(client):
    asked = client.responses.create(model=MODEL, input="repeat: on it", stream=True, extra_body=delegate(tests="repeat: all green", docs="repeat: written"))
    events = [event.to_dict() for event in asked]
    strict.check(events)
    kinds = [event["type"] for event in events]
    assert kinds[:4] == ["response.created", "response.in_progress", CREATED, CREATED]
    parent = events[-1]["response"]
    children = ended(client, parent["id"])
    assert [(child["name"], child["status"]) for child in children] == [("tests", "completed"), ("docs", "completed")]
    assert [client.responses.retrieve(child["id"]).output_text for child in children] == ["all green", "written"]

    goes_on = client.responses.create(model=MODEL, input="repeat: done", previous_response_id=parent["id"], stream=True)
    events = [event.to_dict() for event in goes_on]
    strict.check(events)
    joined = [event for event in events if event["type"] == JOINED]
    assert [event["child"]["id"] for event in joined] == [child["id"] for child in children]
    said = [item.content[0].text for item in client.responses.input_items.list(events[-1]["response"]["id"], order="asc", limit=100) if item.role == "user"]
    assert [text for text in said if "all green" in text] == [joined[0]["item"]["content"], ] and said[-1] == "repeat: done"


def test_a_child_is_cancelled_like_any_background_response(client):
    long = {"flashlane": {"delegate": [{"name": "long", "input": "count from 1 to 1000", "tier": "throughput"}]}}
    parent = client.responses.create(model=MODEL, input="repeat: yes", extra_body=long)
    child = client.get(f"/responses/{parent.id}/children", cast_to=object)["data"][0]
    assert child["status"] == "in_progress", "its parent did not wait"
    assert client.responses.cancel(child["id"]).status == "cancelled"
    assert ended(client, parent.id)[0]["status"] == "cancelled"


def test_a_chain_that_is_not_stored_hands_out_work_as_codex_would(gateway, client):
    """Codex's way: one WebSocket, `store: false`, only what is new in each request."""
    ids, answers = [], []
    with websockets.sync.client.connect(gateway.base_url.replace("http", "ws") + "/responses", additional_headers={"authorization": "Bearer sk-dummy"}) as socket:
        for number, more in enumerate([delegate(side="repeat: from aside"), {}]):
            if number:
                assert ended(client, ids[0])[0]["status"] == "completed"
                more = {"previous_response_id": ids[0]}
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"repeat: {number}"}]}
            socket.send(json.dumps({"type": "response.create", "model": MODEL, "store": False, "stream": True, "input": [item], **more}))
            events = []
            while not events or events[-1]["type"] not in strict.TERMINAL:
                events.append(json.loads(socket.recv(timeout=10)))
            strict.check(events)
            ids.append(events[-1]["response"]["id"])
            answers.append(events)
    assert [event["child"]["name"] for event in answers[0] if event["type"] == CREATED] == ["side"]
    joined = [event for event in answers[1] if event["type"] == JOINED]
    assert len(joined) == 1 and "from aside" in joined[0]["item"]["content"]
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=MODEL, input="x", previous_response_id=joined[0]["child"]["id"])


def test_who_asks_for_children_where_there_are_none_is_told_so(client):
    with Flashlane(config=DEMO) as plain, openai.OpenAI(base_url=plain.base_url, api_key="sk-dummy", max_retries=0) as other:
        with pytest.raises(openai.BadRequestError) as refused:
            other.responses.create(model=MODEL, input="x", extra_body=delegate(a="y"))
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "flashlane")
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=MODEL, input="x", extra_body={"flashlane": {"delegate": [{"name": "a b", "input": "y"}]}})
    assert refused.value.param == "flashlane.delegate[0].name"


def test_the_log_and_the_metrics_name_them(gateway, client):
    parent = client.responses.create(model=MODEL, input="repeat: yes", extra_body=delegate(seen="repeat: x"))
    ended(client, parent.id)
    line = gateway.process.wait_for(lambda line: "child=seen" in line, 5)
    assert f"child_of={parent.id}" in line and "tier=throughput" in line
    assert 'flashlane_children_total{kind="delegate",outcome="completed"}' in fetch(f"{gateway.admin_url}/metrics")
