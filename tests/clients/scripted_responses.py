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

from http_wire import Head, read_request, serve_connections

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

    def __enter__(self) -> ScriptedResponses:
        threading.Thread(target=serve_connections, args=(self._listener, self._serve), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _serve(self, connection: socket.socket) -> None:
        if (asked := read_request(connection)) is None:
            return
        head, body = asked
        self.seen.heads.append(head)
        if head.is_upgrade:
            self._serve_websocket(connection, head)
        elif head.method == "POST":
            self._serve_post(connection, json.loads(body))
        else:
            self._reply_json(connection, self._models or {"models": []})

    def _serve_websocket(self, connection: socket.socket, head: Head) -> None:
        protocol = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()], max_size=None)
        protocol.receive_data(head.raw)
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
            if not (piece := connection.recv(65536)):
                return
            protocol.receive_data(piece)

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
