"""HTTP/1.1 and WebSocket as bytes and sockets: the little that the recorder and the scripted servers need to read what real clients send.

Written on the standard library alone, so that what it says about a client's bytes is independent of the gateway's own codecs. It knows nothing
about the Responses API.
"""

from __future__ import annotations

import socket
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

DEFLATE_TAIL = b"\x00\x00\xff\xff"
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


@dataclass
class Head:
    """A request's or a response's head: its first line and its headers, names in lower case."""

    line: str
    headers: dict[str, str]
    raw: bytes = b""

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    @property
    def is_upgrade(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def body_bytes(self) -> int:
        return int(self.headers.get("content-length", "0"))


def parse_head(raw: bytes) -> Head:
    """Reads a head, given without its blank line."""
    line, *rest = raw.decode("latin-1").split("\r\n")
    headers = {}
    for row in rest:
        name, _, value = row.partition(":")
        if name:
            headers[name.strip().lower()] = value.strip()
    return Head(line, headers, raw + b"\r\n\r\n")


@dataclass
class Message:
    """One WebSocket message: its opcode, its payload (inflated), the bytes it took on the wire, and when it was read, on the monotonic clock."""

    opcode: int
    payload: bytes
    wire_bytes: int
    at_s: float = field(default_factory=time.monotonic)


@dataclass
class FrameReader:
    """Bytes of one direction of a WebSocket to messages. `inflate` says whether permessage-deflate was agreed on."""

    inflate: bool = False
    context_takeover: bool = True
    _buffer: bytearray = field(default_factory=bytearray)
    _parts: list[bytes] = field(default_factory=list)
    _first: tuple[int, bool] = (0, False)
    _wire_bytes: int = 0
    _inflater: zlib._Decompress | None = None

    def read(self, chunk: bytes) -> list[Message]:
        """Takes any piece of the stream and returns the messages that it completes."""
        self._buffer += chunk
        messages = []
        while (frame := self._take_frame()) is not None:
            first, payload, wire_bytes = frame
            opcode = first & 0x0F
            if opcode >= CLOSE:
                messages.append(Message(opcode, payload, wire_bytes))
                continue
            if opcode != 0:
                self._first, self._parts, self._wire_bytes = (opcode, bool(first & 0x40)), [], 0
            self._parts.append(payload)
            self._wire_bytes += wire_bytes
            if first & 0x80:
                opcode, compressed = self._first
                payload = b"".join(self._parts)
                messages.append(Message(opcode, self._inflate(payload) if compressed else payload, self._wire_bytes))
        return messages

    def _take_frame(self) -> tuple[int, bytes, int] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        masked, length, at = buffer[1] & 0x80, buffer[1] & 0x7F, 2
        if length >= 126:
            size = 2 if length == 126 else 8
            if len(buffer) < at + size:
                return None
            length = int.from_bytes(buffer[at : at + size], "big")
            at += size
        mask = bytes(buffer[at : at + 4]) if masked else b""
        at += len(mask)
        if len(buffer) < at + length:
            return None
        payload = bytes(buffer[at : at + length])
        first = buffer[0]
        del buffer[: at + length]
        if masked:
            pad = (mask * (length // 4 + 1))[:length]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(length, "big")
        return first, payload, at + length

    def _inflate(self, payload: bytes) -> bytes:
        assert self.inflate, "a compressed frame on a connection that agreed on no compression"
        if self._inflater is None or not self.context_takeover:
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        return self._inflater.decompress(payload + DEFLATE_TAIL)


def serve_connections(listener: socket.socket, serve: Callable[[socket.socket], object]) -> None:
    """Accepts until the listener is closed; each connection has its own thread and is closed when `serve` returns."""

    def run(connection: socket.socket) -> None:
        with connection:
            try:
                serve(connection)
            except OSError:
                pass

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=run, args=(connection,), daemon=True).start()


def read_request(connection: socket.socket) -> tuple[Head, bytes] | None:
    """One HTTP request with its body; None when the peer closes first."""
    buffer = b""
    while b"\r\n\r\n" not in buffer:
        if not (piece := connection.recv(65536)):
            return None
        buffer += piece
    raw, _, body = buffer.partition(b"\r\n\r\n")
    head = parse_head(raw)
    while len(body) < head.body_bytes:
        body += connection.recv(65536)
    return head, body
