"""Compaction by clients of others: openai's package over HTTP and the WebSocket, openai-node, Codex by its trigger, and a real model's summary."""

import json
import shutil
import subprocess

import openai
import pytest

from answering_engine import AnsweringEngine
from codex_cli import AppServer, Codex
from recorder import Recorder
from rig import DEMO, ONE_ENGINE, ROOT, Flashlane, RealModel

MODEL = "compacted"
MODELS = f'\n[[models]]\nname = "{MODEL}"\ncontext_tokens_max = 131072\n'
LONG = "The harbour of Lindau has a lighthouse and a lion of stone. " * 40
ABOVE = [{"type": "compaction", "compact_threshold": 200}]
SMOLLM = "smollm2-135m"


def user(text: str) -> dict:
    return {"role": "user", "content": text}


@pytest.fixture
def engine():
    with AnsweringEngine() as running:
        yield running


@pytest.fixture
def gateway_before(engine):
    with Flashlane(ONE_ENGINE.format(base_url=engine.base_url) + MODELS) as running:
        yield running


@pytest.fixture
def client(gateway_before):
    with openai.OpenAI(base_url=gateway_before.base_url, api_key="sk-one", max_retries=0) as client:
        yield client


def contents(request: dict) -> list[str]:
    """What the engine was told, message by message."""
    return [message["content"] for message in request["messages"]]


def test_the_sdk_compacts_a_conversation_and_goes_on_from_the_window(engine, gateway_before, client):
    history = [user(LONG), {"role": "assistant", "content": "Noted."}, user("What stands there?")]
    engine.deltas = [{"content": "It has a lighthouse and a lion."}]
    window = client.responses.compact(model=MODEL, input=history, instructions="Be brief.")
    assert (window.object, [item.type for item in window.output]) == ("response.compaction", ["message", "message", "compaction"])
    assert window.usage.total_tokens > 0
    assert contents(engine.asked[0])[:4] == ["Be brief.", LONG, "Noted.", "What stands there?"]
    sealed = window.output[-1].encrypted_content
    assert "lighthouse" not in sealed and len(sealed) < 400

    engine.deltas = [{"content": "A lion."}]
    carried = [item.model_dump(exclude_none=True) for item in window.output]
    answer = client.responses.create(model=MODEL, input=[*carried, user("And what else?")], store=False)
    assert answer.output_text == "A lion."
    assert contents(engine.asked[1])[2].endswith("It has a lighthouse and a lion.")

    with openai.OpenAI(base_url=gateway_before.base_url, api_key="sk-another", max_retries=0) as another:
        with pytest.raises(openai.BadRequestError) as raised:
            another.responses.create(model=MODEL, input=[*carried, user("Tell me.")])
    assert raised.value.param == "input[2].encrypted_content"


def test_a_long_conversation_is_compacted_on_its_way(engine, client):
    first = client.responses.create(model=MODEL, input=[{"role": "developer", "content": "Be kind."}, user(LONG)])
    with client.responses.stream(model=MODEL, input="And now?", previous_response_id=first.id, context_management=ABOVE) as stream:
        kinds = [event.type for event in stream]
        second = stream.get_final_response()
    assert kinds[2:5] == ["response.output_item.added", "response.compaction.compacting", "response.output_item.done"]
    assert [item.type for item in second.output] == ["compaction", "message"]
    assert second.usage.input_tokens == 14, "seven for the summary, seven for the answer"
    assert "notes to yourself" in contents(engine.asked[1])[-1]
    told = contents(engine.asked[2])
    assert (told[0], len(told), told[2]) == ("Be kind.", 3, "And now?")

    third = client.responses.create(model=MODEL, input="Go on.", previous_response_id=second.id, context_management=ABOVE)
    assert [item.type for item in third.output] == ["message"], "it is short now"
    assert contents(engine.asked[3]) == [*told, "yes", "Go on."]
    listed = client.responses.input_items.list(second.id, order="asc").data
    assert [item.type for item in listed] == ["message", "message"], "what the model was given beside the summary"


