"""A Chat Completions server that does what the model's name says, after `engine-`: what an engine may do and the simulator does not. It knows nothing about flashlane."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SILENCE_S = 1.0
WORDS = [{"role": "assistant", "content": "one"}, {"content": " two"}]
THOUGHTS = [{"role": "assistant", "reasoning_content": "hm"}, {"reasoning_content": "m"}]
TRICKY = ['"', "\\", "\n", "\u0000", "\u2028", "🙂", "é", "</script>", "data: [DONE]"]


def call(index: int, name: str, *arguments: str) -> list[dict]:
    """The deltas of one call."""
    first = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
    return [{"tool_calls": [first]}, *({"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in arguments)]


WEATHER = call(0, "get_weather", '{"city":', '"Paris"}')
# Its deltas and its finish.
ANSWERS: dict[str, tuple[list[dict], str | None]] = {
    "speaks": (WORDS, "stop"),
    "refuses": ([{"role": "assistant", "refusal": "I"}, {"refusal": " won't"}], "stop"),
    "reasons": (THOUGHTS + WORDS, "stop"),
    "reasons-and-calls": (THOUGHTS + WEATHER, "tool_calls"),
    "calls-twice": (WEATHER + call(1, "get_weather", "{}"), "tool_calls"),
    "speaks-and-calls": (WORDS + WEATHER, "tool_calls"),
    "calls-patch": (call(0, "apply_patch", '{"input":"a', '\\nb\\u00e9 \\"c\\""}'), "tool_calls"),
    "says-nothing": ([{"role": "assistant", "content": ""}], "stop"),
    "counts-nothing": (WORDS, "stop"),
    "escapes": ([{"role": "assistant", "content": piece} for piece in TRICKY], "stop"),
    "is-cut-by-length": (WORDS, "length"),
    "is-filtered": (WORDS, "content_filter"),
    "breaks-off": (WORDS, None),
    "speaks-nonsense": (WORDS, None),
    "fails-in-its-stream": (WORDS, None),
}
# What comes behind the deltas of those that do not finish.
AFTERWARDS = {"speaks-nonsense": b"data: {no json\n\n", "fails-in-its-stream": b'data: {"error":{"message":"out of memory","code":500}}\n\n'}
OVERFLOW = {"error": {"code": 400, "message": "the request exceeds the available context size", "type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 8192}}


def answer(does: str) -> bytes:
    """The body of a stream."""
    deltas, finish = ANSWERS[does]
    same = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "engine"}
    chunks = [{**same, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if finish:
        chunks.append({**same, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if finish and does != "counts-nothing":
        chunks.append({**same, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(deltas), "total_tokens": 7 + len(deltas)}})
    body = b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks)
    return body + (b"data: [DONE]\n\n" if finish else AFTERWARDS.get(does, b""))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        model = json.loads(self.rfile.read(int(self.headers["content-length"])))["model"]
        does = model.removeprefix("engine-")
        if does == "is-silent":
            time.sleep(SILENCE_S)
            self.close_connection = True
        elif does == "overflows":
            self.say(400, "application/json", json.dumps(OVERFLOW).encode())
        elif does.isdigit():
            self.say(int(does), "application/json", json.dumps({"error": {"message": f"as it was asked for, {does}", "type": "invalid_request_error"}}).encode())
        else:
            self.say(200, "text/event-stream", answer(does))

    def say(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(body)), **({"retry-after": "2"} if status == 429 else {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class PlayingEngine:
    def __enter__(self) -> PlayingEngine:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
