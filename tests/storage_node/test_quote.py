"""Prices: the lowest that enough nodes take, rounded up once, never below the proofs' own cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.genesis import Params
from ledger.records import ProviderRecord
from ledger.transactions import PieceCommitment
from proofs.commitment import LEAF_BYTES
from storage_node.errors import PlacementFailed
from storage_node.quote import Quote, periods_for, quote
from storage_node.read_limit import ReadLimit

PARAMS = Params()
GIB = 1 << 30
FLOOR = PARAMS.proof_fee


def provider(number: int, price: int, **changes: object) -> ProviderRecord:
    record = ProviderRecord(
        account=bytes([number]) * 32,
        payout=bytes([number]) * 32,
        endpoint="http://node",
        capacity_bytes=100 * GIB,
        used_bytes=0,
        stake=10**15,
        locked=0,
        deposit=0,
        price_per_gib_period=price,
        min_piece_bytes=0,
        max_piece_bytes=100 * GIB,
        open=True,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def piece(size: int) -> PieceCommitment:
    return PieceCommitment(bytes(32), -(-size // LEAF_BYTES), size, bytes(32), 0, 0)


def ask(
    providers: list[ProviderRecord], shards: int = 3, size: int = GIB, max_price: int | None = None
) -> Quote:
    return quote(
        [piece(size)] * shards,
        providers,
        PARAMS,
        periods=10,
        floor=FLOOR,
        deposit=40,
        fee=1,
        max_price=max_price,
    )


def test_the_price_reaches_the_shards_and_half_as_many_to_spare() -> None:
    nodes = [provider(number, 10_000 * number) for number in range(1, 9)]
    terms = ask(nodes)
    assert terms.price == 50_000
    assert terms.eligible == 5
    assert (terms.escrow, terms.total) == (3 * 50_000 * 10, 3 * 50_000 * 10 + 41)


def test_a_cap_lowers_the_price_while_enough_nodes_take_it() -> None:
    nodes = [provider(number, 10_000 * number) for number in range(1, 9)]
    assert ask(nodes, max_price=30_000).price == 30_000
    with pytest.raises(PlacementFailed, match="30000"):
        ask(nodes, max_price=29_999)


def test_the_price_is_rounded_up_once_and_has_a_floor() -> None:
    nodes = [provider(number, 1_000_000) for number in range(1, 4)]
    assert ask(nodes, size=5 * 1024 * 1024 + 1).price == -(-1_000_000 * (5 * 1024 * 1024 + 1) // GIB)
    assert ask(nodes, size=1).price == FLOOR


@pytest.mark.parametrize(
    "change",
    [
        {"open": False},
        {"used_bytes": 100 * GIB},
        {"max_piece_bytes": 5},
        {"min_piece_bytes": 2 * GIB},
        {"stake": 0},
        {"locked": 10**15},
    ],
)
def test_nodes_that_cannot_take_a_piece_do_not_count(change: dict[str, object]) -> None:
    nodes = [provider(number, 10_000) for number in range(1, 4)]
    assert ask(nodes).eligible == 3
    with pytest.raises(PlacementFailed, match="needed"):
        ask([*nodes[:2], provider(3, 10_000, **change)])


def test_stake_must_cover_the_collateral() -> None:
    nodes = [provider(number, 10_000, stake=10_000 * PARAMS.collateral_periods - 1) for number in range(1, 4)]
    with pytest.raises(PlacementFailed, match="stake"):
        ask(nodes)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=12), st.integers(1, 6), st.integers(1, GIB))
def test_every_quote_is_taken_by_enough_nodes(prices: list[int], shards: int, size: int) -> None:
    nodes = [provider(number, price) for number, price in enumerate(prices)]
    if len(prices) < shards:
        with pytest.raises(PlacementFailed):
            ask(nodes, shards, size)
        return
    terms = ask(nodes, shards, size)
    assert terms.eligible >= shards
    assert terms.price >= FLOOR
    assert terms.escrow == shards * terms.price * 10


def test_durations_are_rounded_up_to_periods() -> None:
    assert periods_for(1, PARAMS) == 1
    assert periods_for(PARAMS.period_s, PARAMS) == 1
    assert periods_for(PARAMS.period_s + 1, PARAMS) == 2


def test_unpaid_reads_are_limited_by_address_and_recover() -> None:
    now = [0.0]
    limit = ReadLimit(2.0, lambda: now[0], max_addresses=2)
    assert [limit.wait_s("a") for _ in range(8)] == [0.0] * 8
    assert limit.wait_s("a") == 0.5
    assert limit.wait_s("b") == 0.0
    now[0] += 0.5
    assert limit.wait_s("a") == 0.0
    assert limit.wait_s("a") > 0
    limit.wait_s("c")
    limit.wait_s("b")
    assert limit.wait_s("a") == 0.0
