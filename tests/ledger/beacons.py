"""Beacons signed and verified once a process: the tests' chains begin alike, so theirs are the same ones."""

from __future__ import annotations

from functools import lru_cache

import pytest

from proofs.bls import signatures as bls

MAX_BEACONS = 20_000


def remember_beacons(patch: pytest.MonkeyPatch) -> None:
    """Until `patch` is undone. A process that is forked later knows what is known by then."""
    for owner, name in ((bls.backend(), "sign"), (bls, "_verify")):
        patch.setattr(owner, name, lru_cache(MAX_BEACONS)(getattr(owner, name)))
