"""What is answered as one JSON object, against the types of OpenAI's package in strict mode: lists of items, conversations, counts, models, Chat Completions."""

import json
import urllib.request

import pydantic
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItem, ConversationItemList
from openai.types.responses import InputTokenCountResponse, Response, ResponseItemList

from rig import fetch

MODEL = "flashlane-demo"
WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
PATCH = {"type": "custom", "name": "apply_patch"}
# Each kind of item that a client may send, in its shortest and in its longest form.
ITEMS = [
    {"role": "user", "content": "short"},
    {"role": "developer", "content": "Be brief."},
    {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be kind."}]},
    {"type": "message", "role": "assistant", "content": "yes"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes", "annotations": []}, {"type": "refusal", "refusal": "no"}], "status": "completed", "id": "msg_1"},
    {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    {"type": "custom_tool_call", "call_id": "call_2", "name": "apply_patch", "input": "x"},
    {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "done"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "repeat: all"}]},
]


def strictly(kind: object, json_text: str) -> dict:
    """The object, once the package's type has taken it as it is."""
    given = json.loads(json_text)
    pydantic.TypeAdapter(kind).validate_python(given, strict=True)
    return given


@pytest.fixture(scope="module")
def ask(gateway):
    def ask(path: str, body: dict | None = None, method: str | None = None) -> str:
        if method is None:
            return fetch(f"{gateway.base_url}{path}", body)
        with urllib.request.urlopen(urllib.request.Request(f"{gateway.base_url}{path}", method=method), timeout=10) as answer:
            return answer.read().decode()

    return ask


def test_a_response_and_its_input_items(ask):
    for tools in ([WEATHER], [PATCH], []):
        called = {"tools": tools, "tool_choice": "required"} if tools else {}
        response = strictly(Response, ask("/responses", {"model": MODEL, "input": ITEMS, **called}))
        strictly(Response, ask(f"/responses/{response['id']}"))
        page = strictly(ResponseItemList, ask(f"/responses/{response['id']}/input_items?limit=100"))
        assert len(page["data"]) == len(ITEMS)
    strictly(InputTokenCountResponse, ask("/responses/input_tokens", {"model": MODEL, "input": ITEMS}))


def test_a_background_response_in_each_of_its_states(ask):
    response = strictly(Response, ask("/responses", {"model": "flashlane-demo-gpu", "input": "count from 1 to 500", "background": True}))
    while strictly(Response, ask(f"/responses/{response['id']}"))["status"] == "queued":
        pass
    assert strictly(Response, ask(f"/responses/{response['id']}/cancel", {}))["status"] == "cancelled"


def test_a_conversation_and_its_items(ask):
    conversation = strictly(Conversation, ask("/conversations", {"items": ITEMS, "metadata": {"a": "b"}}))
    path = f"/conversations/{conversation['id']}"
    strictly(Conversation, ask(path))
    strictly(Conversation, ask(path, {"metadata": {}}))
    strictly(Response, ask("/responses", {"model": MODEL, "input": "call get_weather", "tools": [WEATHER], "conversation": conversation["id"]}))
    items = strictly(ConversationItemList, ask(f"{path}/items?limit=100"))["data"]
    assert len(items) == len(ITEMS) + 2
    for item in items:
        strictly(ConversationItem, ask(f"{path}/items/{item['id']}"))
    strictly(ConversationItemList, ask(f"{path}/items", {"items": ITEMS[:1]}))
    strictly(Conversation, ask(f"{path}/items/{items[0]['id']}", method="DELETE"))
    strictly(ConversationDeletedResource, ask(path, method="DELETE"))


def test_models(ask):
    models = json.loads(ask("/models"))["data"]
    assert models
    for model in models:
        strictly(Model, json.dumps(model))
        strictly(Model, ask(f"/models/{model['id']}"))


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}], ids=["plain", "with usage"])
def test_chat_completions_whole_and_streamed(ask, options):
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER["parameters"]}}
    for words in ("repeat: by chat", "call get_weather"):
        body = {"model": MODEL, "messages": [{"role": "user", "content": words}], "tools": [tool]}
        strictly(ChatCompletion, ask("/chat/completions", body))
        chunks = [line.removeprefix("data: ") for line in ask("/chat/completions", {**body, "stream": True, **options}).splitlines() if line]
        assert chunks.pop() == "[DONE]" and len(chunks) > 1
        for chunk in chunks:
            strictly(ChatCompletionChunk, chunk)
