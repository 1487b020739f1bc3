"""Background responses by the real openai Python SDK: created, polled, streamed, resumed, cancelled; and after a kill."""

import openai
import pytest

import strict

from rig import DEMO, Flashlane, poll_until

MODEL = "flashlane-demo"
# At the simulated GPU's pace this takes half a minute.
LONG = {"model": "flashlane-demo-gpu", "input": "count from 1 to 1000"}


def sdk(gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.base_url, api_key="sk-dummy", max_retries=0, timeout=20)


@pytest.fixture(scope="module")
def client(gateway):
    with sdk(gateway) as client:
        yield client


def ended(client, response_id: str):
    """Polls as OpenAI's guide does."""

    def look():
        response = client.responses.retrieve(response_id)
        return None if response.status in ("queued", "in_progress") else response

    return poll_until(look, 10, "the response to end")


def test_a_background_response_is_created_and_polled(client):
    response = client.responses.create(model=MODEL, input="repeat: by itself", background=True)
    assert (response.status, response.background, response.output) == ("queued", True, [])
    done = ended(client, response.id)
    assert (done.id, done.status, done.output_text) == (response.id, "completed", "by itself")
    items = client.responses.input_items.list(response.id)
    assert [item.role for item in items] == ["user"]
    following = client.responses.create(model=MODEL, input="repeat: and on", previous_response_id=response.id)
    assert following.output_text == "and on"


def test_a_background_stream_begins_with_queued(client):
    events = list(client.responses.create(model=MODEL, input="count from 1 to 9", background=True, stream=True))
    types = [event.type for event in events]
    assert types[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert types[-1] == "response.completed"
    assert events[0].response.status == events[1].response.status == "queued"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert ended(client, events[0].response.id) == events[-1].response


def test_a_stream_is_resumed_after_any_event(client):
    with client.responses.create(model=MODEL, input="count from 1 to 9", background=True, stream=True) as stream:
        first = next(iter(stream))
    # Its client has left: it goes on.
    whole = [event.to_dict() for event in client.responses.retrieve(first.response.id, stream=True)]
    assert whole[-1]["type"] == "response.completed"
    strict.check(whole)
    for after in (0, 3, len(whole) - 2):
        rest = client.responses.retrieve(first.response.id, stream=True, starting_after=after)
        assert [event.to_dict() for event in rest] == whole[after + 1 :]


def test_the_stream_helper_resumes(client):
    with client.responses.stream(model=MODEL, input="repeat: resumed", background=True) as stream:
        response_id = next(event.response.id for event in stream if event.type == "response.created")
    with client.responses.stream(response_id=response_id, starting_after=1) as stream:
        assert stream.get_final_response().output_text == "resumed"


def test_a_cancel_is_final_and_can_be_repeated(client):
    response = client.responses.create(**LONG, background=True)
    poll_until(lambda: client.responses.retrieve(response.id).status == "in_progress", 10, "it to begin")
    assert client.responses.cancel(response.id).status == "cancelled"
    assert client.responses.cancel(response.id).status == "cancelled"
    assert client.responses.retrieve(response.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(client.responses.create(model=MODEL, input="hi").id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_unknown")


def test_a_stream_without_background_cannot_be_resumed(client):
    response = client.responses.create(model=MODEL, input="hi")
    with pytest.raises(openai.NotFoundError):
        list(client.responses.retrieve(response.id, stream=True))
    with pytest.raises(openai.BadRequestError, match="store"):
        client.responses.create(model=MODEL, input="hi", background=True, store=False)


def test_what_a_kill_interrupts_has_failed_after_the_restart(tmp_path):
    config = DEMO + f'\n[[models]]\nname = "flashlane-demo-gpu"\nroute = "throughput-only"\n[store]\nfolder = "{tmp_path / "data"}"\n'
    with Flashlane(config) as gateway, sdk(gateway) as client:
        kept = ended(client, client.responses.create(model=MODEL, input="repeat: kept", background=True).id)
        stream = iter(client.responses.create(**LONG, background=True, stream=True))
        told = [next(stream) for _ in range(6)]
        gateway.process.kill()
    with Flashlane(config) as gateway, sdk(gateway) as client:
        assert client.responses.retrieve(kept.id) == kept
        failed = client.responses.retrieve(told[0].response.id)
        assert (failed.status, failed.error.code) == ("failed", "server_error")
        events = list(client.responses.retrieve(failed.id, stream=True))
        assert events[: len(told)] == told, "what was streamed reads the same again"
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert (events[-1].type, events[-1].response) == ("response.failed", failed)
