"""Deals that are proven by KZG, on a real ledger: paid, faulted, repaired, handed over; lies are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.records import DealStatus, ShardStatus
from ledger.transactions import HandOver, Renew, Spot
from merkledag.cid import CID
from proofs.kinds import ProofKind
from proofs.kzg.blob_commitments import BlobCommitments
from storage_node import placement
from storage_node.blockstore import lmdb_file
from storage_node.deal_check import check_deal, kzg_commit, merkle_commit
from storage_node.duties import ShardKey
from storage_node.errors import PlacementFailed, UploadRefused
from storage_node.kzg_commitments import KzgCommitments
from storage_node.meta import Meta, Table
from storage_node.piece import piece_tree
from storage_node.placement import StorePlan, commit_plan, draft_store
from storage_node.source import LocalSource
from tests.storage_node.content import add_files, some_bytes
from tests.storage_node.kzg_workers import SETUP, Threads
from tests.storage_node.network import PARAMS, Home, Network, a_network

FILES = {"a": some_bytes(9_000), "b": some_bytes(1_000, 2)}


@pytest.fixture
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path) as made:
        yield made


async def a_client(network: Network) -> tuple[Home, CID]:
    client = network.home("client")
    await network.fund(client.account)
    return client, add_files(client.store, FILES)


async def stored(network: Network, client: Home, content: CID, periods: int, copies: int = 2) -> CID:
    """A deal over whole copies, every one of them accepted and some proven."""
    with await network.plan(client, content, periods, code=(1, copies), proof=ProofKind.KZG) as plan:
        deal = (await network.execute(client, plan)).deal
    await network.steps_until(lambda: len(network.seen("proof_accepted")) >= 2, "the first proofs")
    return deal


async def test_a_deal_is_paid_renewed_and_checked_and_is_a_dataset_of_its_own(network: Network) -> None:
    await network.add_providers(1)
    client, content = await a_client(network)
    with await network.plan(client, content, 3, code=(1, 1)) as plan:
        other = (await network.execute(client, plan)).deal
    deal = await stored(network, client, content, 2, copies=1)
    assert deal != other
    view = await client.ledger.deal(deal)
    assert view.deal.proof is ProofKind.KZG
    get = LocalSource(client.store).get
    assert (await check_deal(view, get, kzg_commit(client.kzg.committer), lambda *_: None)).is_sound
    assert not (await check_deal(view, get, merkle_commit, lambda *_: None)).is_sound
    await client.sender.send(Renew(deal, 1))
    key = ShardKey(deal, 0)
    node = network.provider(view.shards[0].provider)
    piece = node.node.custody.held()[key]
    assert (piece.proof, piece.data.sum) == (ProofKind.KZG, view.shards[0].piece.data_leaves)
    assert view.shards[0].piece.data_leaves == 4  # three blocks of one file and one of another
    assert node.node.admin_status()["shards"] == [
        {"deal": str(each.deal), "shard": each.shard, "proof": "kzg" if each.deal == deal else "merkle"}
        for each in node.node.custody.held()
    ]
    await client.sender.send(Spot(*key))
    await network.steps_until(lambda: bool(network.seen("spot_answered", deal=deal)), "the answer")
    await network.steps_until(lambda: len(network.seen("deal_ended")) == 2, "the end of both")
    view = await client.ledger.deal(deal)
    assert view.deal.status is DealStatus.ENDED
    assert [shard.paid for shard in view.shards] == [3 * view.deal.price]
    assert not network.seen("fault")
    assert {event.attributes["dataset"] for event in network.seen("proof_accepted")} == {
        event.attributes["dataset"] for event in network.seen("shard_accepted")
    }
    assert len(network.seen("proof_accepted")) == 2 * 3


async def test_a_node_that_lost_one_blob_faults_and_a_third_one_repairs_and_proves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path, replace(PARAMS, terminate_after=1)) as network:
        await lose_a_blob(network)


async def lose_a_blob(network: Network) -> None:
    nodes = await network.add_providers(3)
    client, content = await a_client(network)
    deal = await stored(network, client, content, 14)
    victim = network.provider((await client.ledger.deal(deal)).shards[0].provider)
    (spare,) = [node for node in nodes if not node.node.custody.held()]
    lost = next(iter(victim.node.custody.held()[ShardKey(deal, 0)].open().data.rows))
    victim.home.store.delete_many([lost.multihash])  # its commitment it still has
    assert victim.home.kzg.kept.get(lost.multihash) is not None
    network.honest.discard(victim.home.account)
    await network.steps_until(lambda: bool(network.seen("shard_terminated", shard=0)), "termination")
    assert len(network.seen("fault", provider=victim.home.account)) == 1
    await network.steps_until(
        lambda: bool(network.seen("proof_accepted", provider=spare.home.account)),
        "a proof of who repaired it",
    )
    assert spare.home.kzg.kept.get(lost.multihash) == client.kzg.kept.get(lost.multihash)
    assert {fault.attributes["provider"] for fault in network.seen("fault")} == {victim.home.account}


async def test_a_shard_is_handed_over_and_a_damaged_block_healed_without_a_fault(network: Network) -> None:
    nodes = await network.add_providers(3, heal=True)
    client, content = await a_client(network)
    deal = await stored(network, client, content, 8)
    old = network.provider((await client.ledger.deal(deal)).shards[0].provider)
    (spare,) = [node for node in nodes if not node.node.custody.held()]
    await old.home.sender.send(HandOver(deal, 0))
    await network.steps_until(lambda: bool(network.seen("shard_handed_over", shard=0)), "the handover")
    # Who took it over loses what it made, and one block changes on its disk.
    row = next(iter(spare.node.custody.held()[ShardKey(deal, 0)].open().data.rows))
    meta = Meta(spare.home.folder / "meta")
    for name, _ in list(meta.items(Table.KZG_COMMITMENTS)):
        meta.delete(Table.KZG_COMMITMENTS, name)
    spare.home.store.delete_many([row.multihash])
    spare.home.store.put_many([(row.multihash, bytes(row.leaves))])
    before = len(network.seen("proof_accepted", provider=spare.home.account))
    await network.steps_until(
        lambda: len(network.seen("proof_accepted", provider=spare.home.account)) > before, "a proof after all"
    )
    assert spare.home.store.get(row.multihash) == client.store.get(row.multihash)
    assert KzgCommitments(meta).get(row.multihash) == client.kzg.kept.get(row.multihash)
    assert not network.seen("fault")


async def lie(client: Home, plan: StorePlan) -> None:
    """Commit to other bytes in place of one block's, as long as it, and as many blobs."""
    wrong = plan.layout(0).data[0]
    data = bytearray(client.store.get(wrong))
    data[-1] ^= 1
    made = await client.kzg.committer.commit(bytes(data), client.kzg.committer.slots())

    def row(name: bytes) -> BlobCommitments:
        return made if name == wrong else client.kzg.row(name)

    tree = piece_tree(plan.layout(0).data, row, ProofKind.KZG)
    plan.pieces = tuple(replace(piece, data_root=tree.root.hash) for piece in plan.pieces)


