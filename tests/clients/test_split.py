"""`route = "split"`: who speaks is answered by the large model of the throughput tier, what tools gave goes to the fast one, in one chain."""

import pytest
from openai import OpenAI

from answering_engine import AnsweringEngine
from codex_cli import Codex
from recorder import Recorder
from rig import SERVER, Flashlane, endpoint

MODEL = "flashlane-demo"
CALL = {"type": "function_call", "call_id": "c1", "name": "run", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "ok"}
RULE = """
[[models.rules]]
when = { follows = ["user"], tokens_new_max = 20 }
route = "latency-first"
"""


@pytest.mark.parametrize("websockets", [True, False], ids=["websocket", "http"])
def test_codex_plans_at_the_throughput_tier_and_works_at_the_latency_tier(websockets):
    tiers = endpoint("wafer", "latency", "simulator") + endpoint("gpu", "throughput", "simulator")
    config = f'{SERVER}{tiers}\n[[models]]\nname = "{MODEL}"\ncontext_tokens_max = 131072\nroute = "split"\n'
    with Flashlane(config) as gateway, Recorder(gateway.port) as recorder, Codex(recorder.base_url, MODEL, websockets) as codex:
        ran = codex.exec("Write a file hello.txt containing hi there")
        assert ran.exit_code == 0 and (codex.work / "hello.txt").read_text().strip() == "hi there", ran
        # What the log has of them, warm-ups aside.
        turns = [line for line in list(gateway.process.lines) if "turn completed" in line and "plan=split" in line]
    asked = [next(field for field in line.split() if field.startswith("tier=")) for line in turns]
    assert asked == ["tier=throughput", "tier=latency"], turns


def test_each_tier_is_asked_for_its_own_model_and_rules_go_before():
    with AnsweringEngine() as wafer, AnsweringEngine() as gpu:
        tiers = endpoint("wafer", "latency", "openai", base_url=wafer.base_url) + endpoint("gpu", "throughput", "openai", base_url=gpu.base_url)
        model = f'\n[[models]]\nname = "{MODEL}"\nroute = "split"\nupstream = {{ latency = "small", throughput = "large" }}\n'
        with Flashlane(SERVER + tiers + model + RULE) as gateway, OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:

            def of(**request: object) -> tuple[str, str]:
                answer = client.responses.with_raw_response.create(model=MODEL, **request)
                asked = (wafer.asked or gpu.asked)[-1]["model"]
                wafer.asked.clear(), gpu.asked.clear()
                return asked, answer.parse()

            question = "Plan how to move the parser of this program into a crate of its own, and name the risks. " * 2
            asked, planned = of(input=question)
            assert (asked, planned.service_tier) == ("large", "default")
            # The tools' output alone, going on from what was planned; and the whole history, as over HTTP.
            asked, worked = of(input=[CALL, OUTPUT], previous_response_id=planned.id)
            assert (asked, worked.service_tier) == ("small", "priority")
            history = [{"role": "user", "content": question}, CALL, OUTPUT]
            assert of(input=history)[0] == "small"
            assert of(input=[*history, {"role": "user", "content": question}], previous_response_id=worked.id)[0] == "large"
            # A short word is not worth the large model: the rule says so.
            assert of(input="Go on.", previous_response_id=worked.id)[0] == "small"
            assert of(input=question, service_tier="fast")[0] == "small"
            messages = [{"role": "user", "content": question}, {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "run", "arguments": "{}"}}]}]
            client.chat.completions.create(model=MODEL, messages=messages[:1])
            client.chat.completions.create(model=MODEL, messages=[*messages, {"role": "tool", "tool_call_id": "c1", "content": "ok"}])
            assert ([asked["model"] for asked in gpu.asked], [asked["model"] for asked in wafer.asked]) == (["large"], ["small"])
