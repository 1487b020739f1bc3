"""The gateway's two peers in one process: an engine that sends a token only when the client has seen the one before, and that client.

So each token is one read of the gateway's, however slow a counting tool makes it and whatever else the machine does. Plain
sockets; HTTP/1.1 and just as much of HTTP/2 as one stream of an engine needs. Knows nothing of counting.
"""

import base64
import json
import os
import pathlib
import select
import socket
import struct
import tempfile
import time

WAIT_S_MAX = 60
MODEL = "gate"
CHUNK = '{"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1760000000,"model":"gate","choices":[%s]%s}'
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "run", "arguments": ""}}
TOOL = {"type": "function", "name": "run", "parameters": {"type": "object", "properties": {}}}


def event(delta, finish=None, more=""):
    """One server-sent event of Chat Completions, as vLLM words it."""
    choice = '{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}'
    choices = choice % (json.dumps(delta, separators=(",", ":")), json.dumps(finish)) if delta is not None else ""
    return f"data: {CHUNK % (choices, more)}\n\n".encode()


def usage(tokens):
    return event(None, more=f',"usage":{{"prompt_tokens":1,"completion_tokens":{tokens},"total_tokens":{tokens + 1}}}')


DONE = b"data: [DONE]\n\n"
# What a token of each kind is, and what comes before the first.
CONTENT = ([event({"role": "assistant", "content": ""})], lambda text: event({"content": text}))
REASONING = ([event({"role": "assistant", "content": ""})], lambda text: event({"reasoning": text}))
ARGUMENTS = (
    [event({"role": "assistant", "content": None}), event({"tool_calls": [CALL]})],
    lambda text: event({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}),
)


def parked(pid):
    """Whether every thread of the process sleeps: it waits for its sockets."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "S":
            return False
    return True


def sleeps(pid):
    """How often the threads of a process have gone to sleep so far."""
    status = [(task / "status").read_text() for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0]) for text in status)


def wait_parked(pid):
    """Otherwise a token could come before the gateway waits for it, and spare it the waiting."""
    end = time.monotonic() + WAIT_S_MAX
    while not parked(pid):
        if time.monotonic() > end:
            raise SystemExit("gates: the gateway never rests")


def read_head(connection, rest=b""):
    """A head, and what came behind it."""
    while b"\r\n\r\n" not in rest:
        more = connection.recv(65536)
        if not more:
            raise SystemExit(f"gates: the gateway closed: {rest!r}")
        rest += more
    head, _, rest = rest.partition(b"\r\n\r\n")
    return head, rest


class Http1:
    """The engine's side of a connection that the gateway opens to it."""

    HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"

    def __init__(self, connection):
        self.connection = connection
        self.connection.settimeout(WAIT_S_MAX)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read_request(self):
        head, body = read_head(self.connection)
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        missing = int(length.split(b":")[1]) - len(body)
        while missing > 0:
            missing -= len(self.connection.recv(1 << 20))

    def open(self):
        self.connection.sendall(self.HEAD)

    def send(self, body):
        self.connection.sendall(b"%x\r\n%s\r\n" % (len(body), body))

    def end(self, body):
        self.connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    def answer(self, body):
        """A whole answer in one write."""
        self.connection.sendall(self.HEAD + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))


class Http2(Http1):
    """The same over HTTP/2 with prior knowledge. It reads frames only to know where a request ends."""

    PREFACE = 24
    DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
    END_STREAM, END_HEADERS, ACK = 1, 4, 1

    def __init__(self, connection):
        super().__init__(connection)
        self.read_exactly(self.PREFACE)
        self.stream = 0
        window = struct.pack(">HI", 4, 1 << 30)
        self.frame(self.SETTINGS, 0, 0, window)
        self.frame(8, 0, 0, struct.pack(">I", (1 << 30) - 1))

    def read_exactly(self, size):
        got = b""
        while len(got) < size:
            got += self.connection.recv(size - len(got))
        return got

    def frame(self, kind, flags, stream, body):
        self.connection.sendall(struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body)

    def read_request(self):
        while True:
            head = self.read_exactly(9)
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            body = self.read_exactly(int.from_bytes(head[:3], "big"))
            if kind in (self.SETTINGS, self.PING) and not flags & self.ACK:
                self.frame(kind, self.ACK, 0, body if kind == self.PING else b"")
            if kind in (self.DATA, self.HEADERS) and flags & self.END_STREAM:
                self.stream = stream
                return

    def open(self):
        # `:status: 200` is entry 8 of the static table, `content-type` the name of entry 31.
        kind = b"text/event-stream"
        self.frame(self.HEADERS, self.END_HEADERS, self.stream, b"\x88\x5f" + bytes([len(kind)]) + kind)

    def send(self, body):
        self.frame(self.DATA, 0, self.stream, body)

    def end(self, body):
        self.frame(self.DATA, self.END_STREAM, self.stream, body)


