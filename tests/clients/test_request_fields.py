"""Each field of a request, clause 5 of docs/PROTOCOL.md: what the response object repeats of it, what the engine gets of it, and which values are refused."""

import json
import urllib.error

import pytest

from answering_engine import AnsweringEngine
from rig import ONE_ENGINE, Flashlane, fetch

MODELS = """
[[models]]
name = "reader"
context_tokens_max = 131072

[[models]]
name = "narrow"
context_tokens_max = 200

[[models]]
name = "eyes"
context_tokens_max = 131072
modalities = ["text", "image", "file"]
"""

GET_WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
AS_FUNCTION = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "name": "who", "schema": {"type": "object"}, "strict": True}
QUESTION = [{"role": "user", "content": "hello"}]
CALL = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
FILE = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,AAAA"}


@pytest.fixture(scope="module")
def engine():
    with AnsweringEngine() as running:
        yield running


@pytest.fixture(scope="module")
def respond(engine):
    """Asks for a response; gives its object, and what the engine was asked for it."""
    with Flashlane(ONE_ENGINE.format(base_url=engine.base_url) + MODELS) as running:

        def ask(**fields: object) -> tuple[dict, dict]:
            body = {"model": "reader", "input": "hello", **fields}
            response = json.loads(fetch(f"{running.base_url}/responses", {name: value for name, value in body.items() if value is not None}))
            return response, engine.asked[-1]

        yield ask


