"""Records what the real Codex CLI sends, into proto/codex-VERSION/, by running it against the scripted Responses server.

Usage: codex.py (no arguments, after tests/setup). The client's heads and frames are real; the server's frames are this project's script, in the fewest
fields that Codex accepts. Everything that names a person, a machine or a moment is replaced, and long texts are cut to `...`: what stays is the structure.
"""

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/clients"))

import codex_cli  # noqa: E402
from scripted_responses import HELD, Exchange, ScriptedResponses, message  # noqa: E402

VERSION = "0.169.0"
OUT = ROOT / f"proto/codex-{VERSION}"
TEXT_CHARS_MAX = 60
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SPARK = "gpt-5.3-codex-spark"

WRITE = {"type": "function_call", "call_id": "call_1", "name": "exec_command", "arguments": '{"cmd":"printf hello > hello.txt"}'}
WRITE_LITE = {"type": "custom_tool_call", "call_id": "call_1", "name": "exec", "input": 'await tools.exec_command({cmd: "printf hello > hello.txt"});'}
PATCH = "*** Begin Patch\n*** Update File: hello.txt\n@@\n-old\n+new\n*** End Patch\n"
EDIT = {"type": "custom_tool_call", "call_id": "call_1", "name": "apply_patch", "input": PATCH}

# What an entry of `GET /v1/models?client_version=` must hold so that Codex takes it: every field here is required.
CATALOG_ENTRY = {
    "slug": SPARK,
    "display_name": SPARK,
    "supported_reasoning_levels": [{"effort": "low", "description": "Low"}, {"effort": "medium", "description": "Medium"}],
    "shell_type": "unified_exec",
    "visibility": "list",
    "supported_in_api": True,
    "priority": 1,
    "support_verbosity": True,
    "apply_patch_tool_type": "freeform",
    "truncation_policy": {"mode": "tokens", "limit": 10000},
    "experimental_supported_tools": [],
    "base_instructions": "You are a coding agent.",
}


class Scrubber:
    """Replaces ids by their order of first sight, moments by one moment, paths by one path, and cuts long texts."""

    def __init__(self, codex: codex_cli.Codex, server: ScriptedResponses) -> None:
        self._ids: dict[str, str] = {}
        folder = str(codex.home.parent)
        self._words = {folder: "/home/user", f"127.0.0.1:{server.port}": "127.0.0.1:8700", "/root": "/primary"}

    def text(self, text: str) -> str:
        for word, instead in self._words.items():
            text = text.replace(word, instead)
        text = UUID.sub(lambda found: self._ids.setdefault(found[0], f"00000000-0000-7000-8000-{len(self._ids) + 1:012x}"), text)
        text = re.sub(r"\((?:Debian|Ubuntu|Linux)[^)]*\) \S+ \(", "(Linux; x86_64) unknown (", text)
        text = re.sub(r"\b17\d{11}\b", "1795305600000", text)
        text = re.sub(r"Chunk ID: \w+", "Chunk ID: 000000", text)
        return re.sub(r"(Wall time:?) [\d.]+", r"\1 0.0", text)

    def value(self, value: object, key: str = "") -> object:
        if isinstance(value, dict):
            return {name: self.value(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner, key) for inner in value]
        if not isinstance(value, str):
            return value
        value = self.text(value)
        if key in ("x-codex-turn-metadata", "user-agent"):
            return value
        if value.startswith("<environment_context>"):
            return "<environment_context>...</environment_context>"
        keeps_whole = key in ("output", "arguments", "input")
        return value if keeps_whole or len(value) <= TEXT_CHARS_MAX else value[:TEXT_CHARS_MAX].rstrip() + "..."


def save(name: str, what: str, server: ScriptedResponses, codex: codex_cli.Codex) -> None:
    """One transcript: a line that says what it is, then heads and frames in their order."""
    scrub, seen = Scrubber(codex, server), server.seen
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines: list[dict] = [{"captured": what, "client": f"Codex CLI {VERSION} (npm)", "server": "scripted (tests/clients/scripted_responses.py)", "date": today}]
    upgraded = any(head.is_upgrade for head in seen.heads)
    heads = [{"from": "client", "head": {"line": head.line, "headers": scrub.value(head.headers)}} for head in seen.heads]
    bodies = pairs(seen, scrub)
    if upgraded:
        lines += heads + [line for pair in bodies for line in pair]
    else:
        lines += [line for head, pair in zip(heads, bodies) for line in (head, *pair)]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.jsonl").write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    print(f"{name}.jsonl: {len(seen.requests)} requests")


def pairs(seen: Exchange, scrub: Scrubber) -> list[list[dict]]:
    """Each request, with the bytes of its JSON before it was cut, and the events that answered it."""
    result = []
    for request, events in zip(seen.requests, seen.sent):
        size = len(json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode())
        asked = {"from": "client", "json_bytes": size, "frame": scrub.value(request)}
        result.append([asked, *({"from": "server", "frame": scrub.value(event)} for event in events)])
    return result


