"""Fixtures: one gateway on the embedded default for all tests that do not change its config, and one real model for those that need one."""

import pytest

from rig import Flashlane, RealModel


@pytest.fixture(scope="session")
def gateway():
    with Flashlane(config=None) as running:
        yield running


@pytest.fixture(scope="session")
def real_model():
    with RealModel() as running:
        yield running
