"""Traces as a collector gets them: decoded by OpenTelemetry's own protobuf classes, and compared with what the client and the engines saw."""

import http.client
import http.server
import json
import socket
import subprocess
import threading
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from websockets.sync.client import connect

from playing_engine import answer
from rig import FLASHLANE, SERVER, Flashlane, endpoint, fetch, poll_until

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"
MODEL = """
[[models]]
name = "m"
route = "latency-first"
"""
STAGES = {"receive", "validate", "queue", "route", "connect", "upstream_ttft", "stream", "gateway"}


class Server:
    """An HTTP server on a free port that keeps what it was sent."""

    def __init__(self) -> None:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status, kind, said = server.take(self.path, self.headers, body)
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Collector(Server):
    """Takes traces, unless it is told to answer otherwise."""

    def __init__(self, status: int = 200) -> None:
        super().__init__()
        self.status, self.asked, self.requests = status, 0, []

    def take(self, path, headers, body):
        self.asked += 1
        if self.status == 200:
            assert (path, headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
            self.requests.append(ExportTraceServiceRequest.FromString(body))
        return self.status, "application/x-protobuf", b""

    @property
    def spans(self) -> list[Span]:
        scopes = [scope for request in self.requests for resource in request.resource_spans for scope in resource.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def turns(self, count: int) -> list[Span]:
        """So many turns' own spans, once they are there."""
        own = lambda: [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]
        poll_until(lambda: len(own()) >= count, 15, f"{count} turns at the collector")
        assert len(own()) == count
        return own()


class Engine(Server):
    """Answers a chat request by two words, and keeps the headers that it came with."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = []

    def take(self, path, headers, body):
        self.heads.append({name.lower(): value for name, value in headers.items()})
        return 200, "text/event-stream", answer("speaks")


def config(collector: str, engine: str, more: str = "") -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    return (
        SERVER + endpoint("gone", "latency", "openai", base_url=nobody) + endpoint("here", "throughput", "openai", base_url=f"{engine}/v1")
        + MODEL.replace('"m"', '"m"\nupstream = { throughput = "m-large" }') + f'\n[telemetry]\notlp_endpoint = "{collector}"\n{more}'
    )


def ask(gateway: Flashlane, headers: dict | None = None) -> tuple[dict, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    body = json.dumps({"model": "m", "input": "a secret question", "store": False})
    connection.request("POST", "/v1/responses", body, {"content-type": "application/json", **(headers or {})})
    reply = connection.getresponse()
    told, said = {name.lower(): value for name, value in reply.getheaders()}, json.loads(reply.read())
    connection.close()
    assert reply.status == 200, said
    return told, said


def attributes(span: Span) -> dict:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def children(spans: list[Span], of: Span) -> list[Span]:
    return [span for span in spans if span.parent_span_id == of.span_id]


def test_a_turn_is_a_span_with_its_attempts_and_its_stages():
    with Collector() as collector, Engine() as engine, Flashlane(config(collector.url, engine.url)) as gateway:
        before = time.time_ns()
        told, said = ask(gateway, {"traceparent": PARENT, "tracestate": "vendor=1"})
        after = time.time_ns()
        [turn] = collector.turns(1)
        spans = collector.spans
        resource = {pair.key: pair.value.string_value for pair in collector.requests[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "flashlane" and resource["service.version"] and resource["service.instance.id"]
    assert all(span.trace_id.hex() == TRACE for span in spans)
    assert len({span.span_id for span in spans}) == len(spans) and all(any(span.span_id) for span in spans)
    assert (turn.parent_span_id.hex(), turn.trace_state, turn.name) == (CALLER, "vendor=1", "chat m")
    assert turn.flags & 0x301 == 0x301
    # A millisecond for the clocks.
    assert before - 10**6 <= turn.start_time_unix_nano < turn.end_time_unix_nano <= after + 10**6
    known = attributes(turn)
    assert known["gen_ai.operation.name"] == "chat" and known["gen_ai.request.model"] == "m" and known["gen_ai.response.model"] == "m-large"
    assert known["gen_ai.response.id"] == said["id"] and known["flashlane.request.id"] == told["x-request-id"]
    assert (known["gen_ai.usage.input_tokens"], known["gen_ai.usage.output_tokens"]) == (7, 2)
    assert (known["flashlane.tier"], known["flashlane.endpoint"], known["flashlane.route.attempt"]) == ("throughput", "here", "retry")
    assert "secret" not in str(spans)

    failed, served = [span for span in children(spans, turn) if span.kind == Span.SPAN_KIND_CLIENT]
    assert failed.status.code == Status.STATUS_CODE_ERROR and "cannot connect" in failed.status.message
    assert attributes(failed)["flashlane.endpoint"] == "gone" and attributes(served)["gen_ai.request.model"] == "m-large"
    assert (served.name, served.status.code) == ("chat m-large", Status.STATUS_CODE_UNSET)
    # The engine was told of the very span that asked it.
    [head] = engine.heads
    assert head["traceparent"] == f"00-{TRACE}-{served.span_id.hex()}-01" and head["tracestate"] == "vendor=1"

    stages = [span for span in spans if span.kind == Span.SPAN_KIND_INTERNAL]
    assert {span.name for span in stages} <= STAGES and {"validate", "upstream_ttft"} <= {span.name for span in stages}
    by_id = {span.span_id: span for span in spans}
    for span in [*stages, failed, served]:
        parent = by_id[span.parent_span_id]
        assert parent.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= parent.end_time_unix_nano, (span, parent)
    assert {span.name for span in children(spans, served)} <= {"connect", "upstream_ttft", "stream"}
    # Stages follow each other without a gap, from the turn's beginning to its end.
    stages.sort(key=lambda span: span.start_time_unix_nano)
    assert stages[0].start_time_unix_nano == turn.start_time_unix_nano and stages[-1].end_time_unix_nano == turn.end_time_unix_nano
    assert all(one.end_time_unix_nano == other.start_time_unix_nano for one, other in zip(stages, stages[1:]))


def test_a_trace_that_begins_here_has_the_responses_digits_and_a_clients_word_on_sampling_holds():
    with Collector() as collector, Engine() as engine, Flashlane(config(collector.url, engine.url)) as gateway:
        ask(gateway, {"traceparent": PARENT.removesuffix("01") + "00"})
        _, said = ask(gateway)
        [turn] = collector.turns(1)
        assert turn.trace_id.hex() == said["id"].removeprefix("resp_") and not turn.parent_span_id
        unsampled, sampled = [head["traceparent"] for head in engine.heads]
        assert unsampled.startswith(f"00-{TRACE}-") and unsampled.endswith("-00")
        assert sampled.startswith(f"00-{turn.trace_id.hex()}-") and sampled.endswith("-01")


def test_over_a_websocket_each_request_may_belong_to_a_trace_of_its_own():
    create = {"type": "response.create", "model": "m", "input": "hi", "store": False}
    other = {"ws_request_header_traceparent": PARENT.replace("4736", "4737"), "ws_request_header_tracestate": "codex=1"}
    with Collector() as collector, Engine() as engine, Flashlane(config(collector.url, engine.url)) as gateway:
        url = f"ws://127.0.0.1:{gateway.port}/v1/responses"
        with connect(url, additional_headers={"traceparent": PARENT}) as socket_:
            for more in [{}, {"client_metadata": other}]:
                socket_.send(json.dumps({**create, **more}))
                while json.loads(socket_.recv(timeout=20))["type"] != "response.completed":
                    pass
        first, second = sorted(collector.turns(2), key=lambda span: span.start_time_unix_nano)
    assert (first.trace_id.hex(), second.trace_id.hex()) == (TRACE, TRACE.replace("4736", "4737"))
    assert (first.trace_state, second.trace_state) == ("", "codex=1")
    assert first.parent_span_id.hex() == second.parent_span_id.hex() == CALLER and first.span_id != second.span_id
    assert [head.get("tracestate") for head in engine.heads] == [None, "codex=1"]


def test_without_a_collector_no_engine_hears_of_traces():
    with Engine() as engine, Flashlane(config("http://127.0.0.1:9", engine.url).split("[telemetry]")[0]) as gateway:
        ask(gateway, {"traceparent": PARENT, "tracestate": "vendor=1"})
        assert not {"traceparent", "tracestate"} & engine.heads[0].keys()


def test_a_collector_that_is_down_disturbs_nobody_and_what_was_kept_is_sent_when_it_is_back():
    with Collector(503) as collector, Engine() as engine, Flashlane(config(collector.url, engine.url, "turns_kept_max = 2\n")) as gateway:
        ask(gateway)
        poll_until(lambda: collector.asked, 10, "the first try")
        for _ in range(4):
            ask(gateway)
        collector.status = 200
        assert len(collector.turns(2)) == 2
        counted = lambda: fetch(f"{gateway.admin_url}/metrics")
        for line in ['flashlane_traces_total{outcome="dropped"} 3', 'flashlane_traces_total{outcome="exported"} 2']:
            poll_until(lambda: line in counted(), 5, line)
        logged = gateway.process.output
    assert logged.count("the collector takes no traces") == 1 and logged.count("takes traces again") == 1


def test_what_is_left_is_sent_at_the_end():
    with Collector() as collector, Engine() as engine:
        with Flashlane(config(collector.url, engine.url)) as gateway:
            ask(gateway)
        assert len(collector.turns(1)) == 1


def explain(gateway: Flashlane, *arguments: str) -> subprocess.CompletedProcess:
    command = [FLASHLANE, "explain", *arguments, "--admin", f"127.0.0.1:{gateway.admin_port}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, env={"COLUMNS": "90"})


def test_explain_shows_a_turn_by_both_of_its_ids_and_says_why_it_finds_none():
    with Collector() as collector, Engine() as engine, Flashlane(config(collector.url, engine.url)) as gateway:
        told, said = ask(gateway)
        poll_until(lambda: explain(gateway, said["id"]).returncode == 0, 5, "the record")
        shown = explain(gateway, told["x-request-id"])
        assert shown.returncode == 0 and shown.stdout == explain(gateway, said["id"]).stdout
        for what in [said["id"], told["x-request-id"], "1 latency/gone", "failed after", "2 throughput/here", "served in", "upstream_ttft", "in all"]:
            assert what in shown.stdout, shown.stdout
        bars = [line for line in shown.stdout.splitlines() if "█" in line]
        assert "\x1b" not in shown.stdout and bars and max(map(len, bars)) <= 90
        records = json.loads(explain(gateway, said["id"], "--json").stdout)["turns"]
        assert [record["response_id"] for record in records] == [said["id"]]
        none = explain(gateway, "req_none")
        assert none.returncode == 1 and "The last 10000 turns are kept" in none.stderr
    silent = explain(gateway, "req_none")
    assert silent.returncode == 1 and "no gateway answers" in silent.stderr


@pytest.mark.parametrize("by", ["config", "environment"])
def test_the_log_as_json_is_an_object_a_line(by):
    text = config("http://127.0.0.1:9", "http://127.0.0.1:9").split("[telemetry]")[0]
    text += '\n[telemetry]\nlog_format = "json"\n' if by == "config" else ""
    with Engine() as engine, Flashlane(text.replace("http://127.0.0.1:9", engine.url), {"FLASHLANE_LOG_FORMAT": "json"} if by == "environment" else None) as gateway:
        told, said = ask(gateway)
        gateway.process.wait_for(lambda line: "turn completed" in line, 5)
        lines = [json.loads(line) for line in gateway.process.lines if line.startswith("{")]
    [turn] = [line for line in lines if line["message"] == "turn completed"]
    assert (turn["request"], turn["response"], turn["status"]) == (told["x-request-id"], said["id"], "completed")
    assert turn["tokens_in"] == 7 and isinstance(turn["total_ms"], float)
    [failed] = [line for line in lines if line["message"] == "endpoint failed"]
    assert (failed["request"], failed["endpoint"], failed["level"]) == (told["x-request-id"], "gone", "WARN")
