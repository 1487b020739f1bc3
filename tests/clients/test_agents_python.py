"""OpenAI's Agents SDK and LangChain, for Python, against flashlane: a tool's round trip over each transport."""

import asyncio

import agents
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from wire_check import a_websocket_was_used, websocket_bytes

MODEL = "flashlane-demo"
QUESTION = "What is the weather in Paris?"
ANSWER = "sunny at 21 degrees"


@pytest.fixture(autouse=True)
def without_tracing():
    """Traces would go to OpenAI."""
    agents.set_tracing_disabled(True)


@pytest.fixture(scope="module")
def loop():
    """One event loop for all: the SDK keeps its HTTP connections from run to run."""
    with asyncio.Runner() as runner:
        yield runner


def weatherman(asked: list[str]) -> agents.Agent:
    @agents.function_tool
    def get_weather(city: str) -> str:
        """Weather of a city."""
        asked.append(city)
        return ANSWER

    return agents.Agent(name="weatherman", instructions="Ask the tool.", model=MODEL, tools=[get_weather], model_settings=agents.ModelSettings(tool_choice="required"))


@pytest.mark.parametrize("over_websocket", [False, True], ids=["http", "websocket"])
def test_an_agent_asks_its_tool_and_answers(gateway, loop, over_websocket):
    asked: list[str] = []

    async def conversation() -> str:
        provider = agents.OpenAIProvider(api_key="sk-dummy", base_url=gateway.base_url, use_responses=True, use_responses_websocket=over_websocket)
        ran = await agents.Runner.run(weatherman(asked), QUESTION, run_config=agents.RunConfig(model_provider=provider), max_turns=4)
        await provider.aclose()
        return str(ran.final_output)

    before = websocket_bytes(gateway)
    said = loop.run(conversation())
    if over_websocket:
        a_websocket_was_used(gateway, before)
    assert len(asked) == 1
    assert ANSWER in said, said


@pytest.mark.parametrize("over_websocket", [False, True], ids=["http", "websocket"])
def test_an_agents_answer_is_streamed(gateway, loop, over_websocket):
    asked: list[str] = []

    async def conversation() -> tuple[str, str]:
        provider = agents.OpenAIProvider(api_key="sk-dummy", base_url=gateway.base_url, use_responses=True, use_responses_websocket=over_websocket)
        running = agents.Runner.run_streamed(weatherman(asked), QUESTION, run_config=agents.RunConfig(model_provider=provider), max_turns=4)
        deltas = [event.data.delta async for event in running.stream_events() if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"]
        await provider.aclose()
        return "".join(deltas), str(running.final_output)

    streamed, said = loop.run(conversation())
    assert len(asked) == 1
    assert ANSWER in said and said in streamed


@pytest.mark.parametrize("responses", [True, False], ids=["responses", "chat"])
def test_langchain_makes_a_tools_round_trip(gateway, responses):
    @tool
    def get_weather(city: str) -> str:
        """Weather of a city."""
        return f"{city}: {ANSWER}"

    model = ChatOpenAI(model=MODEL, api_key="sk-dummy", base_url=gateway.base_url, use_responses_api=responses, max_retries=0, timeout=20)
    history = [HumanMessage(QUESTION)]
    called = model.bind_tools([get_weather], tool_choice="get_weather").invoke(history)
    [call] = called.tool_calls
    history += [called, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])]
    answered = model.bind_tools([get_weather]).invoke(history)
    assert ANSWER in answered.text
    assert answered.usage_metadata["input_tokens"] > called.usage_metadata["input_tokens"]


def test_langchain_streams_and_chains_by_response_id(gateway):
    model = ChatOpenAI(model=MODEL, api_key="sk-dummy", base_url=gateway.base_url, use_responses_api=True, use_previous_response_id=True, max_retries=0, timeout=20)
    history = [HumanMessage("My name is Ada.")]
    history.append(model.invoke(history))
    history.append(HumanMessage("What is my name?"))
    streamed = "".join(chunk.text for chunk in model.stream(history))
    assert "Ada" in streamed


def test_langchain_reads_an_answer_of_a_schema(gateway):
    schema = {"title": "who", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "additionalProperties": False}
    model = ChatOpenAI(model=MODEL, api_key="sk-dummy", base_url=gateway.base_url, use_responses_api=True, max_retries=0, timeout=20)
    said = model.with_structured_output(schema, method="json_schema", strict=True).invoke("Who?")
    assert isinstance(said["name"], str)
