"""Records what llama.cpp's server really answers, into proto/llama.cpp/.

Usage: llama_cpp.py http://127.0.0.1:PORT (a server started by tests/real-model). Each case keeps its request as `NAME.request.json` and the answer's body
byte for byte as `NAME.sse` or `NAME.json`; `plain.http` is the whole answer as it stood on the wire, head and chunk framing included.
"""

import http.client
import json
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

OUT = Path(__file__).resolve().parents[2] / "proto/llama.cpp"
PATH = "/v1/chat/completions"

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


def request(text: str, **more: object) -> dict:
    """A streamed request at temperature 0, as the gateway would send it."""
    base = {"model": "smollm2-135m", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
    return {**base, "messages": [{"role": "user", "content": text}], "max_tokens": 64, **more}


CASES = {
    "plain": request("Say hello in one short sentence."),
    "length": request("Count from one to one hundred.", max_tokens=8),
    "tool_call": request("What is the weather in Paris? Use the tool.", tools=[WEATHER]),
    "json_schema": request(
        "Describe Ada, who is 36.", response_format={"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
    ),
    "whole": request("Say hello in one short sentence.", stream=False, stream_options=None),
    "context_overflow": request("word " * 9000),
    "wrong_type": request("hello", messages="hello"),
}


def post(netloc: str, body: dict) -> tuple[str, bytes]:
    """The answer's content type and body."""
    connection = http.client.HTTPConnection(netloc, timeout=120)
    connection.request("POST", PATH, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.getheader("content-type", ""), answer.read()


def post_raw(netloc: str, body: dict) -> bytes:
    """The whole answer as it stands on the wire, up to its last chunk."""
    payload = json.dumps(body).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    host, _, port = netloc.partition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(head.encode() + payload)
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += connection.recv(65536)
    return answer


def main() -> None:
    netloc = urlsplit(sys.argv[1]).netloc
    OUT.mkdir(parents=True, exist_ok=True)
    for name, body in CASES.items():
        body = {key: value for key, value in body.items() if value is not None}
        kind, answer = post(netloc, body)
        suffix = "sse" if "event-stream" in kind else "json"
        (OUT / f"{name}.{suffix}").write_bytes(answer)
        if name == "context_overflow":
            body["messages"][0]["content"] = "word " * 3 + "... (9000 times)"
        (OUT / f"{name}.request.json").write_text(json.dumps(body, indent=1) + "\n")
        print(f"{name}.{suffix}: {len(answer)} bytes")
    (OUT / "plain.http").write_bytes(post_raw(netloc, CASES["plain"]))
    connection = http.client.HTTPConnection(netloc, timeout=30)
    connection.request("GET", "/v1/models")
    (OUT / "models.json").write_bytes(connection.getresponse().read() + b"\n")


main()
