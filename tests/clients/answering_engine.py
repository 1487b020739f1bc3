"""A Chat Completions server that answers at once with what it was told to say, and keeps what it was asked. It knows nothing about flashlane."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class AnsweringEngine:
    """`asked` has the bodies of its requests, in their order, and `bodies` the same as they came; `deltas` and `finish` are its answer. With no finish it breaks off."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.bodies: list[bytes] = []
        self.deltas: list[dict] = [{"role": "assistant", "content": "yes"}]
        self.finish: str | None = "stop"
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                engine.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                engine.asked.append(json.loads(engine.bodies[-1]))
                answer = b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in engine.chunks()) + (b"data: [DONE]\n\n" if engine.finish else b"")
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> AnsweringEngine:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


    def chunks(self) -> list[dict]:
        """The answer, its end, and what it cost."""
        same = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "engine"}
        chunks = [{**same, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in self.deltas]
        if self.finish:
            usage = {"prompt_tokens": 7, "completion_tokens": len(self.deltas), "total_tokens": 7 + len(self.deltas)}
            chunks += [{**same, "choices": [{"index": 0, "delta": {}, "finish_reason": self.finish}]}, {**same, "choices": [], "usage": usage}]
        return chunks