def two_steps(name: str, what: str, model: str, call: dict, websockets: bool = True, catalog: bool = False) -> None:
    """A turn of two steps: a tool call, its output, a closing word. Checks that the tool did its work."""
    with ScriptedResponses(lambda _, turn: [call] if turn == 0 else [message("Done.")], {"models": [CATALOG_ENTRY]}) as server:
        with codex_cli.Codex(server.base_url, model, websockets, server.base_url + "/models" if catalog else None) as codex:
            target = codex.work / "hello.txt"
            if call is EDIT:
                target.write_text("old\n")
            ran = codex.exec("Write hello.txt.")
            assert target.read_text() == ("new\n" if call is EDIT else "hello"), ran
            save(name, what, server, codex)


def steer(name: str, what: str, model: str) -> None:
    """A turn is steered while its answer is under way: the lite models send `response.interrupt` on the same socket."""
    with ScriptedResponses(lambda _, turn: [HELD] if turn == 0 else [message("Done.")]) as server:
        with codex_cli.Codex(server.base_url, model) as codex, codex_cli.AppServer(codex) as app:
            thread = app.start_thread(codex.work)
            turn = app.start_turn(thread, "Count.")
            app.notification("item/agentMessage/delta")
            app.request("turn/steer", {"threadId": thread, "expectedTurnId": turn, "input": [{"type": "text", "text": "Stop at two."}]})
            app.notification("turn/completed")
            save(name, what, server, codex)


def subagent(name: str, what: str, model: str) -> None:
    """A turn spawns a sub-agent and waits for it: a socket of its own beside its parent's."""

    def agents(tool: str, **arguments: object) -> list[dict]:
        call = {"type": "function_call", "call_id": f"call_{tool}", "namespace": "multi_agent_v1", "name": tool}
        return [{**call, "arguments": json.dumps(arguments)}]

    def script(request: dict, _: int) -> list[dict]:
        if "x-openai-subagent" in request["client_metadata"]:
            return [message("Hi.")]
        outputs = {item["call_id"]: item["output"] for item in request["input"] if item["type"] == "function_call_output"}
        if spawned := outputs.get("call_spawn_agent"):
            return agents("wait_agent", targets=[json.loads(spawned)["agent_id"]])
        return [message("Done.")] if outputs else agents("spawn_agent", message="Say hi.")

    with ScriptedResponses(script) as server:
        with codex_cli.Codex(server.base_url, model) as codex:
            ran = codex.exec("Have an agent say hi.")
            assert ran.last_message == "Done." and len(server.seen.heads) == 2, ran
            save(name, what, server, codex)


def catalog_entry() -> None:
    """One entry as Codex lists it itself, its texts cut, and the smallest that it takes."""
    with codex_cli.Codex("http://127.0.0.1:1/v1", "gpt-5.5") as codex:
        listed = subprocess.run(
            [codex_cli.BINARY, "debug", "models"], env=codex.environment, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60
        )
    entry = next(model for model in json.loads(listed.stdout)["models"] if model["slug"] == "gpt-5.5")
    cut = json.loads(
        json.dumps(entry), object_hook=lambda o: {k: v[:TEXT_CHARS_MAX] + "..." if isinstance(v, str) and len(v) > TEXT_CHARS_MAX else v for k, v in o.items()}
    )
    (OUT / "model-catalog-entry.json").write_text(json.dumps(cut, indent=1) + "\n")
    (OUT / "model-catalog-entry-minimal.json").write_text(json.dumps(CATALOG_ENTRY, indent=1) + "\n")


def main() -> None:
    two_steps("ws-ordinary", "WebSocket, an ordinary model: prewarm, a tool call, its output", "gpt-5.5", WRITE)
    two_steps("ws-unknown-slug", "WebSocket, a slug that Codex does not know: prewarm, a tool call, its output", "flashlane-demo", WRITE)
    two_steps("ws-lite", "WebSocket, a lite model: prewarm, a code-mode call, its output", "gpt-6-luna", WRITE_LITE)
    two_steps("ws-apply-patch", f"WebSocket, {SPARK} from a served catalog: prewarm, an apply_patch call, its output", SPARK, EDIT, catalog=True)
    two_steps("http-ordinary", "HTTP SSE, an ordinary model: a tool call, its output", "gpt-5.5", WRITE, websockets=False)
    two_steps("http-lite", "HTTP SSE, a lite model: a code-mode call, its output", "gpt-6-luna", WRITE_LITE, websockets=False)
    steer("ws-lite-steer", "WebSocket, a lite model: the answer is steered while it is under way (response.interrupt)", "gpt-6-luna")
    subagent("ws-subagent", "WebSocket, an ordinary model: a sub-agent is spawned, on a socket of its own", "gpt-5.5")
    catalog_entry()


if __name__ == "__main__":
    main()
