"""The pure parts of the scripts here: `python3 -m unittest discover benches/e2e`."""

import importlib.machinery
import importlib.util
import math
import pathlib
import unittest
import xml.dom.minidom

import bars
import ratios

loader = importlib.machinery.SourceFileLoader("plot", str(pathlib.Path(__file__).with_name("plot")))
plot = importlib.util.module_from_spec(importlib.util.spec_from_loader("plot", loader))
loader.exec_module(plot)


def row(scenario, gateway, way, **median):
    return {"scenario": scenario, "gateway": gateway, "way": way, "median": median, "rounds": [median]}


class Bars(unittest.TestCase):
    def test_ticks_are_round_and_reach_the_largest(self):
        for largest, expected in [(9.3, [0, 2, 4, 6, 8, 10]), (100, [0, 20, 40, 60, 80, 100]), (0.26, [0, 0.1, 0.2, 0.3]), (0, [0, 1])]:
            self.assertEqual([round(tick, 6) for tick in bars.ticks(largest)], expected)

    def test_numbers_have_three_digits(self):
        self.assertEqual([bars.short(value) for value in (0, 0.256, -3.14159, 52.44, 1234.5)], ["0", "0.256", "-3.14", "52.4", "1,234"])

    def test_a_bar_is_as_long_as_its_value_and_the_text_tells_it_too(self):
        svg = bars.chart("a < b", "µs", [("", [{"label": "x", "value": 10.0}, {"label": "y", "value": 5.0, "ours": True, "bound": 4.0}])])
        root = xml.dom.minidom.parseString(svg)
        self.assertIn('width="1.0"', bars.chart("a", "ms", [("", [{"label": "x", "value": -2.0}, {"label": "y", "value": 5.0}])]))
        long, half = [float(rect.getAttribute("width")) for rect in root.getElementsByTagName("rect")]
        self.assertAlmostEqual(long, 2 * half, delta=0.2)
        self.assertIn("x 10.0; y 5.00 (least possible 4.00)", root.getElementsByTagName("desc")[0].firstChild.data)


class Plot(unittest.TestCase):
    def test_the_result_that_shows_the_most_is_drawn_and_every_rollout(self):
        head = {"machine": "m", "processors": 2}
        less = head | {"rows": [row("flat: 64 streams", "flashlane", "chat", cpu_us_per_token=1.0)]}
        more = head | {"rows": less["rows"] + [row("flat: 64 streams", "smg", "chat", cpu_us_per_token=7.0), row("flat: 64 streams", "direct", "chat")]}
        rollout = head | {"rows": [row("rollout: 40 turns", "flashlane", "D", overhead_ms=2.0, bound_ms=1.5), row("rollout: 40 turns", "smg", "A", overhead_ms=math.nan)]}
        drawn = dict(plot.drawings({"less": less, "more": more, "far": rollout}))
        self.assertIn("flashlane, chat 1.00; flat: 64 streams, smg, chat 7.00.", drawn["cpu-flat"])
        self.assertIn("flashlane, D 2.00 (least possible 1.50).", drawn["rollout-far"])
        self.assertEqual((drawn["idle"], "rollout-more" in drawn), (None, False))


class Ratios(unittest.TestCase):
    def test_gateways_are_compared_within_a_scenario_and_a_way(self):
        rows = [
            row("flat: 64 streams", "flashlane", "chat", cpu_us_per_token=0.5, token_p99_us=10, tokens_per_s=200),
            row("flat: 64 streams", "smg", "chat", cpu_us_per_token=5.0, token_p99_us=20, tokens_per_s=100),
        ]
        self.assertIn("| flat: 64 streams | flashlane chat | smg chat | 10.0 x less | 2.0 x less | +100 % |", ratios.tables(rows))


if __name__ == "__main__":
    unittest.main()
