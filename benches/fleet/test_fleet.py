"""The pure parts of the scripts here: `python3 -m unittest discover benches/fleet`."""

import importlib.machinery
import importlib.util
import pathlib
import unittest
import xml.dom.minidom

import lines


def program(name):
    loader = importlib.machinery.SourceFileLoader(name, str(pathlib.Path(__file__).with_name(name)))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


run, plot = program("run"), program("plot")


class Lines(unittest.TestCase):
    def test_ticks_are_round_and_hold_what_is_shown(self):
        self.assertEqual(lines.ticks(35, 4200, True), [10, 100, 1000, 10000])
        self.assertEqual([round(tick, 6) for tick in lines.ticks(0, 1.0, False)], [0, 0.2, 0.4, 0.6, 0.8, 1])

    def test_labels_do_not_cover_each_other(self):
        self.assertEqual(lines.apart([100, 300, 101]), [100, 300, 100 + lines.LABEL])

    def test_a_chart_is_xml_and_tells_its_values(self):
        series = [("a & b", "ours", [(10, 35.0), (20, 4200.0)]), ("nothing", "gpu", [])]
        text = lines.chart("T", "ms", "load", series, "note", is_log=True)
        said = xml.dom.minidom.parseString(text).getElementsByTagName("desc")[0].firstChild.data
        self.assertEqual(said, "In ms, by load: a & b: 10 35.0, 20 4,200.")


class Results(unittest.TestCase):
    def test_a_line_has_the_points_of_its_policy_that_there_are(self):
        def row(policy, load, value):
            return {"policy": policy, "turns_per_s": load, "result": {"all": {"ttft_p50_ms": value}}}

        result = {"rows": [row(plot.SPILL, 10, 2), row(plot.GPU, 10, 3), row(plot.SPILL, 20, None)]}
        described = [("a", plot.SPILL, ("all", "ttft_p50_ms"), "ours")]
        self.assertEqual(plot.series(result, described, 100), [("a", "ours", [(10, 200)])])

    def test_rounds_come_to_their_means(self):
        def row(real, played):
            of = lambda ms: {tier: {"turns": 10, "ttft_p50_ms": ms, "ttft_p99_ms": ms} for tier in run.TIERS}
            return {"real": of(real), "virtual": of(played)}

        found = run.means([row(100, 110), row(300, 290)])
        self.assertEqual(found["real"]["latency"], {"turns": 20, "ttft_p50_ms": 200, "ttft_p99_ms": 200})
        self.assertEqual(found["differs"]["all"], {"p50": 0.0, "p99": 0.0})
        self.assertFalse(run.is_near({"all": run.means([])}))

    def test_one_difference_above_the_bound_is_too_far(self):
        def result(p99):
            return {"all": {"differs": {"latency": {"p50": 0.01, "p99": -0.02}, "throughput": {"p50": 0.03, "p99": p99}}}}

        self.assertEqual([run.is_near(result(p99)) for p99 in (0.15, -0.16, 0.16)], [True, False, False])


if __name__ == "__main__":
    unittest.main()
