"""benches/workload, short: the captured session of the real Codex is replayed over each transport and each route, with engines and tools fifty times as fast."""

import importlib.machinery
import importlib.util
import json
import sys
import threading

import pytest

from rig import FLASHLANE, ROOT

FOLDER = ROOT / "benches" / "workload"
HURRY = 50
# Turns at the latency and at the throughput tier: a user speaks twice, and ten times tools do.
TURNS = {"throughput-only": (0, 12), "latency-only": (12, 0), "latency-first": (12, 0), "split": (10, 2)}


@pytest.fixture(scope="module")
def run():
    sys.path.insert(0, str(FOLDER))
    loader = importlib.machinery.SourceFileLoader("workload_run", str(FOLDER / "run"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("workload_run", loader))
    loader.exec_module(module)
    return module


def told(name):
    return json.loads((FOLDER / name).read_text())


def test_each_way_does_the_captured_turns_at_its_tiers(run, tmp_path):
    paces = {tier: (max(first_ms // HURRY, 1), per_second * HURRY) for tier, (first_ms, per_second) in run.PACES.items()}
    client = run.replay.Replay(told("session.json"), told("answers.json"), HURRY)
    wrong = run.replay.Replay(told("session.json"), [*told("answers.json")[:-1], {"text": "Something else."}], HURRY)
    found, running = {}, run.start(FLASHLANE, paces, tmp_path)
    try:
        port = int(running[-1].url.rsplit(":", 1)[1])

        def go(way):
            for route in run.ROUTES:
                found[way, route] = client.task(way, port, route, paces)

        threads = [threading.Thread(target=go, args=(way,)) for way in run.WAYS]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        with pytest.raises(ValueError, match="otherwise than in the capture"):
            wrong.task("websocket", port, "latency-only", paces)
    finally:
        [process.stop() for process in running]
    assert len(found) == len(run.WAYS) * len(run.ROUTES)
    for (way, route), task in found.items():
        tiers = task["tiers"]
        assert (tiers["latency"]["turns"], tiers["throughput"]["turns"]) == TURNS[route], (way, route)
        assert tiers["latency"]["output"] + tiers["throughput"]["output"] == 2412, (way, route)
        assert task["wall_s"] >= task["models_s"] + task["tools_s"] > 0, (way, route, task)
        assert (len(task["ttfts_ms"]["plan"]), len(task["ttfts_ms"]["work"])) == (2, 10)