def refusal(respond, **fields: object) -> tuple[int, dict]:
    with pytest.raises(urllib.error.HTTPError) as raised:
        respond(**fields)
    return raised.value.code, json.loads(raised.value.read())["error"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instructions", "Be brief."),
        ("metadata", {"team": "a"}),
        ("temperature", 0.5),
        ("top_p", 0.25),
        ("presence_penalty", -1.5),
        ("frequency_penalty", 1.5),
        ("top_logprobs", 5),
        ("max_output_tokens", 99),
        ("max_tool_calls", 3),
        ("parallel_tool_calls", False),
        ("prompt_cache_key", "session-1"),
        ("prompt_cache_retention", "24h"),
        ("safety_identifier", "user-1"),
        ("user", "user-1"),
        ("store", False),
        ("truncation", "disabled"),
        ("tools", [GET_WEATHER]),
        ("tool_choice", "none"),
        ("reasoning", {"effort": "high", "summary": "auto"}),
        ("text", {"format": SCHEMA, "verbosity": "low"}),
    ],
)
def test_the_response_repeats_what_was_asked(respond, field, value):
    assert respond(**{field: value})[0][field] == value


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"max_output_tokens": 99}, {"max_completion_tokens": 99}),
        ({"temperature": 0.5, "top_p": 0.25}, {"temperature": 0.5, "top_p": 0.25}),
        ({"presence_penalty": -1.5, "frequency_penalty": 1.5}, {"presence_penalty": -1.5, "frequency_penalty": 1.5}),
        ({"reasoning": {"effort": "high"}}, {"reasoning_effort": "high"}),
        ({"text": {"format": SCHEMA}}, {"response_format": {"type": "json_schema", "json_schema": {"name": "who", "schema": {"type": "object"}, "strict": True}}}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
        ({"prompt_cache_key": "session-1"}, {"prompt_cache_key": "session-1"}),
        ({"safety_identifier": "user-1"}, {"safety_identifier": "user-1"}),
        ({"user": "user-1"}, {"user": "user-1"}),
        ({"tools": [GET_WEATHER], "parallel_tool_calls": False}, {"tools": [AS_FUNCTION], "parallel_tool_calls": False}),
        ({"tools": [GET_WEATHER], "tool_choice": "required"}, {"tools": [AS_FUNCTION], "tool_choice": "required"}),
        (
            {"tools": [GET_WEATHER, {**GET_WEATHER, "name": "other"}], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get_weather"}]}},
            {"tools": [AS_FUNCTION], "tool_choice": "auto"},
        ),
        ({"tools": [{"type": "namespace", "name": "weather", "tools": [{**GET_WEATHER, "name": "get"}]}]}, {"tools": [{"type": "function", "function": {"name": "weather__get", "parameters": {"type": "object"}}}]}),
        ({"tools": [{"type": "web_search"}]}, {"tools": None}),
        ({"instructions": "Be brief."}, {"messages": [{"role": "system", "content": "Be brief."}, *QUESTION]}),
        ({"input": [{"role": "developer", "content": "Be brief."}, *QUESTION]}, {"messages": [{"role": "system", "content": "Be brief."}, *QUESTION]}),
        (
            {"input": [*QUESTION, CALL, OUTPUT]},
            {
                "messages": [
                    *QUESTION,
                    {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
                ]
            },
        ),
        ({"input": [*QUESTION, {"type": "reasoning", "summary": []}]}, {"messages": QUESTION}),
        ({}, {"stream": True, "stream_options": {"include_usage": True}}),
        (
            {"model": "eyes", "input": [{"role": "user", "content": [{"type": "input_text", "text": "look"}, IMAGE]}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]},
        ),
    ],
)
def test_the_engine_gets_what_was_asked(respond, fields, sent):
    asked = respond(**fields)[1]
    assert {name: asked.get(name) for name in sent} == sent


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_options": {"include_obfuscation": True}},
        {"include": ["reasoning.encrypted_content"]},
        {"client_metadata": {"a": "b"}},
        {"access_programs": []},
        {"background_options": {}},
        {"image": {}},
        {"prompt_cache_options": {}},
        {"no_such_field": [1, 2]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_means_nothing_here_is_ignored(respond, fields):
    response, asked = respond(**fields)
    assert response["status"] == "completed"
    assert not set(asked) & set(fields) - {"stream_options"}


def test_what_is_too_long_is_cut_at_its_front_where_that_is_asked_for(respond):
    history = [{"role": "user", "content": f"number {n}" + " word" * 40} for n in range(6)]
    code, error = refusal(respond, model="narrow", input=history, truncation="disabled")
    assert (code, error["code"]) == (400, "context_length_exceeded")
    response, asked = respond(model="narrow", input=history, instructions="Be brief.", truncation="auto")
    assert response["truncation"] == "auto"
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, *history[-3:]]


@pytest.mark.parametrize("asked", ["auto", "default", "flex", "priority", "fast", "ultrafast", "scale"])
def test_a_service_tier_is_taken_and_the_response_says_the_one_that_served(respond, asked):
    assert respond(service_tier=asked)[0]["service_tier"] == "default"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "no_such_item"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": 5}]}]}, "input[0].content[0].file_id"),
        ({"input": [OUTPUT]}, "input"),
        ({"instructions": 5}, "instructions"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"presence_penalty": -2.1}, "presence_penalty"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_tool_calls": -1}, "max_tool_calls"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {f"name-{number}": "a" for number in range(17)}}, "metadata"),
        ({"metadata": {"a" * 65: "a"}}, "metadata"),
        ({"metadata": {"a": "a" * 513}}, "metadata"),
        ({"store": "no"}, "store"),
        ({"stream": "no"}, "stream"),
        ({"truncation": "some"}, "truncation"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
        ({"text": {"verbosity": "chatty"}}, "text.verbosity"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"include": [5]}, "include[0]"),
        ({"prompt_cache_key": 5}, "prompt_cache_key"),
        ({"safety_identifier": 5}, "safety_identifier"),
        ({"user": 5}, "user"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [GET_WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"input": [{"role": "user", "content": [IMAGE]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [FILE]}]}, "input[0].content[0]"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(respond, fields, param):
    status, error = refusal(respond, **fields)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param), error
    assert error["message"]


@pytest.mark.parametrize("field", ["prompt", "moderation"])
def test_what_is_not_served_is_refused_by_its_name(respond, field):
    status, error = refusal(respond, **{field: {"id": "x"}})
    assert (status, error["code"], error["param"]) == (400, "unsupported_parameter", field)


@pytest.mark.parametrize("kind", ["computer_call_output", "shell_call_output"])
def test_an_item_that_is_not_served_is_refused_by_its_name(respond, kind):
    status, error = refusal(respond, input=[*QUESTION, {"type": kind}])
    assert (status, error["code"], error["param"]) == (400, "unsupported_parameter", "input[1].type")


def test_a_conversation_excludes_a_previous_response(respond):
    status, error = refusal(respond, conversation="conv_1", previous_response_id="resp_1")
    assert (status, error["code"]) == (400, "mutually_exclusive_parameters")


def test_content_that_a_model_does_not_take_is_refused_with_the_models_name(respond):
    _, error = refusal(respond, input=[{"role": "user", "content": [IMAGE]}])
    assert "'reader'" in error["message"] and "image" in error["message"] and "text" in error["message"], error
