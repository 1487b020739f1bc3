"""Bad input from outside: each gets a clear error that names the parameter, keeps its connection where the protocol allows it, and harms nobody else."""

import http.client
import json
import os
import socket

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from http_wire import CLOSE, FrameReader

MODEL = "flashlane-demo"
GOOD = {"type": "response.create", "model": MODEL, "input": "repeat: fine", "store": False}


def ask(gateway, method: str, path: str, body: bytes | None = None) -> tuple[int, dict]:
    """The status and the JSON body, whatever the status."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.request(method, path, body, {"content-type": "application/json"} if body is not None else {})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def error_keys(body: dict) -> set[str]:
    return set(body["error"])


def create(**fields: object) -> bytes:
    return json.dumps({"model": MODEL, "input": "hello", **fields}).encode()


def one_turn(connection) -> str:
    """A good turn on the connection; its text."""
    connection.send(json.dumps(GOOD))
    text = ""
    while True:
        event = json.loads(connection.recv(timeout=10))
        text += event.get("delta", "") if event["type"] == "response.output_text.delta" else ""
        if event["type"] == "response.completed":
            return text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'{"model":"flashlane-demo","input":"\xff"}', None),
        (create(temperature="hot"), "temperature"),
        (create(temperature=9), "temperature"),
        (create(max_output_tokens=0), "max_output_tokens"),
        (create(max_output_tokens="many"), "max_output_tokens"),
        (create(stream="yes"), "stream"),
        (create(input=5), "input"),
        (create(input=[{"type": "no_such_item"}]), "input"),
        (create(input=[{"type": "function_call_output", "call_id": "call_9", "output": "x"}]), "input"),
        (create(tools="all"), "tools"),
        (create(previous_response_id="resp_unknown"), "previous_response_id"),
        (b'{"input":"hello"}', "model"),
    ],
)
def test_a_bad_request_names_its_parameter(gateway, body, param):
    status, answer = ask(gateway, "POST", "/v1/responses", body)
    assert status == 400, answer
    assert error_keys(answer) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"]
    if param:
        assert (answer["error"]["param"] or "").startswith(param), answer


def test_fields_and_tools_that_are_not_known_are_accepted(gateway):
    status, answer = ask(gateway, "POST", "/v1/responses", create(no_such_field={"a": [1]}, tools=[{"type": "tool_search"}, {"type": "web_search"}]))
    assert status == 200, answer
    assert answer["status"] == "completed"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nowhere", 404), ("GET", "/", 404), ("DELETE", "/v1/models", 405), ("GET", "/v1/chat/completions", 405), ("GET", "/v1/responses", 405)],
)
def test_what_is_not_there_is_answered_in_json(gateway, method, path, status):
    got, answer = ask(gateway, method, path)
    assert got == status
    assert error_keys(answer) == {"message", "type", "param", "code"}


def test_a_body_over_the_limit_is_refused(gateway):
    """The refusal may come before the body is read, so the client writes only as much as the server takes."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        head = f"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {1 << 32}\r\n\r\n"
        connection.sendall(head.encode())
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert '"error"' in answer


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        ("{", None),
        ("[]", None),
        ('{"type":"no.such.event"}', "type"),
        ('{"model":"flashlane-demo"}', "type"),
        (json.dumps({**GOOD, "temperature": "hot"}), "temperature"),
        (json.dumps({**GOOD, "model": None}), "model"),
        (json.dumps({**GOOD, "model": "nobody"}), "model"),
        (json.dumps({**GOOD, "input": [{"type": "no_such_item"}]}), "input"),
        (json.dumps({**GOOD, "background": True}), "background"),
        (json.dumps({**GOOD, "previous_response_id": "resp_unknown"}), "previous_response_id"),
        ('{"type":"response.interrupt","response_id":"resp_unknown"}', None),
    ],
)
def test_a_bad_event_is_answered_and_the_socket_goes_on(gateway, frame, param):
    with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as connection:
        connection.send(frame)
        event = json.loads(connection.recv(timeout=10))
        assert event["type"] == "error"
        assert isinstance(event["status"], int)
        assert event["error"]["message"] == event["message"]
        assert event["error"]["code"] == event["code"]
        if param:
            assert (event["error"]["param"] or "").startswith(param), event
        assert one_turn(connection) == "fine"


def raw_websocket(gateway) -> socket.socket:
    """A WebSocket after its handshake, as a bare socket, for frames that no client library would send."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
    lines = ["GET /v1/responses HTTP/1.1", "host: localhost", "connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13"]
    connection.sendall("\r\n".join([*lines, "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==", "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1)
    assert b" 101 " in head
    return connection


def frame(first: int, payload: bytes, masked: bool = True, length: int | None = None) -> bytes:
    """A frame with a zero mask; `length` may lie."""
    length = len(payload) if length is None else length
    size = bytes([length]) if length < 126 else b"\x7f" + length.to_bytes(8, "big")
    return bytes([first, size[0] | (0x80 if masked else 0)]) + size[1:] + (bytes(4) if masked else b"") + payload


def close_code(connection: socket.socket) -> int:
    """Reads up to the server's close frame; the code that it carries."""
    reader = FrameReader()
    while piece := connection.recv(65536):
        for message in reader.read(piece):
            if message.opcode == CLOSE:
                return int.from_bytes(message.payload[:2], "big")
    raise AssertionError("no close frame")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(0x81, b"{}", masked=False), 1002),
        (frame(0x83, b""), 1002),
        (frame(0xC1, b"{}"), 1002),
        (frame(0x80, b"{}"), 1002),
        (frame(0x09, b""), 1002),
        (frame(0x81, b"\xff\xfe"), 1007),
        (frame(0x81, b"", length=1 << 40), 1009),
    ],
    ids=["unmasked", "opcode", "compressed", "continuation", "split ping", "utf-8", "too long"],
)
def test_a_bad_frame_closes_with_its_code(gateway, sent, code):
    with raw_websocket(gateway) as connection:
        connection.sendall(sent)
        assert close_code(connection) == code


def test_a_flood_of_pings_is_ended(gateway):
    """A client that sends pings and reads nothing meanwhile is closed, and costs no more memory than its limit."""
    before = gateway.process.resident_bytes
    flood = frame(0x89, b"x" * 100) * 500
    with raw_websocket(gateway) as connection:
        try:
            for _ in range(2_000):
                connection.sendall(flood)
        except OSError:
            pass  # it may cut the connection while the flood goes on
        assert gateway.process.resident_bytes < before + (16 << 20)
        assert close_code(connection) == 1008


def test_noise_before_the_handshake_harms_nobody(gateway):
    for noise in (b"\x16\x03\x01\x02\x00\x01", os.urandom(4096), b"GET " + b"a" * 100_000):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            try:
                connection.sendall(noise)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError:
                pass
    with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as connection:
        assert one_turn(connection) == "fine"


def test_a_binary_frame_is_an_error_and_no_crash(gateway):
    with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses") as connection:
        connection.send(b"\x00\x01")
        try:
            assert json.loads(connection.recv(timeout=10))["type"] == "error"
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 1003
