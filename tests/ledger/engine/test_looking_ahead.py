"""The beacons of a replayed history, verified together: the same verdict at the same block, in less time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.application import Application, BlockInput
from ledger.engine import archive_replay
from ledger.engine.archive import GivenBlock
from ledger.engine.archive_replay import Replay, in_batches
from ledger.engine.assemble import assemble
from ledger.engine.blocks import node_cid
from ledger.engine.errors import InvalidArchive, ReplayMismatch
from ledger.engine.storage import LedgerStorage
from ledger.transactions import Beacon
from proofs.beacon.chain import next_value
from proofs.bls import signatures as bls
from tests.ledger.world import CHAIN, START_S, beacon_signer, genesis, key, signer

BLOCKS = 6


def history() -> list[GivenBlock]:
    """A chain of empty blocks, as its operator signed them."""
    app, made, tip = Application(genesis()), [], None
    for height in range(1, BLOCKS + 1):
        signature = beacon_signer().sign(app.beacon_transaction_message(height))
        told = BlockInput(
            height, START_S + height, key("operator"), (Beacon(CHAIN, height, signature).encode(),)
        )
        block = assemble(app, told, app.finalize_block(told), tip, signer("operator")).block
        app.commit()
        tip = block.cid
        made.append(GivenBlock(block, block.encode(), told.txs))
    return made


def with_head(given: GivenBlock, before: bytes, tx: bytes, signature: bytes) -> GivenBlock:
    """The block with another beacon transaction, signed anew by the operator."""
    unsigned = replace(given.block, beacon=next_value(before, signature), txs=(node_cid(tx),))
    block = unsigned.signed(signer("operator"))
    return GivenBlock(block, block.encode(), (tx,))


@pytest.fixture
def pairings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many signatures each pairing was about, one entry a pairing."""
    seen: list[int] = []
    holds = bls.backend().holds

    def counted(statements: list[object], weights: list[int]) -> bool:
        seen.append(len(statements))
        return holds(statements, weights)

    monkeypatch.setattr(bls.backend(), "holds", counted)
    monkeypatch.setattr(bls, "_verify", bls._verify.__wrapped__)  # type: ignore[attr-defined]
    return seen


@pytest.fixture
def replay(tmp_path: Path) -> Callable[[str], Replay]:
    def made(name: str) -> Replay:
        storage = LedgerStorage(tmp_path / name)
        storage.open()
        return Replay(storage, genesis(), keep_history=True)

    return made


def test_a_batch_takes_one_check_and_leads_to_the_same_state(
    replay: Callable[[str], Replay], pairings: list[int]
) -> None:
    blocks = history()
    again = replay("together")
    pairings.clear()
    again.look_ahead(blocks)
    assert pairings == [BLOCKS]
    for given in blocks:
        again.add(given)
    assert pairings == [BLOCKS]
    assert again.app.app_hash == blocks[-1].block.app_hash
    assert again.app.beacon == blocks[-1].block.beacon


@pytest.mark.parametrize("place", [0, 3, BLOCKS - 1])
def test_a_bad_beacon_is_refused_at_its_block_as_without_looking_ahead(
    replay: Callable[[str], Replay], pairings: list[int], place: int
) -> None:
    """The value before it is right, its signature is that of the block before: the operator replays one."""
    blocks = history()
    before = blocks[place - 1].block.beacon if place else genesis().beacon
    old = beacon_signer().sign(b"another message")
    blocks[place] = with_head(blocks[place], before, Beacon(CHAIN, place + 1, old).encode(), old)
    refusals = []
    for name, looks in (("one by one", False), ("together", True)):
        again = replay(name)
        if looks:
            again.look_ahead(blocks)
        for given in blocks[:place]:
            again.add(given)
        with pytest.raises(ReplayMismatch, match=f"beacon signature of block {place + 1} ") as refused:
            again.add(blocks[place])
        refusals.append(str(refused.value))
        assert again.height == place
    assert refusals[0] == refusals[1]


def test_looking_ahead_judges_nothing_that_does_not_follow(
    replay: Callable[[str], Replay], pairings: list[int]
) -> None:
    """Blocks in another order, without a beacon, of another chain: `add` says what is wrong."""
    blocks = history()
    again = replay("again")
    pairings.clear()
    odd = GivenBlock(blocks[1].block, blocks[1].raw, ())
    again.look_ahead([blocks[0], odd, *blocks[2:]])
    assert pairings == [1]
    again.look_ahead([odd])
    again.look_ahead([])
    again.look_ahead(blocks[1:])  # the first height's value is not theirs
    with pytest.raises(InvalidArchive, match="does not follow"):
        again.add(blocks[1])
    again.look_ahead(blocks)
    for given in blocks:
        again.add(given)
    assert again.height == BLOCKS


async def test_batches_are_bounded_and_an_error_comes_after_what_came_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = history()

    async def torn() -> AsyncIterator[GivenBlock]:
        for given in blocks:
            yield given
        raise InvalidArchive("torn")

    async def sizes() -> list[int]:
        found = []
        try:
            async for batch in in_batches(torn()):
                found.append(len(batch))  # noqa: PERF401 - the error ends it
        except InvalidArchive:
            return found
        raise AssertionError("the error was lost")

    assert await sizes() == [BLOCKS]
    monkeypatch.setattr(archive_replay, "MAX_AHEAD_BLOCKS", 4)
    assert await sizes() == [4, 2]
    monkeypatch.setattr(archive_replay, "MAX_AHEAD_BYTES", 2 * blocks[0].size_bytes)
    assert await sizes() == [2, 2, 2]
