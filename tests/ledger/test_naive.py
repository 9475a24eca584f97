"""The plain second ledger (`tests/ledger/naive`) and the real one agree on random blocks."""

from __future__ import annotations

import os

import pytest

from ledger import limits
from tests.ledger.naive.crowd import Crowd

LONGER = int(os.environ.get("HOLDFAST_NAIVE_TIMES", "1"))  # how many times as many worlds
BLOCKS = 60


@pytest.mark.parametrize("seed", range(6 * LONGER))
def test_both_ledgers_agree_on_random_blocks(seed: int) -> None:
    """Codes, records, money and events after every block."""
    crowd = Crowd(seed)
    for _ in range(BLOCKS):
        crowd.step()
    crowd.run_down()
    assert not crowd.world.app.has_live_deals()


@pytest.mark.parametrize("seed", range(1000, 1000 + 3 * LONGER))
def test_they_agree_where_a_block_does_little(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Due work, draws and deals that go on over many blocks."""
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 3)
    monkeypatch.setattr(limits, "MAX_DRAWS_PER_BLOCK", 2)
    monkeypatch.setattr(limits, "MAX_DRAW_LOOKS_PER_BLOCK", 5)
    monkeypatch.setattr(limits, "MAX_DRAW_TRIES", 3)
    monkeypatch.setattr(limits, "MAX_DRAW_SEATS", 2)
    monkeypatch.setattr(limits, "MAX_SHARDS_PER_BLOCK", 4)
    monkeypatch.setattr(limits, "MAX_TURN_STEP", 1)
    crowd = Crowd(seed)
    for _ in range(BLOCKS):
        crowd.step()
    crowd.run_down()
