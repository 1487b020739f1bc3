"""Two tenants and every verb: what another's key finds of a response, an item or a conversation is what it finds of an id that nobody has, and its owner's state is as it
was. On both stores.

A verb is one line of VERBS. Each is done by an intruder, once with an id of the owner's and once with one that nobody has: status, headers and body are the same but for
the id. As a control each is done by the owner too, to whom most of them answer otherwise.
"""

import http.client
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from websockets.sync.client import ClientConnection, connect

from rig import AT_ONCE, SERVER, Flashlane, endpoint, poll_until

MODEL, SLOW = "flashlane-demo", "flashlane-slow"
CONFIG = f"""{SERVER}{AT_ONCE}{endpoint("slow", "throughput", "simulator", first_token_ms=0, tokens_per_second=20)}
[[models]]
name = "{MODEL}"
route = "latency-only"

[[models]]
name = "{SLOW}"
route = "throughput-only"
"""
OWNER = "sk-owner"
# Another key, and none.
INTRUDERS = {"another key": "sk-intruder", "no key": None}
# What differs between any two answers.
OF_ITS_OWN = {"date", "x-request-id", "openai-processing-ms", "server-timing", "content-length"}
NOBODYS = {"response": "resp_" + "0" * 32, "running": "resp_" + "0" * 32, "live": "resp_" + "0" * 32, "conversation": "conv_" + "0" * 32, "item": "msg_" + "0" * 32 + "_0", "output": "msg_" + "0" * 32 + "_1"}


def headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key}"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    def without(self, *ids: dict[str, str]) -> tuple:
        """What is said, whatever the ids."""
        body, headers = self.body, {name: value for name, value in self.headers.items() if name not in OF_ITS_OWN}
        for value in (value for these in ids for value in these.values()):
            body = body.replace(value, f"<{value.split('_')[0]}>")
        # An error over a WebSocket has its request's id within.
        body = re.sub(r"req_[0-9a-f]{32}", "<req>", body)
        return self.status, headers, body


def ask(gateway: Flashlane, key: str | None, method: str, path: str, body: dict | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    connection.request(method, f"/v1{path}", None if body is None else json.dumps(body), {"content-type": "application/json", **headers(key)})
    answer = connection.getresponse()
    given = Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read().decode())
    connection.close()
    return given


def socket(gateway: Flashlane, key: str | None) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{gateway.port}/v1/responses", additional_headers=headers(key))


def create(**fields: object) -> dict:
    return {"model": MODEL, "input": "repeat: hi", **fields}


@dataclass
class HttpVerb:
    """A request; `{response}` and the like stand for ids, in the path and in the body."""

    method: str
    path: str
    body: dict | None = None

    def __call__(self, gateway: Flashlane, key: str | None, ids: dict[str, str]) -> Answer:
        filled = None if self.body is None else json.loads(fill(json.dumps(self.body), ids))
        return ask(gateway, key, self.method, fill(self.path, ids), filled)


@dataclass
class SocketVerb:
    """A client's event on a connection of its own; the answer is an error, or how the response ends."""

    event: dict

    def __call__(self, gateway: Flashlane, key: str | None, ids: dict[str, str]) -> Answer:
        with socket(gateway, key) as connection:
            connection.send(fill(json.dumps(self.event), ids))
            while True:
                said = json.loads(connection.recv(timeout=20))
                if said["type"] in ("error", "response.completed", "response.failed", "response.steer.failed"):
                    return Answer(said.get("status", 200 if said["type"] == "response.completed" else 400), {}, json.dumps(said))


