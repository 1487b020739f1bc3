"""The pure parts of the scripts here: `python3 -m unittest discover benches/workload`."""

import importlib.machinery
import importlib.util
import json
import pathlib
import unittest
import xml.dom.minidom

import session
import sums

HERE = pathlib.Path(__file__).parent
loader = importlib.machinery.SourceFileLoader("plot", str(HERE / "plot"))
plot = importlib.util.module_from_spec(importlib.util.spec_from_loader("plot", loader))
loader.exec_module(plot)

PACES = {"latency": (30, 1500), "throughput": (250, 65)}
CAPTURE = json.loads((HERE / "session.json").read_text())
ANSWERS = json.loads((HERE / "answers.json").read_text())


def turn(tier, ttft_s, output, is_plan=False):
    return {"tier": tier, "ttft_s": ttft_s, "input": 1000, "output": output, "is_plan": is_plan}


class Session(unittest.TestCase):
    def test_what_is_packed_comes_back_whole(self):
        long = "é\n" * 50
        requests = [
            {"model": "m", "tools": [1], "turn": 1, "input": [{"text": "a"}, {"text": "b"}]},
            {"model": "m", "tools": [1], "turn": 2, "input": [{"text": "a"}, {"text": "b"}, {"text": long}]},
            {"model": "m", "tools": [1], "turn": 3, "input": [{"text": "other"}]},
        ]
        packed = session.packed(requests)
        self.assertEqual((packed["same"], [own["again"] for own in packed["requests"]]), ({"model": "m", "tools": [1]}, [0, 2, 0]))
        self.assertEqual(session.unpacked(packed), requests)

    def test_a_text_that_was_cut_is_as_long_as_it_was(self):
        for text in ("word " * 40, 'a "quoted"\nline ' * 20, "ü" * 90):
            again = session.filled(session.shortened(text, 60))
            self.assertTrue(again.startswith(text[:60]) and "…" not in again[60:])
            self.assertEqual(session.json_bytes(again), session.json_bytes(text))

    def test_a_request_goes_on_from_what_was_answered_now_under_ids_of_its_own(self):
        request = {"model": "agent", "previous_response_id": "response 1", "prompt_cache_key": session.ID + "000000000002", "input": []}
        ids = "11111111-2222-3333-4444-"
        again = session.anew(request, "split", ids, ["resp_a", "resp_b"])
        self.assertEqual(again, {"model": "split", "previous_response_id": "resp_b", "prompt_cache_key": ids + "000000000002", "input": []})

    def test_both_captures_are_of_the_same_turns(self):
        over_websocket, over_http = (session.unpacked(CAPTURE[way]) for way in ("websocket", "http"))
        # Before its turns a WebSocket is warmed up.
        self.assertEqual([over_websocket[0]["generate"], len(over_websocket) - 1, len(over_http)], [False, len(ANSWERS), len(ANSWERS)])
        steps = [[session.is_after_tools(request) for request in way] for way in (over_websocket[1:], over_http)]
        self.assertEqual(steps[0], steps[1])
        self.assertEqual([at for at, is_after in enumerate(steps[0]) if not is_after], [0, 7])
        called = [bool(answer.get("call")) for answer in ANSWERS]
        self.assertEqual(called[:-1], [*steps[0][1:7], False, *steps[0][8:]], "a tool's output follows each call")
        waits = [pause > 0 for pause in CAPTURE["pauses_ms"][1:]]
        self.assertEqual(waits, steps[0])

    def test_nothing_of_a_machine_is_in_it(self):
        text = (HERE / "session.json").read_text()
        for word in ("/tmp", "/root", "/var/", "Bearer", "sk-"):
            self.assertNotIn(word, text)


class Sums(unittest.TestCase):
    def test_a_models_pace_is_its_first_token_and_the_rest_at_its_rate(self):
        self.assertAlmostEqual(sums.pace_s((250, 65), 1), 0.25)
        self.assertAlmostEqual(sums.pace_s((250, 65), 66), 1.25)

    def test_a_task_is_models_tools_and_all_else(self):
        turns = [turn("throughput", 0.26, 66, True), turn("latency", 0.04, 1501), turn("latency", 0.06, 1501)]
        found = sums.task(5.0, 1.5, turns, PACES)
        # 0.25 + 1, and twice 0.03 + 1.
        self.assertAlmostEqual(found["models_s"], 3.31)
        self.assertAlmostEqual(found["rest_s"], 0.19)
        self.assertEqual(found["tiers"], {"latency": {"turns": 2, "input": 2000, "output": 3002}, "throughput": {"turns": 1, "input": 1000, "output": 66}})
        self.assertEqual(found["ttfts_ms"], {"plan": [260.0], "work": [40.0, 60.0]})

    def test_of_rounds_there_are_medians_and_other_turns_are_an_error(self):
        tasks = [sums.task(wall_s, 1.0, [turn("latency", ttft_s, 10, True), turn("latency", 2 * ttft_s, 10)], PACES) for wall_s, ttft_s in ((3, 0.1), (9, 0.3), (4, 0.2))]
        found = sums.all_of(tasks)
        self.assertEqual([found[name] for name in ("wall_s", "wall_min_s", "wall_max_s", "tasks")], [4, 3, 9, 3])
        self.assertEqual([found[name] for name in ("ttft_plan_p50_ms", "ttft_work_p50_ms", "ttft_work_max_ms")], [200.0, 400.0, 600.0])
        other = sums.task(3, 1.0, [turn("throughput", 0.1, 10, True), turn("latency", 0.1, 10)], PACES)
        self.assertRaises(ValueError, sums.all_of, [*tasks, other])

    def test_the_table_says_the_models_share(self):
        median = sums.all_of([sums.task(4.0, 1.0, [turn("throughput", 0.3, 66, True), turn("latency", 0.04, 1501)], PACES)])
        row = sums.table([{"transport": "http", "route": "split", "median": median}]).splitlines()[-1]
        self.assertEqual(row, "| http | split | 4.0 | 4.0 - 4.0 | 2.3 (57 %) | 1.0 | 360.0 | 300 | 40 | 300 | 1 / 1 | 1,501 / 66 | 1 / 1 |")


class Plot(unittest.TestCase):
    def test_a_way_has_its_bar_and_the_least_that_it_can_be(self):
        def row(transport, route, wall_s):
            tasks = [sums.task(wall_s, 1.0, [turn("latency", 0.04, 1501, True), turn("latency", 0.05, 1)], PACES)]
            return {"transport": transport, "route": route, "median": sums.all_of(tasks)}

        result = {"machine": "m", "processors": 2, "rows": [row("http", "split", 3.0), row("websocket", "latency-only", 2.5)]}
        drawn = dict(plot.drawings(result))
        self.assertIn("over HTTP, split 3.00 (least possible 2.06); over the WebSocket, latency-only 2.50 (least possible 2.06).", drawn["workload-task"])
        self.assertIn("over HTTP, split, plans 40.0; over HTTP, split, after tools 50.0", drawn["workload-ttft"])
        self.assertIn("over HTTP, split, latency tier 1,502; over HTTP, split, throughput tier 0;", drawn["workload-tokens"])
        for svg in drawn.values():
            xml.dom.minidom.parseString(svg)
        rects = xml.dom.minidom.parseString(drawn["workload-task"]).getElementsByTagName("rect")
        self.assertEqual([rect.getAttribute("class") for rect in rects], ["ours", "other"])


if __name__ == "__main__":
    unittest.main()
