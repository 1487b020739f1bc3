"""What operators watch: alert rules, their tests and their paragraphs in the runbook; the metrics of a real process, as promtool reads them; and every query of
the dashboard, asked of a real Prometheus that scrapes a real flashlane at work. Grafana itself is not run: no registry that CI reaches has it."""

import json
import re
import threading
from pathlib import Path

import pytest
import yaml
from websockets.sync.client import connect

from promtool import Prometheus, promtool
from rig import FLASHLANE, ROOT, SERVER, Flashlane, Process, endpoint, fetch, poll_until

DEPLOY = ROOT / "deploy"
TESTS = [DEPLOY / "alerts_test.yaml", DEPLOY / "alerts_slow_test.yaml"]
MODEL = "flashlane-demo"
# A tier with one place, so that turns wait, are refused and spill; and an engine behind a connection, so that there are connections to count.
CONFIG = f"""{SERVER}{endpoint("wafer", "latency", "simulator", first_token_ms=5, tokens_per_second=200)}
{endpoint("gpu", "throughput", "openai", base_url="{base_url}")}
[[models]]
name = "{MODEL}"
route = "latency-first"

[queue.latency]
concurrency_max = 1
turns_max = 1
wait_ms_max = 50

[[models]]
name = "local"
route = "throughput-only"
upstream = {{ throughput = "{MODEL}" }}
"""
# What has no value in such a run, and why.
WITHOUT_VALUE = {
    "flashlane_upstream_running_told": "`flashlane simulate` does not tell how busy it is",
    "flashlane_guard_": "no model has a guard",
    "flashlane_certificate_": "nothing is served over TLS",
    "flashlane_traces_": "no collector is configured",
    "flashlane_upstream_phase_seconds": "neither does it tell where a turn's time went",
    "flashlane_prefills_total": "no tier reads prompts ahead unless its config says so",
    "flashlane_prefill_tokens_total": "the same",
}


def alerts() -> list[dict]:
    groups = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def panels() -> list[dict]:
    return [panel for panel in json.loads((DEPLOY / "grafana-dashboard.json").read_text())["panels"] if panel["type"] != "row"]


def test_the_rules_hold_what_their_tests_say():
    promtool("check", "config", str(DEPLOY / "prometheus.yml"))
    assert promtool("test", "rules", *map(str, TESTS)).count("SUCCESS") == len(TESTS)


def test_each_alert_is_tested_both_ways_and_has_a_paragraph_in_the_runbook():
    cases = [case for path in TESTS for test in yaml.safe_load(path.read_text())["tests"] for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    is_quiet = {case["alertname"] for case in cases if not case["exp_alerts"]}
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/OPERATIONS.md").read_text(), re.MULTILINE)
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) > 20
    assert fires == is_quiet == set(names)
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"]["runbook_url"] == f"docs/OPERATIONS.md#{rule['alert'].lower()}"
        assert rule["alert"] in headings, f"docs/OPERATIONS.md has no heading {rule['alert']}"
    assert {heading for heading in headings if heading.startswith("Flashlane")} == set(names), "a paragraph is of no alert"


def test_the_dashboard_is_laid_out_and_names_things_once():
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables and target["legendFormat"], panel["title"]
    provider = yaml.safe_load((DEPLOY / "grafana/dashboards.yaml").read_text())["providers"][0]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def work(gateway: Flashlane, stop: threading.Event) -> None:
    """Turns of all kinds until it is told to stop: some wait, some spill, some are refused."""
    while not stop.is_set():
        body = {"model": MODEL, "input": "count from 1 to 20"}
        for model in (MODEL, "local"):
            try:
                fetch(f"{gateway.base_url}/responses", {**body, "model": model})
            except OSError:
                pass
        with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as socket:
            socket.send(json.dumps({"type": "response.create", **body}))
            while json.loads(socket.recv(timeout=10))["type"] not in ("response.completed", "response.failed", "error"):
                pass


@pytest.fixture(scope="module")
def at_work(tmp_path_factory: pytest.TempPathFactory):
    """A flashlane with work to do, and the Prometheus that has watched it for some seconds."""
    engine = Process([FLASHLANE, "simulate", "--listen", "127.0.0.1:0", "--model", MODEL])
    told = engine.wait_for(lambda line: re.search(r"http://127\.0\.0\.1:\d+", line), 10)
    url = re.search(r"http://127\.0\.0\.1:\d+", told)[0]
    stop = threading.Event()
    try:
        with Flashlane(CONFIG.replace("{base_url}", f"{url}/v1")) as gateway:
            with Prometheus(f"127.0.0.1:{gateway.admin_port}", tmp_path_factory.mktemp("prometheus")) as prometheus:
                workers = [threading.Thread(target=work, args=(gateway, stop), daemon=True) for _ in range(4)]
                for worker in workers:
                    worker.start()
                poll_until(lambda: prometheus.query("count_over_time(flashlane_turns_total[1m]) > 6"), 60, "some scrapes of work", 0.5)
                yield gateway, prometheus
                stop.set()
                for worker in workers:
                    worker.join(20)
    finally:
        stop.set()
        engine.stop()


def test_a_scrape_is_as_prometheus_wants_it(at_work):
    gateway, prometheus = at_work
    promtool("check", "metrics", stdin=fetch(f"{gateway.admin_url}/metrics"))
    targets = prometheus.get("/api/v1/targets")["activeTargets"]
    assert [(target["health"], target["lastError"]) for target in targets] == [("up", "")]
    rules = [rule for group in prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    assert len([rule for rule in rules if rule["type"] == "alerting"]) == len(alerts())


def test_every_query_of_the_dashboard_has_an_answer(at_work):
    _, prometheus = at_work
    empty = []

    def is_answered(expression: str) -> bool:
        asked = expression.replace("$__rate_interval", "30s").replace("$instance", ".*")
        return any(row["value"][1] != "NaN" for row in prometheus.query(asked))

    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            if any(name in expression for name in WITHOUT_VALUE):
                prometheus.query(expression.replace("$__rate_interval", "30s").replace("$instance", ".*"))
                continue
            try:
                poll_until(lambda: is_answered(expression), 5, expression, 0.5)
            except TimeoutError:
                empty.append((panel["title"], expression))
    assert empty == []