def fill(text: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        text = text.replace("{" + name + "}", value)
    return text


ON = {"previous_response_id": "{response}"}
REFERENCE = [{"type": "item_reference", "id": "{output}"}, {"role": "user", "content": "repeat: hi"}]
MORE = {"items": [{"type": "message", "role": "user", "content": "more"}]}
# Its owner's status. `None`: what the owner gets is no other than what everybody gets.
VERBS: dict[str, tuple[HttpVerb | SocketVerb, int | None]] = {
    "retrieve": (HttpVerb("GET", "/responses/{response}"), 200),
    "retrieve with include": (HttpVerb("GET", "/responses/{response}?include[]=reasoning.encrypted_content"), 200),
    "retrieve one that runs": (HttpVerb("GET", "/responses/{running}"), 200),
    "retrieve one that runs over a WebSocket": (HttpVerb("GET", "/responses/{live}"), None),
    "resume a stream that is none": (HttpVerb("GET", "/responses/{response}?stream=true"), 404),
    "input items": (HttpVerb("GET", "/responses/{response}/input_items"), 200),
    "input items after one": (HttpVerb("GET", "/responses/{response}/input_items?after={item}&limit=1"), 400),
    "input items of one that runs": (HttpVerb("GET", "/responses/{running}/input_items"), 200),
    "cancel": (HttpVerb("POST", "/responses/{response}/cancel"), 400),
    "chain": (HttpVerb("POST", "/responses", create(**ON)), 200),
    "chain, streamed": (HttpVerb("POST", "/responses", create(**ON, stream=True)), 200),
    "chain in the background": (HttpVerb("POST", "/responses", create(**ON, background=True)), 200),
    "chain a warm-up": (HttpVerb("POST", "/responses", create(**ON, generate=False)), 200),
    "chain to one that runs": (HttpVerb("POST", "/responses", create(previous_response_id="{running}")), 400),
    "count a chain's tokens": (HttpVerb("POST", "/responses/input_tokens", create(**ON)), 200),
    "compact a chain": (HttpVerb("POST", "/responses/compact", {"model": MODEL, **ON}), 200),
    "compact a chain by a trigger": (HttpVerb("POST", "/responses", create(input=[{"type": "compaction_trigger"}], **ON)), 200),
    "refer to an item": (HttpVerb("POST", "/responses", create(input=REFERENCE)), 200),
    "refer to an item, streamed": (HttpVerb("POST", "/responses", create(input=REFERENCE, stream=True)), 200),
    "refer to an item of a chain": (HttpVerb("POST", "/responses", create(input=REFERENCE, **ON)), 200),
    "refer to an item in the background": (HttpVerb("POST", "/responses", create(input=REFERENCE, background=True)), 200),
    "count a referred item's tokens": (HttpVerb("POST", "/responses/input_tokens", create(input=REFERENCE)), 200),
    "retrieve a conversation": (HttpVerb("GET", "/conversations/{conversation}"), 200),
    "update a conversation": (HttpVerb("POST", "/conversations/{conversation}", {"metadata": {"by": "another"}}), 200),
    "list a conversation": (HttpVerb("GET", "/conversations/{conversation}/items"), 200),
    "list a conversation after an item": (HttpVerb("GET", "/conversations/{conversation}/items?after={item}"), 200),
    "retrieve a conversation's item": (HttpVerb("GET", "/conversations/{conversation}/items/{item}"), 200),
    "add to a conversation": (HttpVerb("POST", "/conversations/{conversation}/items", MORE), 200),
    "respond in a conversation": (HttpVerb("POST", "/responses", create(conversation="{conversation}")), 200),
    "respond in a conversation, streamed": (HttpVerb("POST", "/responses", create(conversation={"id": "{conversation}"}, stream=True)), 200),
    "respond in a conversation in the background": (HttpVerb("POST", "/responses", create(conversation="{conversation}", background=True)), 200),
    "count a conversation's tokens": (HttpVerb("POST", "/responses/input_tokens", create(conversation="{conversation}")), None),
    "chain over a WebSocket": (SocketVerb({"type": "response.create", **create(**ON)}), 200),
    "chain over a WebSocket, unstored": (SocketVerb({"type": "response.create", **create(**ON, store=False)}), 200),
    "chain a warm-up over a WebSocket": (SocketVerb({"type": "response.create", **create(**ON, generate=False)}), 200),
    "chain to one that runs over another WebSocket": (SocketVerb({"type": "response.create", **create(previous_response_id="{live}")}), 400),
    "refer to an item over a WebSocket": (SocketVerb({"type": "response.create", **create(input=REFERENCE)}), 200),
    "add a referred item to a conversation": (HttpVerb("POST", "/conversations/{conversation}/items", {"items": REFERENCE[:1]}), None),
    "respond in a conversation over a WebSocket": (SocketVerb({"type": "response.create", **create(conversation="{conversation}")}), None),
    # Only the connection that a response runs on steers it, even under its owner's key.
    "steer": (SocketVerb({"type": "response.steer", "previous_response_id": "{live}", "input": "repeat: mine"}), 400),
    "steer one that has ended": (SocketVerb({"type": "response.steer", "previous_response_id": "{response}", "input": "repeat: mine"}), 400),
    "interrupt": (SocketVerb({"type": "response.interrupt", "response_id": "{live}"}), 400),
    "cancel over a WebSocket": (SocketVerb({"type": "response.cancel", "response_id": "{live}"}), 400),
    "cancel one that runs in the background, over a WebSocket": (SocketVerb({"type": "response.cancel", "response_id": "{running}"}), 400),
    # What ends something comes last, for the owner's sake.
    "resume a stream": (HttpVerb("GET", "/responses/{running}?stream=true"), 200),
    "resume a stream after an event": (HttpVerb("GET", "/responses/{running}?stream=true&starting_after=2"), 200),
    "cancel one that runs": (HttpVerb("POST", "/responses/{running}/cancel"), 200),
    "delete one that runs": (HttpVerb("DELETE", "/responses/{running}"), 200),
    "delete": (HttpVerb("DELETE", "/responses/{response}"), 200),
    "delete a conversation's item": (HttpVerb("DELETE", "/conversations/{conversation}/items/{item}"), 200),
    "delete a conversation": (HttpVerb("DELETE", "/conversations/{conversation}"), 200),
}


@dataclass
class Owned:
    """One tenant's state: a response that has ended, one that runs in the background, one that runs on an open WebSocket, a conversation and an item of it."""

    gateway: Flashlane
    ids: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> "Owned":
        made = ask(self.gateway, OWNER, "POST", "/conversations", {"metadata": {"by": "owner"}, "items": [{"type": "message", "role": "user", "content": "a secret"}]})
        self.ids["conversation"] = made.json["id"]
        self.ids["item"] = self.get("/conversations/{conversation}/items")["data"][0]["id"]
        response = ask(self.gateway, OWNER, "POST", "/responses", create(input="repeat: a secret")).json
        self.ids["response"], self.ids["output"] = response["id"], response["output"][0]["id"]
        slow = {"model": SLOW, "input": "count from 1 to 5000"}
        self.ids["running"] = ask(self.gateway, OWNER, "POST", "/responses", {**slow, "background": True}).json["id"]
        self.socket = socket(self.gateway, OWNER)
        self.socket.send(json.dumps({"type": "response.create", **slow}))
        self.ids["live"] = json.loads(self.socket.recv(timeout=20))["response"]["id"]
        poll_until(lambda: self.get("/responses/{running}")["status"] == "in_progress", 10, "the background response to begin")
        self.kept = self.state()
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        ask(self.gateway, OWNER, "POST", fill("/responses/{running}/cancel", self.ids))

    def get(self, path: str) -> dict:
        answer = ask(self.gateway, OWNER, "GET", fill(path, self.ids))
        assert answer.status == 200, answer
        return answer.json

    def state(self) -> list[dict]:
        paths = ("/responses/{response}", "/responses/{response}/input_items", "/responses/{running}", "/responses/{running}/input_items", "/conversations/{conversation}", "/conversations/{conversation}/items")
        return [self.get(path) for path in paths]

    def still_runs(self) -> bool:
        """The response on the WebSocket was let alone until now, when its owner interrupts it."""
        self.socket.send(json.dumps({"type": "response.interrupt", "response_id": self.ids["live"]}))
        told = ("response.created", "response.in_progress", "response.output_item.added", "response.content_part.added", "response.output_text.delta")
        while (said := json.loads(self.socket.recv(timeout=20))["type"]) in told:
            pass
        return said == "response.interrupt.accepted"


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def gateway(request, tmp_path_factory) -> Iterator[Flashlane]:
    folder = f'\n[store]\nfolder = "{tmp_path_factory.mktemp("store") / "data"}"\n' if request.param == "sqlite" else ""
    with Flashlane(CONFIG + folder) as running:
        yield running


@pytest.fixture(scope="module")
def owned(gateway) -> Iterator[Owned]:
    with Owned(gateway) as owned:
        yield owned
        assert owned.still_runs()


@pytest.mark.parametrize("intruder", INTRUDERS.values(), ids=INTRUDERS)
@pytest.mark.parametrize("verb", VERBS)
def test_another_finds_what_nobodys_id_finds(gateway, owned, verb, intruder):
    do, _ = VERBS[verb]
    of_nobody = do(gateway, intruder, NOBODYS)
    # Each id on its own and all together: a conversation that is there with an item that is not, and the like.
    used = [name for name in NOBODYS if "{" + name + "}" in str(do)]
    assert used, "it is of nothing"
    for count in range(1, len(used) + 1):
        for names in itertools.combinations(used, count):
            ids = {**NOBODYS, **{name: owned.ids[name] for name in names}}
            found = do(gateway, intruder, ids)
            assert found.status >= 400, found
            assert found.without(owned.ids, NOBODYS) == of_nobody.without(NOBODYS), names
            assert "secret" not in found.body
    assert owned.state() == owned.kept


def test_the_owner_finds_what_is_there(gateway):
    """Or the test above would show nothing."""
    with Owned(gateway) as owned:
        statuses = {}
        for verb, (do, expected) in VERBS.items():
            if "resume a stream" == verb or "resume a stream after" in verb:
                # It would be told to its end.
                ended = ask(gateway, OWNER, "POST", "/responses", create(background=True, stream=True))
                running = json.loads(ended.body.split("data: ")[1].split("\n")[0])["response"]["id"]
                statuses[verb] = (do(gateway, OWNER, {**owned.ids, "running": running}).status, expected)
                continue
            statuses[verb] = (do(gateway, OWNER, owned.ids).status, expected)
        wrong = {verb: got for verb, (got, expected) in statuses.items() if expected is not None and got != expected}
        assert not wrong


def test_what_was_sealed_for_another_is_as_what_was_altered(gateway):
    sealed = ask(gateway, OWNER, "POST", "/responses/compact", {"model": MODEL, "input": "repeat: a secret"}).json["output"][-1]
    blob = sealed["encrypted_content"]
    altered = blob[:-6] + ("A" if blob[-6] != "A" else "B") + blob[-5:]

    def use(key: str | None, blob: str) -> Answer:
        return ask(gateway, key, "POST", "/responses", create(input=[{**sealed, "encrypted_content": blob}, {"role": "user", "content": "repeat: hi"}]))

    assert use(OWNER, blob).status == 200
    refused = use(OWNER, altered)
    assert refused.status == 400
    for key in INTRUDERS.values():
        for tried in (blob, altered):
            assert use(key, tried).without() == refused.without()


def test_an_item_of_another_is_not_in_a_conversation_of_ones_own(gateway, owned):
    for key in INTRUDERS.values():
        own = ask(gateway, key, "POST", "/conversations", {}).json["id"]
        ids = {**owned.ids, "conversation": own}
        for verb in ("retrieve a conversation's item", "delete a conversation's item", "list a conversation after an item"):
            found, unknown = (VERBS[verb][0](gateway, key, {**ids, "item": item}) for item in (owned.ids["item"], NOBODYS["item"]))
            assert found.without(ids) == unknown.without(ids, NOBODYS), verb
    assert owned.state() == owned.kept
