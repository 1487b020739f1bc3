"""The real Codex CLI against flashlane: tool turns over both transports, what it uploads, interrupt, steer, and the served catalog."""

import time

import pytest

from codex_cli import AppServer, Codex, Finished
from recorder import Conversation, Recorder
from rig import DEMO, ONE_ENGINE, Flashlane, poll_until
from upstream import ScriptedUpstream

WRITE = "Write a file hello.txt containing hi there"
SPARK = "gpt-5.3-codex-spark"
INTERRUPT_MS_MAX = 100


def slow_config(upstream: ScriptedUpstream, model: str) -> str:
    """A gateway whose only engine is the scripted one, which streams until its client goes away."""
    models = f'\n[[models]]\nname = "{model}"\ncontext_tokens_max = 131072\nroute = "throughput-only"\n'
    return ONE_ENGINE.format(base_url=upstream.base_url) + models


def wrote_the_file(codex: Codex, ran: Finished) -> bool:
    """The turn ran a command that wrote the file, and ended in words."""
    assert ran.exit_code == 0, ran
    assert (codex.work / "hello.txt").read_text().strip() == "hi there", ran
    assert ran.of_type("command_execution"), ran.stdout
    assert not [e for e in ran.events if e["type"] in ("error", "turn.failed")], ran.stdout
    return bool(ran.last_message.strip())


def response_ids(conversation: Conversation) -> list[str]:
    """The ids of the responses that a connection completed, in order."""
    return [frame["response"]["id"] for frame in conversation.server_frames if frame["type"] == "response.completed"]


def test_a_tool_turn_over_the_websocket_writes_a_file_and_uploads_only_the_delta(gateway):
    with Recorder(gateway.port) as recorder, Codex(recorder.base_url, "flashlane-demo") as codex:
        assert wrote_the_file(codex, codex.exec(WRITE))

    [conversation] = recorder.websockets
    assert not recorder.posts
    assert "permessage-deflate" in conversation.response.headers["sec-websocket-extensions"]
    prewarm, first, second = conversation.client_frames
    ids = response_ids(conversation)
    assert prewarm["generate"] is False
    assert first["previous_response_id"] == ids[0]
    assert second["previous_response_id"] == ids[1]
    assert [item["type"] for item in second["input"]] == ["function_call_output"]
    uploaded = [message.wire_bytes for message in conversation.from_client]
    assert uploaded[2] < 1_500, f"the delta took {uploaded[2]} bytes on the wire, after {uploaded[:2]}"


def test_a_tool_turn_over_http_writes_a_file(gateway):
    with Recorder(gateway.port) as recorder, Codex(recorder.base_url, "flashlane-demo", websockets=False) as codex:
        assert wrote_the_file(codex, codex.exec(WRITE))

    assert not recorder.websockets
    assert len(recorder.posts) == 2
    assert all(post.response.headers["content-type"].startswith("text/event-stream") for post in recorder.posts)


def test_a_lite_model_completes_a_turn():
    """Lite models send their tools as an input item and take JavaScript, which the simulator does not write: only words are asked for here."""
    config = DEMO.replace("flashlane-demo", "gpt-6-luna")
    with Flashlane(config) as lite, Codex(lite.base_url, "gpt-6-luna") as codex:
        ran = codex.exec("hello")
    assert ran.exit_code == 0, ran
    assert ran.last_message.strip()


@pytest.mark.parametrize("websockets", [True, False], ids=["websocket", "http"])
def test_an_interrupt_stops_the_upstream(websockets):
    with ScriptedUpstream() as upstream, Flashlane(slow_config(upstream, "slow")) as gateway:
        with Codex(gateway.base_url, "slow", websockets) as codex, AppServer(codex) as app:
            thread = app.start_thread(codex.work)
            turn = app.start_turn(thread, "count")
            app.notification("item/agentMessage/delta")
            [stream] = upstream.streams
            assert stream.closed_at_s is None
            asked_at_s = time.monotonic()
            app.request("turn/interrupt", {"threadId": thread, "turnId": turn})
            poll_until(lambda: stream.closed_at_s, 5, "the upstream's connection closed")
            assert app.notification("turn/completed")["turn"]["status"] == "interrupted"
    took_ms = (stream.closed_at_s - asked_at_s) * 1000
    assert took_ms < INTERRUPT_MS_MAX


def test_a_steer_interrupts_the_answer_and_goes_on_over_the_same_socket():
    with ScriptedUpstream() as upstream, Flashlane(slow_config(upstream, "gpt-6-luna")) as gateway, Recorder(gateway.port) as recorder:
        with Codex(recorder.base_url, "gpt-6-luna") as codex, AppServer(codex) as app:
            thread = app.start_thread(codex.work)
            turn = app.start_turn(thread, "count")
            app.notification("item/agentMessage/delta")
            steer = {"threadId": thread, "expectedTurnId": turn, "input": [{"type": "text", "text": "stop at two"}]}
            app.request("turn/steer", steer)
            poll_until(lambda: len(upstream.streams) == 2, 5, "the steered turn reaches the upstream")
            interrupted, steered = upstream.streams
            poll_until(lambda: interrupted.closed_at_s, 5, "the first stream is closed")
            assert "stop at two" in str(steered.request["messages"][-1])
    [conversation] = recorder.websockets
    kinds = [frame["type"] for frame in conversation.client_frames]
    assert kinds == ["response.create", "response.create", "response.interrupt", "response.create"]
    assert conversation.client_frames[3]["previous_response_id"] == conversation.client_frames[2]["response_id"]


def test_the_served_catalog_gives_spark_its_tools_and_no_warning():
    with Flashlane(DEMO.replace("flashlane-demo", SPARK)) as gateway, Recorder(gateway.port) as recorder:
        with Codex(recorder.base_url, SPARK, catalog_url=f"{gateway.base_url}/models") as codex:
            (codex.work / "hello.txt").write_text("old\n")
            ran = codex.exec("Replace old with new in hello.txt using apply_patch")
            assert (codex.work / "hello.txt").read_text() == "new\n", ran
    assert not ran.of_type("error"), ran.stdout
    assert "metadata" not in ran.stdout + ran.stderr
    assert "ERROR" not in ran.stderr
    assert ran.of_type("file_change"), ran.stdout
    offered = recorder.websockets[0].client_frames[0]["tools"]
    assert ("custom", "apply_patch") in [(tool["type"], tool.get("name")) for tool in offered]
