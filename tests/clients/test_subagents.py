"""A real Codex that spawns a sub-agent: its parent keeps the latency tier, the child runs on the throughput tier, and what one says reaches the other."""

import json

from answering_engine import AnsweringEngine
from codex_cli import Codex
from recorder import Recorder
from rig import SERVER, Flashlane, endpoint

# Codex gives its agent tools to models that it does not know.
MODEL = "flashlane-demo"


class Parent(AnsweringEngine):
    """Spawns an agent, waits for it, and says what it said."""

    def chunks(self) -> list[dict]:
        request = self.asked[-1]
        outputs = [message["content"] for message in request["messages"] if message["role"] == "tool"]
        match outputs:
            case []:
                self._call(request, "spawn_agent", {"message": "Say the word."})
            case [spawned]:
                self._call(request, "wait_agent", {"targets": [json.loads(spawned)["agent_id"]]})
            case [_, *waited]:
                self.deltas, self.finish = [{"role": "assistant", "content": f"It said: {waited[-1]}"}], "stop"
        return super().chunks()

    def _call(self, request: dict, tool: str, arguments: dict) -> None:
        """By the name under which the gateway tells the engine of it."""
        names = [tool["function"]["name"] for tool in request["tools"]]
        [name] = [name for name in names if name.endswith(tool)]
        function = {"name": name, "arguments": json.dumps(arguments)}
        self.deltas = [{"role": "assistant", "tool_calls": [{"index": 0, "id": f"call_{tool}", "type": "function", "function": function}]}]
        self.finish = "tool_calls"


def test_a_sub_agent_runs_on_the_throughput_tier_while_its_parent_keeps_the_latency_tier():
    with Parent() as wafer, AnsweringEngine() as gpu:
        gpu.deltas = [{"role": "assistant", "content": "marmalade"}]
        endpoints = endpoint("wafer", "latency", "openai", base_url=wafer.base_url) + endpoint("gpu", "throughput", "openai", base_url=gpu.base_url)
        config = f'{SERVER}{endpoints}\n[[models]]\nname = "{MODEL}"\n'
        with Flashlane(config) as gateway, Recorder(gateway.port) as recorder, Codex(recorder.base_url, MODEL) as codex:
            ran = codex.exec("Have an agent say the word.")

    assert ran.exit_code == 0 and "marmalade" in ran.last_message, ran
    assert (len(wafer.asked), len(gpu.asked)) == (3, 1)
    assert "Say the word." in json.dumps(gpu.asked[0]["messages"][-1])
    tiers = {}
    for conversation in recorder.websockets:
        is_child = "x-openai-subagent" in conversation.request.headers
        completed = [frame["response"] for frame in conversation.server_frames if frame["type"] == "response.completed"]
        tiers[is_child] = {response["service_tier"] for response in completed if response["output"]}
    assert tiers == {False: {"priority"}, True: {"default"}}