class Client:
    """One connection to the gateway. It looks for texts in what comes and parses nothing."""

    ENDS = {"chat": DONE, "request": b"total_tokens", "sse": b"event: response.completed", "websocket": b'"type":"response.completed"'}

    def __init__(self, address, way):
        host, port = address.split(":")
        self.end = self.ENDS[way]
        self.way = way
        self.host = address
        self.seen = b""
        self.connection = socket.create_connection((host, int(port)), timeout=WAIT_S_MAX)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if way == "websocket":
            key = base64.b64encode(os.urandom(16)).decode()
            self.connection.sendall(
                f"GET /v1/responses HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
                f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
            )
            head, _ = read_head(self.connection)
            if b" 101 " not in head:
                raise SystemExit(f"gates: no WebSocket: {head!r}")

    def ask(self, text, previous=None):
        if self.way in ("chat", "request"):
            messages = [{"role": "user", "content": text}]
            self.post("/v1/chat/completions", {"model": MODEL, "stream": self.way == "chat", "messages": messages})
            return
        request = {"model": MODEL, "stream": True, "store": False, "input": text, "tools": [TOOL]}
        if previous:
            request["previous_response_id"] = previous
        if self.way == "sse":
            self.post("/v1/responses", request)
        else:
            self.send_frame(json.dumps({"type": "response.create"} | request).encode())

    def post(self, path, request):
        body = json.dumps(request)
        head = f"POST {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.connection.sendall((head + body).encode())

    def send_frame(self, body):
        """One text frame; a mask of zeros is a mask, and leaves the text as it is."""
        if len(body) < 126:
            size = bytes([0x80 | len(body)])
        elif len(body) < 1 << 16:
            size = b"\xfe" + struct.pack(">H", len(body))
        else:
            size = b"\xff" + struct.pack(">Q", len(body))
        self.connection.sendall(b"\x81" + size + bytes(4) + body)

    def wait_for(self, text):
        """Reads until `text` has come, and forgets what was before it. What was read with it."""
        while text not in self.seen:
            if len(self.seen) > 1 << 20:
                self.seen = self.seen[-len(text) :]
            more = self.connection.recv(1 << 20)
            if not more:
                raise SystemExit(f"gates: the gateway closed before {text!r}: {self.seen[-500:]!r}")
            self.seen += more
        before, _, self.seen = self.seen.partition(text)
        return before


class Rig:
    """Listens as the engine; then drives one client and the engine in step. `rest` returns when the gateway waits."""

    def __init__(self, http2=False):
        self.http2 = http2
        self.rest = lambda: None
        self.listener = socket.socket()
        self.listener.settimeout(WAIT_S_MAX)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.engine = None
        self.engines = []

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.scratch = self.folder.__enter__()
        return self

    def __exit__(self, *raised):
        self.listener.close()
        for engine in self.engines:
            engine.connection.close()
        self.folder.__exit__(*raised)

    @property
    def host(self):
        return "127.0.0.1:%d" % self.listener.getsockname()[1]

    def take_request(self):
        """Reads the next request, on whichever connection it comes: one may be opened ahead of it."""
        while True:
            sockets = {engine.connection: engine for engine in self.engines}
            ready, _, _ = select.select([*sockets, self.listener], [], [], WAIT_S_MAX)
            if not ready:
                raise SystemExit("gates: the gateway asks for nothing")
            if ready[0] is not self.listener:
                break
            connection, _ = self.listener.accept()
            self.engines.append((Http2 if self.http2 else Http1)(connection))
        self.engine = sockets[ready[0]]
        self.engine.read_request()
        self.rest()

    def stream(self, client, tokens, kind=CONTENT):
        """One turn, its tokens one by one. The seconds from each token's sending to its arrival."""
        opening, token = kind
        client.ask("hi")
        self.take_request()
        self.engine.open()
        for part in opening:
            self.rest()
            self.engine.send(part)
        times = []
        for i in range(tokens):
            self.rest()
            marker = f" t{i:06}"
            body = token(marker)
            began = time.perf_counter()
            self.engine.send(body)
            client.wait_for(marker.encode())
            times.append(time.perf_counter() - began)
        self.rest()
        self.engine.end(event({}, "tool_calls" if kind is ARGUMENTS else "stop") + usage(tokens) + DONE)
        client.wait_for(client.end)
        self.rest()
        return times

    def answer(self):
        """One token, at once."""
        self.take_request()
        opening, token = CONTENT
        self.engine.answer(b"".join(opening) + token(" done") + event({}, "stop") + usage(1) + DONE)

    def request(self, client):
        """One request that is not streamed."""
        client.ask("hi")
        self.answer()
        client.wait_for(client.end)
        self.rest()

    def whole_turn(self, client, text, previous):
        """One turn over the WebSocket. The response's id, for the next one."""
        client.ask(text, previous)
        self.answer()
        client.wait_for(client.end)
        client.wait_for(b'"id":"')
        response = client.wait_for(b'"').decode()
        self.rest()
        return response
