"""What all tests of the ledger share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest

from proofs import bls

BEACONS = 20_000


@pytest.fixture(scope="session", autouse=True)
def remembered_beacons() -> Iterator[None]:
    """Signs and verifies each beacon once: the tests' chains begin alike, so theirs are the same ones.

    Anew for every block of every test they would take half of the time that these tests do.
    """
    backend = bls.backend()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("sign", "verify"):
            patch.setattr(backend, name, lru_cache(BEACONS)(getattr(backend, name)))
        yield
