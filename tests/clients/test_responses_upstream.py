"""An endpoint that speaks the Responses API itself (`backend = "responses"`): here another flashlane, before a scripted engine. Its events pass: what a client
of the outer gateway gets is what a client of the inner one gets, under the outer one's ids and numbers."""

import json

import pytest
from openai import BadRequestError, OpenAI

import strict
from answering_engine import AnsweringEngine
from codex_cli import Codex
from rig import DEMO, ONE_ENGINE, SERVER, Flashlane, endpoint, fetch
from scripted_responses import ScriptedResponses, message
from test_event_order import CASES, MODELS, TOOLS, common, order, over_http, over_websocket



TRANSPORTS = ["http", "websocket"]


def outer_of(base_url: str, model: str, transport: str) -> str:
    """A gateway whose only endpoint speaks the Responses API."""
    return SERVER + endpoint("inner", "throughput", "responses", base_url=base_url, transport=transport) + f'[[models]]\nname = "{model}"\ncontext_tokens_max = 131072\n'


@pytest.fixture(scope="module")
def engine():
    with AnsweringEngine() as running:
        yield running


@pytest.fixture(scope="module")
def inner(engine):
    with Flashlane(ONE_ENGINE.format(base_url=engine.base_url) + MODELS) as running:
        yield running


@pytest.fixture(scope="module", params=TRANSPORTS)
def outer(inner, request):
    with Flashlane(outer_of(inner.base_url, "scripted", request.param)) as running:
        yield running


def seen(response):
    """What both gateways say: the inner one is asked to seal reasoning, whether or not the client asked."""
    response = common(response)
    for item in response["output"]:
        if item["type"] == "reasoning":
            item.pop("content", None), item.pop("encrypted_content", None)
    return response


@pytest.mark.parametrize(("deltas", "finish", "items", "status", "reason"), CASES.values(), ids=CASES)
def test_what_the_inner_gateway_says_passes(engine, inner, outer, deltas, finish, items, status, reason):
    engine.deltas, engine.finish = deltas, finish
    request = {"model": "scripted", "input": "hello", "tools": TOOLS}
    expected = over_http(inner, request)[-1]["response"]
    for events in (over_http(outer, request), over_websocket(outer, request)):
        assert order(events) == ["created", "in_progress", *items, status]
        strict.check(events)
        response = events[-1]["response"]
        assert (response["incomplete_details"] or {}).get("reason") == reason
        if status != "failed":
            assert seen(response) == seen(expected)
            assert seen(response) == seen(json.loads(fetch(f"{outer.base_url}/responses", request)))
        else:
            assert response["error"]["code"] == expected["error"]["code"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_chain_with_a_tool_goes_through_two_gateways(transport):
    weather = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    with Flashlane(DEMO) as inner, Flashlane(outer_of(inner.base_url, "flashlane-demo", transport)) as outer:
        client = OpenAI(base_url=outer.base_url, api_key="any", max_retries=0)
        first = client.responses.create(
            model="flashlane-demo", input="What is the weather in Paris?", tools=[weather], tool_choice={"type": "function", "name": "get_weather"}
        )
        call = next(item for item in first.output if item.type == "function_call")
        output = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
        second = client.responses.create(model="flashlane-demo", input=output, tools=[weather], previous_response_id=first.id)
        assert second.output_text
        assert second.previous_response_id == first.id
        assert client.responses.retrieve(second.id).output_text == second.output_text
        with client.responses.stream(model="flashlane-demo", input="again", previous_response_id=second.id) as stream:
            assert stream.get_final_response().output_text
        with pytest.raises(BadRequestError, match="/v1/responses"):
            client.chat.completions.create(model="flashlane-demo", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_codex_writes_a_file_through_two_gateways(transport):
    with Flashlane(DEMO) as inner, Flashlane(outer_of(inner.base_url, "flashlane-demo", transport)) as outer:
        with Codex(outer.base_url, "flashlane-demo", transport == "websocket") as codex:
            ran = codex.exec("Write a file hello.txt containing hi there")
            assert ran.exit_code == 0, ran
            assert (codex.work / "hello.txt").read_text().strip() == "hi there", ran
            assert ran.last_message.strip(), ran


SEARCH = {"type": "web_search_call", "id": "ws_theirs", "status": "completed", "action": {"type": "search", "query": "q"}}
THOUGHT = {"type": "reasoning", "id": "rs_theirs", "summary": [], "encrypted_content": "gAAAAABsealed=="}
NEW = {"type": "brand_new_call", "id": "bn_theirs", "anything": {"at": "all"}}


@pytest.mark.parametrize("upstream", TRANSPORTS)
def test_what_only_such_a_server_makes_comes_back_to_it(upstream):
    with ScriptedResponses(lambda request, turn: [THOUGHT, SEARCH, NEW, message("found it")]) as server:
        with Flashlane(outer_of(server.base_url, "m", upstream)) as outer:
            tools = [{"type": "web_search"}]
            for transport in (over_http, over_websocket):
                asks = {"model": "m", "input": "find it", "tools": tools, "store": False, "include": ["web_search_call.action.sources"]}
                transport(outer, asks)
                # Models that do not reason may refuse what is asked of their reasoning.
                assert server.seen.requests[-1]["include"] == ["web_search_call.action.sources"]
                events = transport(outer, {**asks, "reasoning": {"effort": "low"}})
                assert [event["sequence_number"] for event in events] == list(range(len(events)))
                response = events[-1]["response"]
                assert [item["type"] for item in response["output"]] == ["reasoning", "web_search_call", "brand_new_call", "message"]
                assert response["output"][0] == THOUGHT
                assert response["output"][2] == {**NEW, "id": response["output"][2]["id"]}
                assert response["output"][2]["id"].startswith("bn_") and response["output"][2]["id"] != NEW["id"]
                assert response["usage"]["input_tokens"] == 10
                asked = server.seen.requests[-1]
                assert (asked["store"], asked["tools"], asked["stream"]) == (False, tools, True)
                assert asked["include"] == ["web_search_call.action.sources", "reasoning.encrypted_content"]
                # A client that keeps its own history sends all of it again.
                again = [{"role": "user", "content": "find it"}, *response["output"], {"role": "user", "content": "more"}]
                transport(outer, {"model": "m", "input": again, "store": False})
                assert server.seen.requests[-1]["input"] == again
            first = json.loads(fetch(f"{outer.base_url}/responses", {"model": "m", "input": "find it"}))
            fetch(f"{outer.base_url}/responses", {"model": "m", "input": "more", "previous_response_id": first["id"]})
            assert server.seen.requests[-1]["input"][1:-1] == first["output"]
            assert "previous_response_id" not in server.seen.requests[-1]
            # All turns went over one connection, or each over one of its own, since the server closes them.
            assert len(server.seen.heads) == (1 if upstream == "websocket" else len(server.seen.requests))
