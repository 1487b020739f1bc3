"""What is done to the gateway and its endpoints while it is under load, by a seed: deaths, stalls, bad moods, and reloads of every kind, good and bad.

It knows nothing of load, and of what becomes of it.
"""

from __future__ import annotations

import heapq
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from gateway import Clients, Gateway, Settings, Simulator
from moody import Moody

# Between two faults.
PAUSE_S = (1.0, 5.0)
BAD_FILES = ("[server\n", "[server]\nlisten = 1\n", '[[models]]\nname = "quick"\nunknown = true\n', "")


class Faults:
    """Does what is due whenever it is asked to."""

    def __init__(self, seed: int, gateway: Gateway, settings: Settings, simulators: dict[str, Simulator], clients: Clients) -> None:
        self._chance = random.Random(seed)
        self._gateway, self._settings, self._simulators, self._clients = gateway, settings, simulators, clients
        self._moody = Moody(simulators["gpu-1"].port, seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._hurt: set[str] = set()
        self._secrets = 0
        self._rotating = False
        self.done: Counter[str] = Counter()
        self._plan(1, self._next)

    def tick(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()

    def stop(self) -> None:
        """Heals all that is hurt; what was begun is brought to its end. The bad endpoint is taken away by a reload."""
        while any(self._hurt) or self._rotating:
            self.tick()
            time.sleep(0.05)
        self._due.clear()
        self._settings.endpoints.pop("moody", None)
        self._reload()
        time.sleep(3)
        self._moody.stop()

    @property
    def secrets(self) -> tuple[str, str]:
        return self._settings.keys["steady"][0], self._settings.keys["rotated"][0]

    def _plan(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), what))

    def _next(self) -> None:
        kinds = {
            self._kill: 3, self._stop: 3, self._moods: 2, self._limits: 4, self._endpoint: 3, self._weights: 2, self._rotate: 2, self._certificate: 2,
            self._bad_file: 2, self._nothing: 1,
        }
        kind = self._chance.choices(list(kinds), list(kinds.values()))[0]
        if kind() is not False:
            self.done[kind.__name__.strip("_").replace("_", " ")] += 1
        self._plan(self._chance.uniform(*PAUSE_S), self._next)

    def _victim(self) -> str | None:
        """An endpoint that is well; one of them is left alone."""
        well = sorted(set(self._simulators) - self._hurt)
        return self._chance.choice(well) if len(well) > 1 else None

    def _heal(self, name: str, how: Callable[[], None]) -> None:
        how()
        self._hurt.discard(name)

    def _kill(self) -> bool | None:
        if (name := self._victim()) is None:
            return False
        simulator = self._simulators[name]
        self._hurt.add(name)
        simulator.kill()
        self._plan(self._chance.uniform(0.2, 4), lambda: self._heal(name, simulator.start))

    def _stop(self) -> bool | None:
        if (name := self._victim()) is None:
            return False
        simulator = self._simulators[name]
        self._hurt.add(name)
        simulator.signal(signal.SIGSTOP)
        self._plan(self._chance.uniform(0.5, 7), lambda: self._heal(name, lambda: simulator.signal(signal.SIGCONT)))

    def _moods(self) -> None:
        if self._settings.endpoints.pop("moody", None) is None:
            self._settings.endpoints["moody"] = self._moody.port
        self._reload()

    def _limits(self) -> None:
        self._settings.requests = self._chance.choice([6000, 60_000, 1_000_000])
        self._settings.concurrency = self._chance.choice([4, 16, 128])
        self._settings.waiting = self._chance.choice([8, 64, 256])
        self._reload()

    def _endpoint(self) -> None:
        """The second of a tier goes, or comes back."""
        name = self._chance.choice(["wafer-2", "gpu-2"])
        if self._settings.endpoints.pop(name, None) is None:
            self._settings.endpoints[name] = self._simulators[name].port
        self._reload()

    def _weights(self) -> None:
        self._settings.weights[self._chance.choice(list(self._settings.endpoints))] = self._chance.randint(1, 5)
        self._reload()

    def _rotate(self) -> bool | None:
        """Both secrets hold, then the clients change, then the old one is gone."""
        if self._rotating:
            return False
        self._rotating = True
        self._secrets += 1
        old, new = self._settings.keys["rotated"][0], f"fl-soak-rotated-{self._secrets:032x}"
        self._settings.keys["rotated"] = [new, old]
        self._reload()
        self._plan(4, lambda: self._clients.order(f"keys {self._settings.keys['steady'][0]} {new}"))
        self._plan(7, lambda: self._retire(new))

    def _retire(self, new: str) -> None:
        self._settings.keys["rotated"] = [new]
        self._rotating = False
        self._reload()

    def _certificate(self) -> None:
        self._clients.order("certificate")

    def _bad_file(self) -> None:
        self._gateway.write_text(self._chance.choice(BAD_FILES))
        self._gateway.hang_up()
        # Before anybody else changes the file: a good one with all that was to hold.
        self._plan(self._chance.uniform(0.3, 3), self._reload)

    def _nothing(self) -> None:
        self._gateway.hang_up()

    def _reload(self) -> None:
        """By a signal, or by the file alone."""
        self._gateway.write(self._settings)
        if self._chance.random() < 0.5:
            self._gateway.hang_up()
