"""Conversations by the real openai Python SDK: made, changed, used by responses, and their items."""

import openai
import pytest

MODEL = "flashlane-demo"


@pytest.fixture(scope="module")
def client(gateway):
    with openai.OpenAI(base_url=gateway.base_url, api_key="sk-dummy", max_retries=0, timeout=20) as client:
        yield client


def test_the_sdk_makes_changes_and_uses_a_conversation(client):
    conversation = client.conversations.create(metadata={"topic": "names"}, items=[{"type": "message", "role": "user", "content": "My name is Ada."}])
    assert conversation.metadata == {"topic": "names"}
    assert client.conversations.update(conversation.id, metadata={"topic": "all"}).metadata == {"topic": "all"}
    response = client.responses.create(model=MODEL, input="What is my name?", conversation=conversation.id)
    assert "Ada" in response.output_text
    assert response.conversation.id == conversation.id
    items = list(client.conversations.items.list(conversation.id, order="asc", limit=1))
    assert [item.role for item in items] == ["user", "user", "assistant"], "page by page"
    assert items[-1].id == response.output[0].id
    assert client.conversations.items.retrieve(items[0].id, conversation_id=conversation.id) == items[0]
    assert client.conversations.items.delete(items[0].id, conversation_id=conversation.id).id == conversation.id
    added = client.conversations.items.create(conversation.id, items=[{"type": "message", "role": "user", "content": "more"}])
    assert [item.content[0].text for item in added.data] == ["more"]
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=MODEL, input="hi", conversation=conversation.id)


def test_a_streamed_response_is_added_when_it_has_ended(client):
    conversation = client.conversations.create()
    events = list(client.responses.create(model=MODEL, input="count from 1 to 5", conversation=conversation.id, stream=True))
    assert events[-1].type == "response.completed"
    assert len(list(client.conversations.items.list(conversation.id))) == 2
