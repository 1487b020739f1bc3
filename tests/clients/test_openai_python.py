"""The real openai Python SDK against flashlane: Responses plain, streamed and over the WebSocket, Chat Completions, models, errors."""

import json
import runpy

import openai
import pytest

import strict
from rig import ROOT

MODEL = "flashlane-demo"
WEATHER = runpy.run_path(str(ROOT / "proto/requests.py"))["WEATHER"]


@pytest.fixture(scope="module")
def client(gateway):
    with openai.OpenAI(base_url=gateway.base_url, api_key="sk-dummy", max_retries=0, timeout=20) as client:
        yield client


def until_completed(connection) -> list:
    """The events of one response, its terminal event last."""
    events = []
    for event in connection:
        assert event.type != "error", event
        events.append(event)
        if event.type in strict.TERMINAL:
            strict.check([event.to_dict() for event in events])
            return events
    raise AssertionError("the connection ended first")


def texts(events: list) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def error_code(event) -> str:
    """The code of an error event, which the nested error and the flat fields both carry."""
    assert event.type == "error", event
    assert event.code == event.error.code
    return str(event.code)


def test_a_response_comes_whole(client):
    response = client.responses.create(model=MODEL, input="repeat: one lane")
    assert response.status == "completed"
    assert response.output_text == "one lane"
    assert response.usage.input_tokens > 0
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_a_response_is_streamed_in_order(client):
    events = list(client.responses.create(model=MODEL, input="count from 1 to 20", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert texts(events) == events[-1].response.output_text
    assert events[-1].response.output_text.split() == [str(number) for number in range(1, 21)]


def test_the_stream_helper_assembles_the_same_text(client):
    """The helper checks the event order itself and raises on a breach."""
    with client.responses.stream(model=MODEL, input="hello") as stream:
        said = texts(list(stream))
        final = stream.get_final_response()
    assert said and final.output_text == said


def test_a_length_limit_ends_in_incomplete(client):
    response = client.responses.create(model=MODEL, input="count from 1 to 1000", max_output_tokens=16)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"


def test_a_function_tool_makes_its_round_trip(client):
    first = client.responses.create(
        model=MODEL, input="What is the weather in Paris?", tools=[WEATHER], tool_choice={"type": "function", "name": "get_weather"}
    )
    [call] = [item for item in first.output if item.type == "function_call"]
    assert call.name == "get_weather"
    assert isinstance(json.loads(call.arguments)["city"], str)
    history = [{"role": "user", "content": "What is the weather in Paris?"}, call.model_dump(exclude_none=True)]
    answered = [*history, {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    second = client.responses.create(model=MODEL, input=answered, tools=[WEATHER])
    assert second.status == "completed"
    assert second.output_text


def test_a_json_schema_is_obeyed(client):
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "additionalProperties": False}
    response = client.responses.create(model=MODEL, input="Who?", text={"format": {"type": "json_schema", "name": "who", "schema": schema, "strict": True}})
    assert isinstance(json.loads(response.output_text)["name"], str)


def test_a_connection_warms_up_and_chains_two_turns(client):
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input="My name is Ada.", generate=False, store=False)
        warm = until_completed(connection)
        assert [event.type for event in warm] == ["response.created", "response.completed"]
        assert warm[-1].response.output == []
        warm_id = warm[-1].response.id

        connection.response.create(model=MODEL, input="repeat: noted", previous_response_id=warm_id, store=False)
        first = until_completed(connection)
        assert texts(first) == "noted"
        first_response = first[-1].response

        connection.response.create(model=MODEL, input="What is my name?", previous_response_id=first_response.id, store=False)
        second = until_completed(connection)
        assert "Ada" in texts(second)
        assert second[-1].response.previous_response_id == first_response.id
        assert second[-1].response.usage.input_tokens > first_response.usage.input_tokens


def test_a_request_error_keeps_the_connection(client):
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input="hello", previous_response_id="resp_" + "0" * 32, store=False)
        assert error_code(connection.recv()) == "previous_response_not_found"
        connection.response.create(model=MODEL, input="repeat: still here", store=False)
        assert texts(until_completed(connection)) == "still here"


def test_lanes_run_beside_each_other_and_say_their_names(client):
    with client.responses.connect() as connection:
        for lane in ("left", "right"):
            connection.response.create(model=MODEL, input=f"repeat: the {lane} lane", stream_id=lane, store=False)
        connection.response.create(model=MODEL, input="repeat: the default lane", store=False)
        said, ended = {}, {}
        while len(ended) < 3:
            event = connection.recv()
            if event.type == "response.completed":
                ended[event.stream_id] = event.response
            elif event.type == "response.output_text.delta":
                said[event.stream_id] = said.get(event.stream_id, "") + event.delta
        assert said == {"left": "the left lane", "right": "the right lane", None: "the default lane"}
        # A fork: the right lane goes on from the left one's response.
        connection.response.create(
            model=MODEL, input="repeat: forked", stream_id="right", previous_response_id=ended["left"].id, store=False
        )
        events = until_completed(connection)
        assert texts(events) == "forked" and {event.stream_id for event in events} == {"right"}


def test_an_item_is_referred_to_by_its_id(client):
    named = client.responses.create(model=MODEL, input="My name is Ada.")
    items = [{"role": "user", "content": "My name is Ada."}, {"type": "item_reference", "id": named.output[0].id}, {"role": "user", "content": "What is my name?"}]
    answer = client.responses.create(model=MODEL, input=items)
    assert "Ada" in answer.output_text
    listed = client.responses.input_items.list(answer.id, order="asc", include=["reasoning.encrypted_content"]).data
    assert [item.id for item in listed][1] == named.output[0].id and len(listed) == 3
    with pytest.raises(openai.NotFoundError, match="Item with id 'msg_unknown' not found."):
        client.responses.create(model=MODEL, input=[{"type": "item_reference", "id": "msg_unknown"}])


def test_a_steer_redirects_the_model_while_it_works(client):
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input="count from 1 to 500", stream_id="work", store=False)
        events = []
        while not any(event.type == "response.output_text.delta" for event in events):
            events.append(connection.recv())
        steered = events[0].response.id
        connection.response.steer(previous_response_id=steered, input="repeat: this instead")
        while events[-1].type != "response.completed":
            events.append(connection.recv())
        kinds = [event.type for event in events]
        assert kinds.index("response.steer.accepted") < kinds.index("response.incomplete")
        incomplete = next(event for event in events if event.type == "response.incomplete")
        assert incomplete.response.incomplete_details.reason == "steered"
        assert events[-1].response.previous_response_id == steered
        assert events[-1].response.output_text == "this instead"
        assert {event.stream_id for event in events} == {"work"}
        strict.check_lane([event.to_dict() for event in events])


def test_a_chat_completion_comes_whole(client):
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "repeat: by chat"}])
    assert answer.choices[0].message.content == "by chat"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_chat_completion_is_streamed_with_usage(client):
    chunks = list(
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}], stream=True, stream_options={"include_usage": True})
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_chat_stream_without_usage_has_no_usage_chunk(client):
    chunks = list(client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}], stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_models_are_listed_and_say_what_is_simulated(client):
    listed = {model.id: model for model in client.models.list()}
    assert listed[MODEL].owned_by == "simulator"
    assert client.models.retrieve(MODEL).id == MODEL


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as raised:
        client.responses.create(model="nobody", input="hello")
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hello"}])
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_a_wrong_type_is_a_bad_request_that_names_the_parameter(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, input="hello", temperature="hot")
    assert (raised.value.type, raised.value.param) == ("invalid_request_error", "temperature")
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=MODEL, messages="hello")
    assert raised.value.param == "messages"
