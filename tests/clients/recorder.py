"""A TCP proxy between a real client and flashlane that keeps what both said: the proof of what a client uploads.

It passes bytes on unchanged and reads along with its own small codec; it knows nothing about what a test wants to see.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from http_wire import TEXT, FrameReader, Head, Message, parse_head, serve_connections


@dataclass
class Conversation:
    """One recorded TCP connection: the client's head, the server's head, and the messages each way when it became a WebSocket."""

    request: Head | None = None
    response: Head | None = None
    from_client: list[Message] = field(default_factory=list)
    from_server: list[Message] = field(default_factory=list)
    body: bytes = b""

    @property
    def client_frames(self) -> list[dict]:
        return [json.loads(message.payload) for message in self.from_client if message.opcode == TEXT]

    @property
    def server_frames(self) -> list[dict]:
        return [json.loads(message.payload) for message in self.from_server if message.opcode == TEXT]


class Recorder:
    """A TCP proxy before flashlane. It passes bytes on unchanged and reads along: WebSocket messages inflated, HTTP bodies whole."""

    def __init__(self, port: int) -> None:
        self.conversations: list[Conversation] = []
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> Recorder:
        threading.Thread(target=serve_connections, args=(self._listener, self._serve), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def websockets(self) -> list[Conversation]:
        return [one for one in self.conversations if one.request and one.request.is_upgrade]

    @property
    def posts(self) -> list[Conversation]:
        return [one for one in self.conversations if one.request and one.request.method == "POST"]

    def _serve(self, client: socket.socket) -> None:
        conversation = Conversation()
        self.conversations.append(conversation)
        with socket.create_connection(self._target) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            upward = threading.Thread(target=self._pass_on, args=(client, server, ClientSide(conversation).read), daemon=True)
            upward.start()
            self._pass_on(server, client, ServerSide(conversation).read)
            upward.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket, read: Callable[[bytes], None]) -> None:
        try:
            while piece := source.recv(65536):
                read(piece)
                sink.sendall(piece)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class ClientSide:
    """Reads along what the client sends."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._buffer = b""
        self._frames: FrameReader | None = None

    def read(self, piece: bytes) -> None:
        conversation = self._conversation
        if conversation.request is None:
            self._buffer += piece
            if b"\r\n\r\n" not in self._buffer:
                return
            raw, _, piece = self._buffer.partition(b"\r\n\r\n")
            conversation.request = parse_head(raw)
        if not conversation.request.is_upgrade:
            conversation.body += piece
        elif piece:
            self._frames = self._frames or frames_of(conversation)
            conversation.from_client += self._frames.read(piece)


class ServerSide:
    """Reads along what the server sends."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._buffer = b""
        self._frames: FrameReader | None = None

    def read(self, piece: bytes) -> None:
        conversation = self._conversation
        if conversation.response is None:
            self._buffer += piece
            if b"\r\n\r\n" not in self._buffer:
                return
            raw, _, piece = self._buffer.partition(b"\r\n\r\n")
            conversation.response = parse_head(raw)
        if conversation.request and conversation.request.is_upgrade and " 101 " in conversation.response.line and piece:
            self._frames = self._frames or frames_of(conversation, server=True)
            conversation.from_server += self._frames.read(piece)


def frames_of(conversation: Conversation, server: bool = False) -> FrameReader:
    """A reader that knows what the two sides agreed on: a client sends frames only after it has seen the 101."""
    agreed = conversation.response.headers.get("sec-websocket-extensions", "") if conversation.response else ""
    side = "server_no_context_takeover" if server else "client_no_context_takeover"
    return FrameReader(inflate="permessage-deflate" in agreed, context_takeover=side not in agreed)
