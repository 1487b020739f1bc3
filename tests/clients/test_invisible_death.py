"""`kill -9` in the middle of a real Codex turn: the turn completes, and Codex exits 0. Fifty of fifty: `tests/deaths`."""

import random

import pytest

from death import killed_in_a_turn


@pytest.mark.parametrize("number", range(3))
def test_codex_completes_a_turn_whose_server_was_killed(number):
    ran, faults = killed_in_a_turn(held=number % 2 == 0, chance=random.Random(number))
    assert not faults, (faults, ran.stdout[-2000:])
