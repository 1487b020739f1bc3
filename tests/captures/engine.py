"""Records what an engine's server really answers, into proto/ROOM/.

Usage: engine.py ROOM http://127.0.0.1:PORT [CASE ...], ROOM one of llama.cpp, vllm, sglang; the server has the model as `smollm2-135m`. Each case keeps its
request as `NAME.request.json` and the answer's body byte for byte as `NAME.sse` or `NAME.json`; `plain.http` is the whole answer as it stood on the wire,
head and chunk framing included. Paths of the machine are cut.
"""

import http.client
import json
import re
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOM, NETLOC, *ONLY = sys.argv[1], urlsplit(sys.argv[2]).netloc, *sys.argv[3:]
OUT = Path(__file__).resolve().parents[2] / "proto" / ROOM
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
IS_LLAMA = ROOM == "llama.cpp"

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def request(text: str, tokens: int = 64, **more: object) -> dict:
    """A streamed request at temperature 0, as the gateway would send it."""
    base = {"model": "smollm2-135m", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
    limit = "max_tokens" if IS_LLAMA else "max_completion_tokens"
    return {**base, "messages": [{"role": "user", "content": text}], limit: tokens, **more}


CASES = {
    "plain": request("Say hello in one short sentence."),
    "length": request("Count from one to one hundred.", 8),
    # The other engines hold a call to its schema only when one must come.
    "tool_call": request("What is the weather in Paris? Use the tool.", tools=[WEATHER], **({} if IS_LLAMA else {"tool_choice": "required"})),
    "json_schema": request(
        "Describe Ada, who is 36.", response_format={"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
    ),
    "whole": request("Say hello in one short sentence.", stream=False, stream_options=None),
    "context_overflow": request("word " * 9000),
    "wrong_type": request("hello", messages="hello"),
}
OF_GPU_ENGINES = {
    "output_overflow": request("hello", 99_999),
    "unknown_model": request("hello", model="nope"),
    # Asked a second time: what the engine holds of it is in the usage.
    "cached": request("Of these words only the last one matters. " * 60, 4),
}
RESPONSE = {"model": "smollm2-135m", "stream": True, "temperature": 0, "input": "Say hello in one short sentence.", "max_output_tokens": 64, "store": False}
# Recorded by name alone: from a server that was started with a parser for reasoning.
BY_NAME = {"reasoning": request("Say hello in one short sentence.", 16)}


def post(path: str, body: dict) -> tuple[str, bytes]:
    """The answer's content type and body."""
    connection = http.client.HTTPConnection(NETLOC, timeout=120)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.getheader("content-type", ""), answer.read()


def get(path: str) -> bytes:
    connection = http.client.HTTPConnection(NETLOC, timeout=30)
    connection.request("GET", path)
    return connection.getresponse().read()


def post_raw(body: dict) -> bytes:
    """The whole answer as it stands on the wire, up to its last chunk."""
    payload = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    host, _, port = NETLOC.partition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(head.encode() + payload)
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += connection.recv(65536)
    return answer


def load_metrics() -> bytes:
    """The engine's gauges of load while one answer comes."""
    connection = http.client.HTTPConnection(NETLOC, timeout=60)
    connection.request("POST", CHAT, json.dumps(request("Count from one to one thousand.", 400, ignore_eos=True)), {"content-type": "application/json"})
    answer = connection.getresponse()
    for _ in range(40):
        answer.readline()
    lines = get("/metrics").decode().splitlines(keepends=True)
    connection.close()
    wanted = re.compile(r"\S*(num_requests|kv_cache_usage|num_running|num_queue|token_usage|requests_(deferred|processing))")
    return "".join(line for line in lines if wanted.match(line.removeprefix("# HELP ").removeprefix("# TYPE "))).encode()


def keep(name: str, data: bytes) -> None:
    (OUT / name).write_bytes(data)
    print(f"{name}: {len(data)} bytes")


def record(name: str, path: str, body: dict) -> None:
    body = {key: value for key, value in body.items() if value is not None}
    kind, answer = post(path, body)
    answer = re.sub(rb"(?:/[\w.+-]+)+/site-packages", b"/site-packages", answer)
    keep(f"{name}.{'sse' if 'event-stream' in kind else 'json'}", answer)
    if name == "context_overflow":
        body["messages"][0]["content"] = "word " * 3 + "... (9000 times)"
    (OUT / f"{name}.request.json").write_text(json.dumps(body, indent=1) + "\n")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    if ONLY:
        for name in ONLY:
            record(name, CHAT, {**CASES, **OF_GPU_ENGINES, **BY_NAME}[name])
        return
    for name, body in CASES.items():
        record(name, CHAT, body)
    keep("plain.http", post_raw(CASES["plain"]))
    keep("models.json", re.sub(rb'"root":"[^"]*"', b'"root":"smollm2-135m"', get("/v1/models")) + b"\n")
    if IS_LLAMA:
        return
    post(CHAT, OF_GPU_ENGINES["cached"])
    for name, body in OF_GPU_ENGINES.items():
        record(name, CHAT, body)
    record("responses", RESPONSES, RESPONSE)
    keep("metrics.txt", load_metrics())


main()
