"""What clients of others make of an answer that one engine began and another went on with: the strict reader, and openai's package. ROUTING, "Migration"."""

import json

import openai
import pytest
from websockets.sync.client import connect

import strict
from answering_engine import AnsweringEngine
from rig import SERVER, Flashlane, endpoint, fetch

MODELS = """
[[models]]
name = "m"
context_tokens_max = 131072
migrations_max = 1
"""
WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
ASKED = {"model": "m", "input": "What is the weather in Paris?", "tools": [WEATHER], "store": False}
PARIS = '{"city":"Paris"}'


@pytest.fixture
def engines():
    with AnsweringEngine() as first, AnsweringEngine() as second:
        first.finish = None
        yield first, second


@pytest.fixture
def gateway_before(engines):
    first, second = (dict(dialect="llama_cpp", base_url=engine.base_url) for engine in engines)
    with Flashlane(SERVER + endpoint("first", "latency", "openai", **first) + endpoint("second", "throughput", "openai", **second) + MODELS) as running:
        yield running


@pytest.fixture
def client(gateway_before):
    with openai.OpenAI(base_url=gateway_before.base_url, api_key="sk-one", max_retries=0) as client:
        yield client


def call(arguments: str, call_id: str) -> list[dict]:
    return [{"tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}]}]


def streamed(gateway: Flashlane) -> list[dict]:
    """The events of a turn, which the strict reader has read over an event stream and over a WebSocket: the same kinds in the same order."""
    events = strict.check_sse(fetch(f"{gateway.base_url}/responses", {**ASKED, "stream": True}))
    strict.check(events)
    with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as socket:
        socket.send(json.dumps({"type": "response.create", **ASKED}))
        beside = [json.loads(socket.recv(timeout=10))]
        while beside[-1]["type"] not in ("response.completed", "response.failed"):
            beside.append(json.loads(socket.recv(timeout=10)))
    strict.check(beside)
    assert [event["type"] for event in beside] == [event["type"] for event in events]
    return events


def test_a_text_that_was_cut_is_one_text(engines, gateway_before, client):
    first, second = engines
    first.deltas, second.deltas = [{"content": "It is"}, {"content": " sunny"}], [{"content": " in Paris."}]
    with client.responses.stream(**ASKED) as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert (texts, final.output_text, final.status) == (["It is", " sunny", " in Paris."], "It is sunny in Paris.", "completed")
    assert second.asked[0]["messages"][-1] == {"role": "assistant", "content": "It is sunny"}
    assert [event["type"] for event in streamed(gateway_before)].count("response.output_item.added") == 1


def test_a_call_that_is_made_anew_alike_is_one_call(engines, gateway_before, client):
    first, second = engines
    first.deltas, second.deltas, second.finish = call(PARIS[:7], "call_a"), call(PARIS, "call_b"), "tool_calls"
    with client.responses.stream(**ASKED) as stream:
        parts = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    [made] = final.output
    assert ("".join(parts), made.arguments, made.call_id) == (PARIS, PARIS, "call_a")
    assert "response.output_item.interrupted" not in [event["type"] for event in streamed(gateway_before)]


def test_a_call_that_is_made_anew_otherwise_takes_the_first_ones_place(engines, gateway_before, client):
    first, second = engines
    first.deltas, second.deltas, second.finish = call('{"town":"Pa', "call_a"), call(PARIS, "call_b"), "tool_calls"
    events = streamed(gateway_before)
    kinds = [event["type"] for event in events]
    assert (kinds.count("response.output_item.added"), kinds.count("response.output_item.interrupted")) == (2, 1)
    whole = [event["item"]["arguments"] for event in events if event["type"] == "response.output_item.done"]
    [made] = client.responses.create(**ASKED).output
    assert (whole, made.arguments, made.call_id) == ([PARIS], PARIS, "call_b")
    done = [event.item.arguments for event in client.responses.create(**ASKED, stream=True) if event.type == "response.output_item.done"]
    assert done == [PARIS]
    # The package's own sum of a stream wants an end of each item: ROUTING says so.
    with pytest.raises(RuntimeError, match="unfinished output items"), client.responses.stream(**ASKED) as stream:
        stream.until_done()


def test_chunks_go_on_as_one_completion(engines, client):
    first, second = engines
    first.deltas, second.deltas = [{"role": "assistant", "content": "It is"}], [{"role": "assistant", "content": " sunny."}]
    asked = {"model": "m", "messages": [{"role": "user", "content": "How is it?"}]}
    chunks = [chunk for chunk in client.chat.completions.create(**asked, stream=True) if chunk.choices]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "It is sunny."
    assert (len({chunk.id for chunk in chunks}), [chunk.choices[0].delta.role for chunk in chunks].count("assistant")) == (1, 1)
    assert client.chat.completions.create(**asked).choices[0].message.content == "It is sunny."
