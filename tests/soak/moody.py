"""An endpoint in a bad mood: before a good one, each connection is either passed on, or refused, cut, stopped or slowed, by a seed.

It knows of HTTP only where a request's head ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading

MOODS = ("good", "good", "good", "busy", "full", "broken", "cut", "reset", "silent", "slow", "nonsense")
REFUSALS = {"busy": "429 Too Many Requests", "full": "503 Service Unavailable", "broken": "500 Internal Server Error"}
SILENCE_S = 5


class Moody:
    """Serves on loopback from a thread of its own until `stop`."""

    def __init__(self, target: int, seed: int) -> None:
        self._target, self._chance = target, random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        mood = self._chance.choice(MOODS)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._answer(mood, reader, writer)
        writer.close()

    async def _answer(self, mood: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if refusal := REFUSALS.get(mood):
            await reader.readuntil(b"\r\n\r\n")
            body = b'{"error":{"message":"not now","type":"server_error"}}'
            writer.write(f"HTTP/1.1 {refusal}\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            await reader.read(1 << 20)
            return
        if mood == "nonsense":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: {\"choices\": [nonsense\n\n")
            await writer.drain()
            return
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)
        there = asyncio.create_task(pipe(reader, upstream_writer))
        try:
            await self._pass_back(mood, upstream_reader, writer)
        finally:
            there.cancel()
            upstream_writer.close()

    async def _pass_back(self, mood: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._chance.randrange(1, 6000)
        while piece := await reader.read(65536 if mood != "slow" else 200):
            if mood in ("cut", "reset", "silent") and len(piece) > left:
                writer.write(piece[:left])
                await writer.drain()
                if mood == "silent":
                    await asyncio.sleep(SILENCE_S)
                if mood == "reset":
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            left -= len(piece)
            writer.write(piece)
            await writer.drain()
            if mood == "slow":
                await asyncio.sleep(0.005)


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()