async def test_a_wrong_commitment_is_refused_before_acceptance_and_by_whoever_verifies(
    network: Network,
) -> None:
    """Red team, line 7."""
    (node,) = await network.add_providers(1)
    client, content = await a_client(network)
    with await network.plan(client, content, code=(1, 1), proof=ProofKind.KZG) as plan:
        await lie(client, plan)
        run = asyncio.create_task(network.execute(client, plan))
        problem = "does not have the commitment"
        await network.until(lambda: problem in node.node.runner.tally.last_problem, "the refusal")
        (created,) = network.seen("deal_created")
        deal = created.attributes["deal"]
        assert isinstance(deal, CID)
        # What was made for it is kept, so that asking again costs the node no more commitments.
        assert node.home.kzg.kept.get(plan.layout(0).data[0]) is not None
        check = await check_deal(
            await client.ledger.deal(deal),
            LocalSource(client.store).get,
            kzg_commit(client.kzg.committer),
            lambda *_: None,
        )
        assert [shard for shard, _ in check.problems] == [0]
        assert "data is committed to other bytes" in check.problems[0][1]
        await network.steps_until(run.done, "the end of the offers")
        with pytest.raises(PlacementFailed):
            await run
    assert not network.seen("shard_accepted")
    assert not node.node.custody.held()
    assert (await client.ledger.deal(deal)).shards[0].status is ShardStatus.REFUNDED


async def test_a_node_that_stops_while_it_prepares_goes_on_when_it_is_back(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node,) = await network.add_providers(1)
    client, content = await a_client(network)
    made = node.home.kzg.prepare

    async def stops(*_: object) -> None:
        await asyncio.Event().wait()

    with await network.plan(client, content, code=(1, 1), proof=ProofKind.KZG) as plan:
        monkeypatch.setattr(node.home.kzg, "prepare", stops)
        run = asyncio.create_task(network.execute(client, plan))
        waiting = node.node.runner.duties.offered
        await network.until(lambda: bool(waiting), "the offer")
        key = next(iter(waiting))
        acceptance = node.node._acceptance
        await network.until(lambda: key in acceptance._preparing, "the piece to be prepared")
        await node.stop()
        assert not acceptance._preparing
        monkeypatch.setattr(node.home.kzg, "prepare", made)
        await node.start()
        await network.until(lambda: bool(network.seen("shard_accepted")), "acceptance")
        await network.steps_until(run.done, "the end of the store")
        assert (await run).shards == 1


