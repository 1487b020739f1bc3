"""A scripted Chat Completions server that stands where an engine would stand, and notes when its client goes away.

It knows the bytes of a streamed answer and nothing about flashlane.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from dataclasses import dataclass

from http_wire import read_request, serve_connections


@dataclass
class Stream:
    """One streamed answer of the scripted upstream: the request's body, and when the peer closed (None while it has not)."""

    request: dict
    closed_at_s: float | None = None
    chunks: int = 0


class ScriptedUpstream:
    """A Chat Completions server that streams the word `tick` every `gap_s` and never ends on its own: it notes when its client goes away."""

    def __init__(self, gap_s: float = 0.02) -> None:
        self.streams: list[Stream] = []
        self._gap_s = gap_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> ScriptedUpstream:
        threading.Thread(target=serve_connections, args=(self._listener, self._serve), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        while (asked := read_request(connection)) is not None:
            head, body = asked
            if head.method == "POST":
                return self._stream(connection, json.loads(body))
            listing = b'{"object":"list","data":[{"id":"slow","object":"model","created":0,"owned_by":"tests"}]}'
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(listing), listing))

    def _stream(self, connection: socket.socket, request: dict) -> None:
        stream = Stream(request)
        self.streams.append(stream)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            try:
                while not selector.select(self._gap_s):
                    connection.sendall(chunk_of("tick " if stream.chunks else "start "))
                    stream.chunks += 1
            except OSError:
                pass
        stream.closed_at_s = time.monotonic()


def chunk_of(text: str) -> bytes:
    """One chunk of HTTP that carries one event of a chat stream."""
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "slow", "choices": [delta]}
    data = f"data: {json.dumps(event)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)
