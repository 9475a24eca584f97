"""The plain second ledger (`tests/ledger/naive`) and the real one agree on random blocks."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from ledger import limits
from ledger.genesis import Params
from ledger.result import Code
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


PROVING = Params(period_s=12, window_s=6, accept_timeout_s=5, challenges=2, min_stake=0, terminate_after=9)


def test_they_agree_on_proofs_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right proofs, changed ones, others'; more KZG proofs than a block may verify."""
    monkeypatch.setattr(limits, "MAX_KZG_POINTS_PER_BLOCK", 25)
    codes: Counter[Code] = Counter()
    for seed in range(2001, 2001 + 3 * LONGER, 2):
        crowd = Crowd(seed, PROVING)
        crowd.take_deals(10)
        for _ in range(22):
            crowd.spot("bob")
            crowd.flush(1)
            for _ in range(2):
                crowd.prove_rightly_or_not()
        codes.update({code: crowd.codes["prove", code] for code in Code})
    assert min(codes[code] for code in (Code.OK, Code.INVALID_PROOF, Code.BLOCK_FULL)) > 0, codes


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
    monkeypatch.setattr(limits, "MAX_KZG_POINTS_PER_BLOCK", 25)
    crowd = Crowd(seed)
    for _ in range(BLOCKS):
        crowd.step()
    crowd.run_down()
