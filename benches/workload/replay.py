"""One captured task, done again by a client that sends what the captured one sent, with the pauses that its tools took. Knows no engine."""

import http.client
import json
import time
import uuid

from websockets.sync.client import connect

import session
import sums

ANSWER_S_MAX = 120
FIRST = (".output_text.delta", ".function_call_arguments.delta")


class Replay:
    """`capture` is what `session.json` has; `answers` what the model says, to know a turn that went otherwise."""

    def __init__(self, capture, answers, hurry=1):
        self._requests = {way: session.unpacked(capture[way]) for way in ("websocket", "http")}
        self._pauses_s = [pause / 1000 / hurry for pause in capture["pauses_ms"]]
        self._answers = answers

    def task(self, way, port, model, paces):
        """Does it, and says what it came to."""
        open_it = OverWebSocket if way == "websocket" else OverHttp
        # As many letters as those that they stand for.
        ids = f"{uuid.uuid4()}"[: len(session.ID)]
        requests, pauses_s = self._requests[way], self._pauses_s[-len(self._answers) :]
        warm_ups, turns, responses, tools_s = len(requests) - len(self._answers), [], [], 0.0
        with open_it(port) as client:
            for request in requests[:warm_ups]:
                responses.append(client.ask(session.anew(request, model, ids, responses))[1]["id"])
            began_s = time.monotonic()
            for request, pause_s, answer in zip(requests[warm_ups:], pauses_s, self._answers):
                if pause_s:
                    paused_s = time.monotonic()
                    time.sleep(pause_s)
                    tools_s += time.monotonic() - paused_s
                ttft_s, response = client.ask(session.anew(request, model, ids, responses))
                check(response, answer)
                responses.append(response["id"])
                usage = response["usage"]
                turn = {"tier": sums.TIER_OF[response["service_tier"]], "ttft_s": ttft_s, "input": usage["input_tokens"], "output": usage["output_tokens"]}
                turns.append({**turn, "is_plan": not session.is_after_tools(request)})
            wall_s = time.monotonic() - began_s
        return sums.task(wall_s, tools_s, turns, paces)


def check(response, answer):
    """Every way does the same turns, or its times say nothing."""
    texts = [part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"]]
    calls = [item["arguments"] for item in response["output"] if item["type"] == "function_call"]
    expected = ([answer["text"]] if answer["text"] else [], [answer["call"]["arguments"]] if answer.get("call") else [])
    if response["status"] != "completed" or (texts, calls) != expected:
        raise ValueError(f"a turn went otherwise than in the capture: {response}, not {expected}")


class Timer:
    """The time to the first delta, from the request's going out."""

    def __init__(self):
        self._began_s, self.first_s = time.monotonic(), None

    def saw(self, kind):
        if self.first_s is None and kind.endswith(FIRST):
            self.first_s = time.monotonic() - self._began_s


class OverWebSocket:
    """One connection, as Codex has it, and what is new alone."""

    def __init__(self, port):
        self._socket = connect(f"ws://127.0.0.1:{port}/v1/responses", max_size=None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def ask(self, request):
        timer = Timer()
        self._socket.send(json.dumps(request, separators=(",", ":")))
        while True:
            event = json.loads(self._socket.recv(timeout=ANSWER_S_MAX))
            timer.saw(event["type"])
            if event["type"] in ("response.failed", "response.incomplete", "error"):
                raise ValueError(f"a turn failed: {event}")
            if event["type"] == "response.completed":
                return timer.first_s, event["response"]


class OverHttp:
    """A connection for each request, as Codex has them, and the whole history."""

    def __init__(self, port):
        self._port = port

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, request):
        timer = Timer()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S_MAX)
        body = json.dumps(request, separators=(",", ":")).encode()
        connection.request("POST", "/v1/responses", body, {"content-type": "application/json", "accept": "text/event-stream"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"a turn was refused: {answer.status} {answer.read()}")
        for line in answer:
            if line.startswith(b"event: "):
                timer.saw(line[7:].strip().decode())
            elif line.startswith(b'data: {"type":"response.completed"'):
                connection.close()
                return timer.first_s, json.loads(line[6:])["response"]
            elif line.startswith((b'data: {"type":"response.failed"', b'data: {"type":"response.incomplete"', b'data: {"type":"error"')):
                raise ValueError(f"a turn failed: {line}")
        raise ValueError("a stream ended before its turn")
