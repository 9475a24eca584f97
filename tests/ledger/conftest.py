"""What all tests of the ledger share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ledger.beacons import remember_beacons
from tests.ledger.world import World


@pytest.fixture(scope="session", autouse=True)
def remembered_beacons() -> Iterator[None]:
    """Anew for every block of every test, beacons would take half of the time of all these tests."""
    with pytest.MonkeyPatch.context() as patch:
        remember_beacons(patch)
        yield


@pytest.fixture
def world() -> World:
    """A chain with a client that has money, and one node."""
    world = World()
    world.fund("client")
    world.provider("node")
    return world
