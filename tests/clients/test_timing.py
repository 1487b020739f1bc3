"""A real Codex that wants to know where the time goes: it asks by its own header, reads the event, and counts what it says under its own names."""

import http.server
import json
import threading

from codex_cli import Codex
from recorder import Recorder
from rig import DEMO, Flashlane

MODEL = "flashlane-demo"
# What Codex makes of the six numbers that it knows.
COUNTED = {
    "codex.responses_api_overhead.duration_ms",
    "codex.responses_api_inference_time.duration_ms",
    "codex.responses_api_engine_iapi_ttft.duration_ms",
    "codex.responses_api_engine_service_ttft.duration_ms",
    "codex.responses_api_engine_iapi_tbt.duration_ms",
    "codex.responses_api_engine_service_tbt.duration_ms",
}


class Collector:
    """Takes metrics by OTLP over HTTP, in JSON, and keeps their names."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
                scopes = [scope for resource in sent["resourceMetrics"] for scope in resource["scopeMetrics"]]
                collector.names |= {metric["name"] for scope in scopes for metric in scope["metrics"]}
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/metrics"

    def __enter__(self) -> "Collector":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_codex_asks_where_the_time_goes_and_counts_what_it_is_told():
    with Flashlane(DEMO) as gateway, Recorder(gateway.port) as recorder, Collector() as collector, Codex(recorder.base_url, MODEL) as codex:
        config = codex.home / "config.toml"
        text = config.read_text().replace("plugins = false", "plugins = false\nruntime_metrics = true")
        text = text.replace("[analytics]\nenabled = false", "[analytics]\nenabled = true")
        exporter = f'{{ otlp-http = {{ endpoint = "{collector.url}", protocol = "json" }} }}'
        config.write_text(f'{text}\n[otel]\nenvironment = "test"\nmetrics_exporter = {exporter}\n')
        ran = codex.exec("Count from 1 to 20.")

    assert ran.exit_code == 0, ran
    [socket] = recorder.websockets
    assert socket.request.headers["x-responsesapi-include-timing-metrics"] == "true"
    *_, timing, terminal = [frame for frame in socket.server_frames if frame["type"] != "codex.rate_limits"]
    assert (timing["type"], terminal["type"]) == ("responsesapi.websocket_timing", "response.completed")
    parts = timing["timing"]["parts"]
    assert abs(sum(parts.values()) - timing["timing"]["total_ms"]) < 0.01
    assert COUNTED <= collector.names, collector.names