async def test_who_takes_a_shard_over_goes_on_when_its_workers_are_killed(network: Network) -> None:
    """No client is there to ask again."""
    nodes = await network.add_providers(2)
    client, content = await a_client(network)
    deal = await stored(network, client, content, 8, copies=1)
    (spare,) = [node for node in nodes if not node.node.custody.held()]
    kills = [BrokenExecutor(), BrokenExecutor()]

    def kill() -> None:
        if kills:
            raise kills.pop()

    threads = spare.home.kzg.committer._workers
    assert isinstance(threads, Threads)
    threads.on_run = kill
    (old,) = [node for node in nodes if node is not spare]
    await old.home.sender.send(HandOver(deal, 0))
    await network.until(lambda: not kills, "the kill")
    await network.pass_time(8)
    await network.until(lambda: bool(spare.node.custody.held()), "the piece")
    await network.steps_until(lambda: bool(network.seen("shard_handed_over")), "the handover")


async def test_an_error_of_the_disk_costs_no_window_if_it_passes(network: Network, tmp_path: Path) -> None:
    (node,) = await network.add_providers(1)
    client, content = await a_client(network)
    with await network.plan(client, content, 3, code=(1, 1), proof=ProofKind.KZG) as plan:
        await network.execute(client, plan)
    setup = tmp_path / "setup.bin"
    node.home.kzg.committer._setup = str(setup)  # lost, as when the program is installed anew
    network.honest.discard(node.home.account)
    told = node.node.runner.tally
    await network.steps_until(lambda: bool(network.seen("window_opened")), "the window")
    await network.until(lambda: setup.name in told.last_problem, "the failure")
    setup.write_bytes(SETUP.read_bytes())
    await network.pass_time(2)
    await network.until(lambda: bool(network.seen("proof_accepted")), "a proof")
    assert not network.seen("fault")


async def test_nothing_is_prepared_for_an_offer_that_is_gone(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node,) = await network.add_providers(1)
    client, content = await a_client(network)

    async def stops(*_: object) -> None:
        await asyncio.Event().wait()

    with await network.plan(client, content, code=(1, 1), proof=ProofKind.KZG) as plan:
        monkeypatch.setattr(node.home.kzg, "prepare", stops)
        run = asyncio.create_task(network.execute(client, plan))
        acceptance = node.node._acceptance
        await network.until(lambda: bool(acceptance._preparing), "the piece to be prepared")
        await network.steps_until(lambda: bool(network.seen("offer_expired")), "the offer's end")
        await network.until(lambda: not acceptance._preparing, "the end of the preparation")
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert "not ours any more" in node.node.runner.tally.last_problem


async def test_a_node_without_what_it_takes_refuses_before_anything_is_sent(network: Network) -> None:
    (node,) = await network.add_providers(1)
    client, content = await a_client(network)
    node.node.custody._kzg = None
    with await network.plan(client, content, code=(1, 1), proof=ProofKind.KZG) as plan:
        deal = (await client.sender.send(plan.body)).tx_id
        await network.until(lambda: bool(network.seen("shard_assigned")), "the offer")
        with pytest.raises(UploadRefused, match="kzg"):
            await network.pool().client(node.node.settings.endpoint).shard_state(deal, 0)


async def test_the_quote_is_known_before_anything_is_prepared_and_refuses_what_takes_too_long(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    await network.add_providers(1)
    client, content = await a_client(network)
    whole = await network.plan(client, content, code=(1, 1), proof=ProofKind.KZG)
    client.kzg = type(client.kzg)(
        client.store, KzgCommitments(Meta(client.folder / "new")), client.kzg.committer
    )
    draft = await draft_store(
        client.ledger, client.store, client.rows, whole.request, progress=lambda *_: None
    )
    with whole, draft:
        assert (draft.quote, draft.is_committed) == (whole.quote, False)
        assert [piece.data_leaves for piece in draft.pieces] == [piece.data_leaves for piece in whole.pieces]
        assert await client.kzg.missing(draft.blocks) == draft.units
        await commit_plan(draft, client.rows, client.kzg, progress=lambda *_: None)
        assert (draft.pieces, await client.kzg.missing(draft.blocks)) == (whole.pieces, 0)
    monkeypatch.setattr(placement, "BLOB_S", PARAMS.accept_timeout_s / (draft.units - 1))
    with pytest.raises(PlacementFailed, match="an offer stands for 30 s"):
        await network.plan(client, content, code=(1, 1), proof=ProofKind.KZG)
    with await network.plan(client, content, code=(1, 1)) as plan:
        assert plan.quote.shards == 1
