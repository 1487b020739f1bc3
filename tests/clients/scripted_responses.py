"""A small scripted Responses server: it stands where the gateway stands, so that what a real client sends can be captured without one.

It speaks WebSocket (permessage-deflate with context takeover, by the `websockets` package's protocol object) and HTTP SSE, and answers each
`response.create` with the next list of events of its script. It knows nothing about flashlane, and decides nothing about what is right: it records.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.server import ServerProtocol

from http_wire import Head, parse_head

Events = list[dict]
Script = Callable[[dict, int], Events]


@dataclass
class Exchange:
    """What was seen: the heads of the requests, and each request body or frame in the order it came."""

    heads: list[Head] = field(default_factory=list)
    requests: list[dict] = field(default_factory=list)
    sent: list[Events] = field(default_factory=list)


class ScriptedResponses:
    """Listens on loopback. `script(request, turn)` gives a turn's output items; `models` is the body of `GET /v1/models`."""

    def __init__(self, script: Script, models: dict | None = None) -> None:
        self.seen = Exchange()
        self._script = script
        self._models = models
        self._turns = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> "ScriptedResponses":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for connection in self._sockets:
            connection.close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            buffer = b""
            while b"\r\n\r\n" not in buffer:
                chunk = connection.recv(65536)
                if not chunk:
                    return
                buffer += chunk
            raw, _, rest = buffer.partition(b"\r\n\r\n")
            head = parse_head(raw)
            self.seen.heads.append(head)
            if head.is_upgrade:
                self._serve_websocket(connection, buffer)
            elif head.method == "POST":
                while len(rest) < head.body_bytes:
                    rest += connection.recv(65536)
                self._serve_post(connection, json.loads(rest))
            else:
                self._reply_json(connection, self._models or {"models": []})

    def _serve_websocket(self, connection: socket.socket, first: bytes) -> None:
        protocol = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()], max_size=None)
        protocol.receive_data(first)
        while True:
            for event in protocol.events_received():
                if hasattr(event, "opcode") and event.opcode is Opcode.TEXT:
                    for reply in self._answer(json.loads(event.data)):
                        protocol.send_text(json.dumps(reply).encode())
                elif not hasattr(event, "opcode"):
                    protocol.send_response(protocol.accept(event))
            for data in protocol.data_to_send():
                if data:
                    connection.sendall(data)
            try:
                chunk = connection.recv(65536)
            except OSError:
                return
            if not chunk:
                return
            protocol.receive_data(chunk)

    def _serve_post(self, connection: socket.socket, request: dict) -> None:
        body = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in self._answer(request)) + "data: [DONE]\n\n"
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + body.encode())

    def _reply_json(self, connection: socket.socket, body: dict) -> None:
        payload = json.dumps(body).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode() + payload)

    def _answer(self, request: dict) -> Events:
        """The events of one turn: a warm-up is completed at once with no output and takes no step of the script."""
        self.seen.requests.append(request)
        if request.get("type") == "response.interrupt":
            return self._send(interrupted(request["response_id"]))
        items = []
        if request.get("generate") is not False:
            items = self._script(request, self._turns)
            self._turns += 1
        response_id = f"resp_{len(self.seen.requests):032x}"
        events: Events = [{"type": "response.created", "response": {"id": response_id, "status": "in_progress"}}]
        for index, item in enumerate(items):
            added = {**item, "content": []} if item is HELD else item
            events.append({"type": "response.output_item.added", "output_index": index, "item": added})
            if item is HELD:
                delta = {"item_id": item["id"], "output_index": index, "content_index": 0, "delta": "one "}
                return self._send([*events, {"type": "response.output_text.delta", **delta}])
            events.append({"type": "response.output_item.done", "output_index": index, "item": item})
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        return self._send([*events, {"type": "response.completed", "response": {"id": response_id, "status": "completed", "usage": usage}}])

    def _send(self, events: Events) -> Events:
        for number, event in enumerate(events):
            event["sequence_number"] = number
        self.seen.sent.append(events)
        return events


def interrupted(response_id: str) -> Events:
    """The reply to `response.interrupt`, as the client's own source describes it."""
    response = {"id": response_id, "status": "incomplete", "incomplete_details": {"reason": "interrupted"}}
    return [
        {"type": "response.interrupt.accepted", "response_id": response_id},
        {"type": "response.output_item.interrupted", "response_id": response_id, "item_id": HELD["id"], "output_index": 0},
        {"type": "response.incomplete", "response": {**response, "usage": {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11}}},
    ]


def message(text: str) -> dict:
    """An assistant message item."""
    return {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": text, "annotations": []}]}


# An answer that is begun and never ended, so that a client can interrupt it.
HELD = message("one ")
