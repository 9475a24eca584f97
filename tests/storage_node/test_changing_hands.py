"""Shards that change hands between real nodes on a real ledger: handed over, given up, lost and declared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from math import comb
from pathlib import Path

import pytest

from ledger.genesis import Params
from ledger.records import DatasetRecord, ShardStatus
from ledger.transactions import Ask, EndDeal, HandOver, Renew
from merkledag import multihash
from merkledag.cid import CID
from proofs.kinds import ProofKind
from storage_node.blockstore import lmdb_file
from storage_node.duties import Settle, ShardKey
from storage_node.errors import PlacementFailed, UploadRefused
from storage_node.ledger_view import open_deal
from storage_node.runner import MAX_SETTLING
from storage_node.upkeep import least_odds, odds
from storage_node.wire import ShardPhase
from tests.storage_node.content import add_files, some_bytes
from tests.storage_node.network import Home, Network, Provider, a_network

FILES = {"a": some_bytes(60_000), "b": some_bytes(20_000, 2)}


@pytest.fixture
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path) as network:
        yield network


class Stored:
    """A deal over content of three shards on three of four nodes, and who holds shard 0."""

    def __init__(self, network: Network, client: Home, content: CID, deal: CID) -> None:
        self.network = network
        self.client = client
        self.content = content
        self.deal = deal
        self.key = ShardKey(deal, 0)

    @classmethod
    async def make(cls, network: Network, *, periods: int, nodes: int = 4, **settings: object) -> Stored:
        await network.add_providers(nodes, **settings)
        client = network.home("client")
        await network.fund(client.account)
        content = add_files(client.store, FILES)
        with await network.plan(client, content, periods=periods, code=(2, 3)) as plan:
            deal = (await network.execute(client, plan)).deal
        return cls(network, client, content, deal)

    async def holder(self) -> Provider:
        return self.network.provider((await self.client.ledger.deal(self.deal)).shards[0].provider)

    async def until_active(self) -> Provider:
        """Let every shard become active; the holder of the first."""
        holder = await self.holder()
        await self.network.steps_until(
            lambda: bool(self.seen("proof_accepted", provider=holder.home.account)), "a first proof"
        )
        return holder

    def seen(self, kind: str, **attributes: object) -> bool:
        return bool(self.network.seen(kind, **attributes))

    async def end(self) -> None:
        await self.network.steps_until(lambda: self.seen("deal_ended"), "the deal's end")


@pytest.mark.parametrize("is_whole", [True, False], ids=["from its holder", "rebuilt from the others"])
async def test_a_shard_is_handed_over_without_a_fault_and_a_gap(network: Network, is_whole: bool) -> None:
    stored = await Stored.make(network, periods=6)
    old = await stored.until_active()
    if not is_whole:
        old.home.store.delete_many(list(old.node.custody.held()[stored.key].multihashes()))
        network.honest.discard(old.home.account)
    receipt = await old.home.sender.send(HandOver(*stored.key))
    assert receipt.code == 0
    await network.steps_until(lambda: stored.seen("shard_handed_over", shard=0), "the handover")
    await network.until(lambda: not old.node.custody.held(), "the old node to let go")
    new = await stored.holder()
    assert new is not old
    assert stored.key in new.node.custody.held()
    assert new.node.runner.duties.held.keys() == {stored.key}
    await stored.end()
    faults = {event.attributes["provider"] for event in network.seen("fault")}
    assert faults <= (set() if is_whole else {old.home.account})
    shards = (await stored.client.ledger.deal(stored.deal)).shards
    assert {shard.status for shard in shards} == {ShardStatus.ENDED}
    assert stored.seen("proof_accepted", provider=new.home.account)


async def test_who_takes_over_may_be_restarted_before_the_shard_passes_on(network: Network) -> None:
    stored = await Stored.make(network, periods=6)
    old = await stored.until_active()
    (spare,) = [each for each in network.providers if not each.node.custody.held()]
    await spare.stop()
    await old.home.sender.send(HandOver(*stored.key))
    await network.steps_until(lambda: stored.seen("shard_assigned", handover=True), "the offer")
    await spare.start()
    await network.until(
        lambda: stored.seen("shard_accepted", provider=spare.home.account), "acceptance after the start"
    )
    await spare.stop()
    await spare.start()
    assert stored.key in spare.node.custody.held()
    visitor = network.pool().client(spare.node.settings.endpoint)
    assert (await visitor.shard_state(*stored.key)).phase is ShardPhase.HELD
    await network.steps_until(lambda: stored.seen("shard_handed_over", shard=0), "the handover")
    await stored.end()
    assert not network.seen("fault")


async def test_a_handover_that_nobody_takes_leaves_everything_as_it_was(network: Network) -> None:
    stored = await Stored.make(network, periods=12, nodes=3)
    old = await stored.until_active()
    await old.home.sender.send(HandOver(*stored.key))
    await network.steps_until(lambda: stored.seen("handover_failed", shard=0), "the end of the handover")
    assert stored.key in old.node.custody.held()
    await stored.end()
    assert not network.seen("fault")


async def test_a_renewed_deal_is_proven_to_its_new_end_and_notice_ends_it_early(network: Network) -> None:
    stored = await Stored.make(network, periods=2, nodes=3)
    await stored.until_active()
    await stored.client.sender.send(Renew(stored.deal, 6))
    what = stored.client.ledger, stored.client.account, stored.content, await manifest(stored)
    assert await open_deal(*what, ProofKind.MERKLE) == stored.deal
    assert await open_deal(*what, ProofKind.KZG) is None
    await network.steps_until(lambda: len(network.seen("proof_accepted")) >= 9, "proofs after the old end")
    await stored.client.sender.send(EndDeal(stored.deal))
    # Whoever stores the same again now gets a deal of its own.
    assert await open_deal(*what, ProofKind.MERKLE) is None
    await stored.end()
    assert not network.seen("fault")
    assert 9 <= len(network.seen("proof_accepted")) < 3 * 8
    for provider in network.providers:
        await network.until(lambda p=provider: not p.node.custody.held(), "released pieces")  # type: ignore[misc]


async def manifest(stored: Stored) -> CID:
    return (await stored.client.ledger.deal(stored.deal)).deal.manifest


async def test_a_node_gives_up_what_its_owner_denies_and_takes_it_no_more(network: Network) -> None:
    stored = await Stored.make(network, periods=8)
    old = await stored.until_active()
    await old.stop()
    old.changes = {"denied": (stored.content,)}
    await old.start()
    await network.steps_until(lambda: stored.seen("shard_given_up", shard=0), "giving up")
    await network.until(lambda: not old.node.custody.held(), "the old node to let go")
    await network.steps_until(
        lambda: len(network.seen("shard_accepted", shard=0)) == 2, "the repair's acceptance"
    )
    assert await stored.holder() is not old
    await stored.end()
    assert not network.seen("fault")
    content = stored.content
    with await network.plan(stored.client, content, code=(1, 1), named=(old.home.account,)) as plan:
        deal = (await stored.client.sender.send(plan.body)).tx_id
        visitor = network.pool().client(old.node.settings.endpoint)
        with pytest.raises(UploadRefused, match="does not keep this content"):
            await visitor.shard_state(deal, 0)


async def test_a_single_block_may_be_denied(network: Network) -> None:
    block = CID.of(FILES["a"][:4096])
    (node,) = await network.add_providers(1, denied=(block,))
    client = network.home("client")
    await network.fund(client.account)
    content = add_files(client.store, FILES)
    with await network.plan(client, content, code=(1, 1), named=(node.home.account,)) as plan:
        run = asyncio.create_task(network.execute(client, plan))
        await network.steps_until(run.done, "the end")
        with pytest.raises(PlacementFailed, match="no node took shard 0"):
            await run
    assert not node.node.custody.held()


def test_the_odds_of_proving_are_those_of_drawing_nothing_that_is_lost() -> None:
    assert odds(1_000, 0, 30) == 1.0
    assert odds(0, 0, 30) == 1.0
    assert odds(1_000, 1_000, 30) == 0.0
    assert odds(10, 3, 4) == pytest.approx(comb(7, 4) / comb(10, 4))
    assert odds(3, 1, 30) == 0.0


def test_a_fault_is_declared_where_waiting_for_the_draw_would_cost_more() -> None:
    """The draw brings the pay with the odds, else costs the fee; half of the fee is what declaring costs."""
    record = DatasetRecord(bytes(32), bytes(32), 1, 1, 0, price_total=1_000)
    for percent in (1, 100, 500):
        least = least_odds(record, Params(fault_fee_percent=percent))
        fee = 10 * percent
        assert least * 1_000 - (1 - least) * fee == pytest.approx(-fee / 2)
    assert least_odds(record, Params()) == 0.25
    assert least_odds(record, Params(fault_fee_percent=0)) == 0
    assert least_odds(replace(record, clean=30), Params(grace_periods=30)) == 0  # the next fault is free


async def test_a_fault_that_is_sure_to_come_is_declared_for_half_the_fee(network: Network) -> None:
    stored = await Stored.make(network, periods=12, nodes=3)
    victim = await stored.until_active()
    victim.lose_blocks()
    await network.steps_until(lambda: stored.seen("shard_terminated", shard=0), "termination")
    first, *others = network.seen("fault", provider=victim.home.account)
    assert not first.attributes["declared"]
    assert [event.attributes["declared"] for event in others] == [True, True]
    assert {int(str(event.attributes["fee"])) for event in others} == {int(str(first.attributes["fee"])) // 2}
    assert "is declared" in victim.node.runner.tally.last_problem


async def test_what_the_disk_lost_or_changed_while_the_node_was_off_is_back_before_the_window_opens(
    network: Network,
) -> None:
    stored = await Stored.make(network, periods=4, heal=True)
    node = await stored.until_active()
    await node.stop()
    store, held = node.home.store, list(node.node.custody.held()[stored.key].multihashes())
    store.delete_many(held[:-1])
    store.replace(held[-1], b"changed")
    for path in (node.home.folder / "pieces").iterdir():
        path.unlink()
    await node.start()
    await network.until(lambda: stored.key in node.node.custody.held(), "the piece")
    assert all(multihash.verify(name, store.get(name)) for name in held)
    await stored.end()
    assert not network.seen("fault")


async def test_a_node_that_its_owner_closes_while_it_runs_says_so(network: Network) -> None:
    (node,) = await network.add_providers(1)
    assert node.node.status()["open"]
    await node.home.sender.send(Ask(1_000_000, 0, 1 << 40, open=False))
    await network.until(lambda: not node.node.status()["open"], "the node to notice")


async def test_pay_is_collected_when_that_is_worth_its_fee(network: Network) -> None:
    stored = await Stored.make(network, periods=9, nodes=3)
    price = (await stored.client.ledger.deal(stored.deal)).deal.price
    assert 4 * price < 11_000 < 8 * price
    await stored.end()
    for provider in network.providers:
        amounts = [
            event.attributes["amount"] for event in network.seen("paid", provider=provider.home.account)
        ]
        assert amounts == [8 * price, price]


async def test_pay_of_very_many_shards_is_collected_a_few_at_a_time(network: Network) -> None:
    """They are due at once: each had a task of 2 kB and asked the ledger at the same time."""
    (node,) = await network.add_providers(1)
    runner = node.node.runner
    assert not runner._tasks
    runner._run([Settle(ShardKey(CID.of(b"%d" % number), 0)) for number in range(100)])
    assert len(runner._tasks) == MAX_SETTLING
    runner._run([])
    assert len(runner._tasks) == MAX_SETTLING
    await network.until(lambda: not runner._tasks, "all shards looked at")
    assert not runner._to_settle
