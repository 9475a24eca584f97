"""Spot challenges on a real ledger: real nodes answer them, and lose one shard where they cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.records import ShardStatus
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


async def test_a_shard_that_is_missed_three_times_goes_to_another_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    # Long periods: the shard is gone before its whole dataset would be.
    async with a_network(tmp_path, replace(PARAMS, period_s=300)) as network:
        await _lose_by_spots(network)


async def _lose_by_spots(network: Network) -> None:
    await network.add_providers(4)
    client, deal, node = await stored(network, (2, 3))
    node.lose_blocks()
    for count in range(1, PARAMS.terminate_after + 1):
        await client.sender.send(Spot(deal, 0))
        await network.steps_until(lambda n=count: bool(network.seen("spot_missed", missed=n)), "a miss")  # type: ignore[misc]
    await network.steps_until(lambda: bool(network.seen("shard_terminated", shard=0)), "the loss")
    assert len(network.seen("fault", provider=node.home.account)) < PARAMS.terminate_after
    await network.steps_until(lambda: len(network.seen("shard_accepted", shard=0)) == 2, "the repair")
    shard = (await client.ledger.deal(deal)).shards[0]
    assert shard.provider != node.home.account
    assert shard.status in (ShardStatus.ACCEPTED, ShardStatus.ACTIVE)
    assert await money_adds_up(network)


async def money_adds_up(network: Network) -> bool:
    status = await network.status()
    parts = sum(status[name] for name in ("balances", "escrow", "collateral", "burned"))
    return bool(parts == status["issued"])
