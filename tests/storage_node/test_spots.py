"""Spot challenges on a real ledger: real nodes answer them, and lose one shard where they cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.engine.errors import LedgerRefused
from ledger.records import ShardStatus
from ledger.result import Code
from ledger.transactions import Spot
from merkledag.cid import CID
from storage_node.blockstore import lmdb_file
from tests.storage_node.content import add_files, some_bytes
from tests.storage_node.network import PARAMS, Home, Network, Provider, a_network


@pytest.fixture
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path) as network:
        yield network


async def stored(network: Network, code: tuple[int, int]) -> tuple[Home, CID, Provider]:
    """A client, its deal in its second period, and the node that keeps shard 0."""
    client = network.home("client")
    await network.fund(client.account)
    content = add_files(client.store, {"a": some_bytes(50_000), "b": some_bytes(9_000, 2)})
    with await network.plan(client, content, periods=20, code=code) as plan:
        deal = (await network.execute(client, plan)).deal
    holder = network.provider((await client.ledger.deal(deal)).shards[0].provider)
    account = holder.home.account
    await network.steps_until(lambda: bool(network.seen("proof_accepted", provider=account)), "a proof")
    return client, deal, holder


async def test_a_node_answers_and_is_paid_what_was_prepaid(network: Network) -> None:
    await network.add_providers(1)
    client, deal, node = await stored(network, (1, 1))
    before = (await node.home.ledger.account(node.home.account)).balance
    await client.sender.send(Spot(deal, 0))
    await network.until(lambda: bool(network.seen("spot_answered", deal=deal, shard=0)), "the answer")
    after = (await node.home.ledger.account(node.home.account)).balance
    assert after == before  # what the answer cost is what was prepaid
    await network.until(lambda: node.node.runner.tally.spots == 1, "the count")
    assert not node.node.runner.duties.spots
    # Again, as often as somebody pays for it.
    await client.sender.send(Spot(deal, 0))
    await network.until(lambda: len(network.seen("spot_answered")) == 2, "the second answer")


async def test_a_node_that_was_off_answers_when_it_is_back(network: Network) -> None:
    await network.add_providers(1)
    client, deal, node = await stored(network, (1, 1))
    await node.stop()
    await client.sender.send(Spot(deal, 0))
    await network.steps_until(lambda: bool(network.seen("spot_opened")), "the seed")
    await node.start()
    await network.until(lambda: bool(network.seen("spot_answered")), "the answer")
    assert not network.seen("spot_missed")


async def test_a_node_heals_what_a_spot_challenge_asks_for(network: Network) -> None:
    await network.add_providers(4, heal=True)
    client, deal, node = await stored(network, (2, 3))
    node.home.store.delete_many(list(node.home.store.keys()))
    await client.sender.send(Spot(deal, 0))
    await network.until(lambda: bool(network.seen("spot_answered", shard=0)), "the answer")


async def test_a_piece_that_windows_hardly_find_missing_is_taken_away_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path, replace(PARAMS, challenges=1)) as network:
        (node,) = await network.add_providers(1)
        client, large, _ = await stored(network, (1, 1))
        content = add_files(client.store, {"only": b"a small piece"})
        with await network.plan(client, content, periods=20, code=(1, 1)) as plan:
            small = (await network.execute(client, plan)).deal
            node.home.store.delete_many([name for name, _ in plan.manifest.piece(0)])
        await network.steps_until(lambda: active(network, small), "the second piece in the dataset")
        network.excused.add("answer")  # it cannot give one; its proofs are waited for
        while not network.seen("shard_terminated"):
            try:
                await client.sender.send(Spot(small, 0))
            except LedgerRefused as refusal:
                if refusal.code not in (Code.TOO_EARLY, Code.SPOT_OPEN, Code.NOT_ACTIVE):
                    raise
                await network.step()
        (lost,) = network.seen("shard_terminated")
        assert (lost.attributes["deal"], lost.attributes["shard"]) == (small, 0)
        missed = [event.attributes["missed"] for event in network.seen("spot_missed")]
        assert missed == list(range(1, PARAMS.terminate_after + 1))
        assert not network.seen("fault")
        view = await client.ledger.deal(large)
        assert view.shards[0].status is ShardStatus.ACTIVE
        assert await money_adds_up(network)


def active(network: Network, deal: CID) -> bool:
    info = network.app.deal(deal)
    return info is not None and info.shards[0].status is ShardStatus.ACTIVE


async def money_adds_up(network: Network) -> bool:
    status = await network.status()
    parts = sum(status[name] for name in ("balances", "escrow", "collateral", "burned"))
    return bool(parts == status["issued"])