def test_a_websocket_compacts_and_its_memory_is_the_compacted_chain(engine, client):
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input=LONG, store=False)
        ended = [event for event in connection_until_completed(connection)][-1]
        connection.response.create(model=MODEL, input="And now?", previous_response_id=ended.response.id, store=False, context_management=ABOVE)
        events = connection_until_completed(connection)
        assert "response.compaction.compacting" in [event.type for event in events]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        connection.response.create(model=MODEL, input="Go on.", previous_response_id=events[-1].response.id, store=False)
        connection_until_completed(connection)
    assert len(contents(engine.asked[-1])) == 4, "the summary, a question, its answer, and the new words"


def connection_until_completed(connection) -> list:
    events = []
    for event in connection:
        events.append(event)
        assert event.type not in ("error", "response.failed"), event
        if event.type == "response.completed":
            break
    return events


def test_openai_node_compacts_and_goes_on(engine, gateway_before, tmp_path):
    shutil.copy(ROOT / "tests/clients/node/compact.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(ROOT / ".deps/npm/node_modules")
    ran = subprocess.run(["node", "compact.mjs", gateway_before.base_url, MODEL, LONG], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == ["response.compaction", "compaction", "yes"]


def test_codex_compacts_by_a_trigger(engine, gateway_before):
    """A provider named OpenAI makes Codex compact at its server: a delta that ends in the trigger, then a new history around the item that came back."""
    with Recorder(gateway_before.port) as recorder, Codex(recorder.base_url, MODEL) as codex:
        config = codex.home / "config.toml"
        config.write_text(config.read_text().replace('name = "gateway"', 'name = "OpenAI"'))
        with AppServer(codex) as app:
            thread = app.start_thread(codex.work)
            app.start_turn(thread, "Say yes.")
            app.notification("turn/completed")
            app.request("thread/compact/start", {"threadId": thread})
            app.notification("turn/completed")
            app.start_turn(thread, "And again.")
            assert app.notification("turn/completed")["turn"]["status"] == "completed"
    asked = [frame for conversation in recorder.websockets for frame in conversation.client_frames]
    [trigger] = [frame for frame in asked if frame["input"] and frame["input"][-1]["type"] == "compaction_trigger"]
    after = asked[asked.index(trigger) + 1]
    assert "compaction" in [item["type"] for item in after["input"]]
    assert any("summary of our conversation" in str(content) for content in contents(engine.asked[-1]))


@pytest.mark.timeout(240)
def test_a_real_models_summary_is_a_quarter_at_most(capsys):
    notes = [
        "The service 'ledger' on host db-7 fails at night. The file src/ledger/close.rs holds the nightly job.",
        "I ran `cargo test -p ledger`: 41 passed, 1 failed: close::tests::leap_day, expected 29, got 28.",
        "We decided to keep the calendar in UTC and to mend the job, not the test. The ticket is LED-218.",
        "The cache in src/ledger/cache.rs was not at fault: it was off during the failure. Do not touch it.",
    ]
    history = []
    for turn in range(12):
        history += [user(f"Step {turn}: {notes[turn % 4]} What do you make of it?"), {"role": "assistant", "content": f"In step {turn} I looked at it closely. {notes[(turn + 1) % 4]} " * 3}]
    with RealModel() as model:
        engine = f'dialect = "llama_cpp"\nbase_url = "{model.url}/v1"\n'
        config = DEMO.replace('tier = "throughput"\nbackend = "simulator"\n', f'tier = "throughput"\nbackend = "openai"\n{engine}')
        config += f'route = "latency-only"\n\n[[models]]\nname = "{SMOLLM}"\ncontext_tokens_max = 8192\nroute = "throughput-only"\n'
        with Flashlane(config) as gateway, openai.OpenAI(base_url=gateway.base_url, api_key="sk-one", max_retries=0, timeout=200) as client:
            count = lambda items: client.responses.input_tokens.count(model=SMOLLM, input=items).input_tokens  # noqa: E731
            window = client.responses.compact(model=SMOLLM, input=history)
            before, summary = count(history), count([window.output[-1].model_dump(exclude_none=True)])
            after = client.responses.create(model=SMOLLM, store=False, max_output_tokens=16, input=[window.output[-1].model_dump(exclude_none=True), user("What is the ticket?")])
    with capsys.disabled():
        print(f"\nhistory {before} tokens, summary {summary} ({100 * summary / before:.1f} %); the engine read {window.usage.input_tokens} for the summary and {after.usage.input_tokens} after it")
    assert before > 1400
    assert 8 < summary <= before / 4
    assert after.usage.input_tokens <= before / 4 + 32, "by its own tokenizer too: a short question more"
