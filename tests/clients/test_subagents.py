"""A real Codex that spawns a sub-agent: its parent keeps the latency tier, the child runs on the throughput tier, and what one says reaches the other."""

import json

from answering_engine import AnsweringEngine
from codex_cli import Codex
from recorder import Recorder
from rig import SERVER, Flashlane, endpoint, fetch, poll_until

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
            lines = poll_until(lambda: completed_lines(gateway) if len(completed_lines(gateway)) == 4 else None, 10, "four turns in the log")
            metrics = fetch(f"{gateway.admin_url}/metrics")

    assert ran.exit_code == 0 and "marmalade" in ran.last_message, ran
    assert (len(wafer.asked), len(gpu.asked)) == (3, 1)
    assert "Say the word." in json.dumps(gpu.asked[0]["messages"][-1])
    tiers = {}
    for conversation in recorder.websockets:
        is_child = "x-openai-subagent" in conversation.request.headers
        completed = [frame["response"] for frame in conversation.server_frames if frame["type"] == "response.completed"]
        tiers[is_child] = {response["service_tier"] for response in completed if response["output"]}
    assert tiers == {False: {"priority"}, True: {"default"}}

    fields = [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in lines]
    assert len({turn["session"] for turn in fields}) == 1, "parent and child are one session"
    [child] = [turn for turn in fields if turn.get("subagent") == "true"]
    # Codex names the first conversation of a session as the session.
    assert (child["tier"], child["parent"]) == ("throughput", child["session"])
    assert {turn["tier"] for turn in fields if turn is not child} == {"latency"}
    origins = {(tier, origin) for tier in ("latency", "throughput") for origin in ("turn", "sub-agent") if counted(metrics, tier, origin)}
    assert origins == {("latency", "turn"), ("throughput", "sub-agent")}


def completed_lines(gateway: Flashlane) -> list[str]:
    return [line for line in list(gateway.process.lines) if "turn completed" in line]


def counted(metrics: str, tier: str, origin: str) -> bool:
    routes = [line for line in metrics.splitlines() if line.startswith("flashlane_routes_total{")]
    return any(f'tier="{tier}"' in line and f'origin="{origin}"' in line for line in routes)
