"""A request that fans out before a real llama.cpp: by the `cached_tokens` of its own usage, how much of the context that children share was read more than once.

llama.cpp keeps what it has read by slot, and a slot serves one turn at a time: with one slot children follow each other, and each finds there what the one before has read
of the context. (Engines with one cache for all turns, as vLLM and SGLang, share it between turns that run at once.) FAN_OUT_CHILDREN (3) and FAN_OUT_SLOTS (1) set how much is asked of it.
"""

import json
import os

import pytest
from websockets.sync.client import connect

from rig import SERVER, Flashlane, RealModel, endpoint

CHILDREN = int(os.environ.get("FAN_OUT_CHILDREN", "3"))
SLOTS = int(os.environ.get("FAN_OUT_SLOTS", "1"))
MODEL = "smollm2-135m"
MORE = f'\n[[models]]\nname = "{MODEL}"\ncontext_tokens_max = 2048\n\n[session]\nchildren_max = 16\n'
CONTEXT = "The keeper of a lighthouse at the sea writes down each ship, its flag, its cargo, and the hour at which it passed. " * 12


@pytest.mark.timeout(240)
def test_what_children_share_is_read_once():
    with RealModel(CTX="2048", SLOTS=str(SLOTS)) as engine:
        config = SERVER + endpoint("gpu", "throughput", "openai", dialect="llama_cpp", base_url=f"{engine.url}/v1") + MORE
        with Flashlane(config) as gateway, connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as socket:
            children = [{"name": f"child-{number}", "input": f"Question {number}: what is written down?"} for number in range(CHILDREN)]
            socket.send(json.dumps({"type": "response.create", "model": MODEL, "input": CONTEXT, "max_output_tokens": 6, "temperature": 0, "store": False, "flashlane": {"fan_out": children}}))
            usages = {}
            while True:
                event = json.loads(socket.recv(timeout=120))
                assert event["type"] not in ("error", "response.failed"), event
                if event["type"] in ("response.completed", "response.incomplete"):
                    if "stream_id" not in event:
                        break
                    usages[event["stream_id"]] = event["response"]["usage"]
    first, *others = usages.values()
    read = {name: (usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]) for name, usage in usages.items()}
    print(f"\n{CHILDREN} children, {SLOTS} slots: tokens of the input and of them cached, in the order of their ends: {read}")
    assert len(usages) == CHILDREN and event["response"]["usage"]["input_tokens"] == sum(usage["input_tokens"] for usage in usages.values())
    assert first["input_tokens_details"]["cached_tokens"] == 0
    shared = [usage["input_tokens_details"]["cached_tokens"] / usage["input_tokens"] for usage in others]
    assert SLOTS > 1 or min(shared) > 0.9, shared
