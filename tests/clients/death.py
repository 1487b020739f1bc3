"""flashlane under a supervisor that starts it again at once, killed with SIGKILL while a real Codex has a turn running: Codex must not notice.

The supervisor is as systemd with `Restart=` is: with sockets of its own (`held`), or without. It knows nothing of what Codex is told.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from codex_cli import Codex, Finished
from rig import FLASHLANE, endpoint, fetch, poll_until

IN_FLIGHT = re.compile(r'^flashlane_upstream_turns_in_flight\{endpoint="slow"\} [1-9]', re.MULTILINE)
# What is asked, and what the work folder or the answer must show then.
PROMPTS = ["Write a file hello.txt containing hi there", "count from 1 to 30"]
CONFIG = """
[server]
listen = "127.0.0.1:{clients}"
admin_listen = "127.0.0.1:{admin}"
[[models]]
name = "flashlane-demo"
context_tokens_max = 131072
"""


class Supervised:
    """A flashlane that is started again whenever it ends."""

    def __init__(self, held: bool) -> None:
        self.starts = 0
        self._listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.port, self.admin_port = (listener.getsockname()[1] for listener in self._listeners)
        self._held = held
        if not held:
            for listener in self._listeners:
                listener.close()
        self._folder = tempfile.TemporaryDirectory(prefix="flashlane-death-")
        self._config = Path(self._folder.name) / "flashlane.toml"
        slow = endpoint("slow", "throughput", "simulator", first_token_ms=50, tokens_per_second=25)
        self._config.write_text(CONFIG.format(clients=self.port, admin=self.admin_port) + slow)
        self._is_over = False

    def __enter__(self) -> Supervised:
        self._start()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()
        poll_until(lambda: "ready" in self._ask("/readyz"), 10, "/readyz")
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._process.send_signal(signal.SIGINT)
        self._thread.join()
        for listener in self._listeners:
            listener.close()
        self._folder.cleanup()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def runs_a_turn(self) -> bool:
        return bool(IN_FLIGHT.search(self._ask("/metrics")))

    def kill(self) -> None:
        self._process.kill()

    def _ask(self, path: str) -> str:
        try:
            return fetch(f"http://127.0.0.1:{self.admin_port}{path}", timeout_s=2)
        except OSError:
            return ""

    def _start(self) -> None:
        environment = {**os.environ, "NO_COLOR": "1", "FLASHLANE_LOG": "error"}
        environment.pop("FLASHLANE_CONFIG", None)
        more = {}
        if self._held:
            environment |= {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "clients:admin"}
            more = {"pass_fds": (3, 4), "preexec_fn": self._pass_on}
        self.starts += 1
        command = [FLASHLANE, "serve", "--config", self._config]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **more)

    def _pass_on(self) -> None:
        copies = [os.dup(listener.fileno()) for listener in self._listeners]
        for number, copy in enumerate(copies, 3):
            os.dup2(copy, number)

    def _supervise(self) -> None:
        while True:
            self._process.wait()
            if self._is_over:
                return
            self._start()


def killed_in_a_turn(held: bool, chance: random.Random) -> tuple[Finished, list[str]]:
    """A whole `codex exec` whose server dies at a random moment of a turn; how it ended, and what is wrong with that."""
    prompt = chance.choice(PROMPTS)
    with Supervised(held) as server, Codex(server.base_url, "flashlane-demo") as codex:
        killed_at: list[float] = []

        def kill() -> None:
            poll_until(server.runs_a_turn, 30, "a turn", every_s=0.005)
            time.sleep(chance.random() * 0.6)
            killed_at.append(time.monotonic())
            server.kill()

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        ran = codex.exec(prompt)
        ended_at = time.monotonic()
        killer.join()
        faults = []
        if killed_at[0] >= ended_at or server.starts < 2:
            faults.append("it was not killed in a turn")
        if ran.exit_code != 0:
            faults.append(f"Codex ended with {ran.exit_code}: {ran.stderr[-500:]}")
        if failed := [event for event in ran.events if event["type"] == "turn.failed"]:
            faults.append(f"Codex told of it: {failed[0]}")
        if not ran.last_message.strip():
            faults.append("there is no answer")
        hello = codex.work / "hello.txt"
        if prompt == PROMPTS[0] and (not hello.exists() or hello.read_text().strip() != "hi there"):
            faults.append("the file was not written")
        if prompt == PROMPTS[1] and "30" not in ran.last_message.split():
            faults.append(f"the answer is not whole: {ran.last_message[-100:]}")
    return ran, faults
