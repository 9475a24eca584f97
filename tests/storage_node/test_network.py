"""Everything together: content is paid for, proven, lost, repaired and read, on a real ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerUnreachable
from ledger.engine.sender import Sender
from ledger.genesis import HOLD
from ledger.records import DealStatus, ShardStatus
from ledger.transactions import Ask, CreateDeal
from merkledag.cid import CID
from merkledag.steps import adrive_walk
from merkledag.traverse import walk_dag
from storage_node import commitments as commitments_module
from storage_node import piece_file
from storage_node.blockstore import lmdb_file
from storage_node.blockstore.environment import is_open_here
from storage_node.blockstore.interface import BlockClass
from storage_node.duties import ShardKey
from storage_node.errors import BlockNotFound, PlacementFailed, UploadRefused
from storage_node.fetch import NetworkFetcher
from storage_node.gc import collect
from storage_node.meta import Meta
from storage_node.piece_file import blocks_of_pieces
from storage_node.pins import Pins
from storage_node.storing import LEDGER_PATIENCE_S, PROBE_S
from storage_node.wire import ShardPhase
from tests.storage_node.content import add_files, some_bytes
from tests.storage_node.network import (
    CHAIN,
    PARAMS,
    Home,
    Ledger,
    Network,
    Provider,
    a_network,
    let_go,
)

FILES = {"a": some_bytes(150_000), "b": some_bytes(20_000, 2), "c": b"tiny", "d": b""}


@pytest.fixture
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    # Five participants a test with a terabyte of address space a file would use up all there is.
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path) as made:
        yield made


async def a_client(network: Network, name: str = "client") -> Home:
    home = network.home(name)
    await network.fund(home.account)
    return home


async def stored(
    network: Network, home: Home, content: CID, periods: int = 3, code: tuple[int, int] | None = None
) -> CID:
    """The deal, every shard of it accepted."""
    with await network.plan(home, content, periods, code=code) as plan:
        return (await network.execute(home, plan)).deal


async def readable(fetcher: NetworkFetcher, home: Home, content: CID) -> bool:
    """Whether every block of the content can be had, as it was."""
    try:
        async for block in adrive_walk(walk_dag(content), lambda want: fetcher.fetch(want.cid)):
            assert block.data == home.store.get(block.cid.multihash)
    except BlockNotFound:
        return False
    return True


async def money_adds_up(network: Network) -> bool:
    status = await network.status()
    parts = sum(status[name] for name in ("balances", "escrow", "collateral", "burned"))
    return bool(parts == status["issued"])


async def test_content_is_stored_proven_and_paid_for(network: Network) -> None:
    await network.add_providers(4)
    client = await a_client(network)
    content = add_files(client.store, FILES)
    before = set(client.store.keys())
    with await network.plan(client, content, periods=3) as plan:
        assert (plan.manifest.k, plan.manifest.m) == (2, 3)
        quoted = plan.quote.total
        balance = (await client.ledger.account(client.account)).balance
        result = await network.execute(client, plan)
        assert balance - (await client.ledger.account(client.account)).balance == quoted
    assert not result.existing
    # The client keeps its content; the parity is the nodes' business.
    assert set(client.store.keys()) >= before
    assert not set(client.store.keys()) & set(plan.parity)
    assert await readable(network.fetcher(client), client, content)

    await network.steps_until(lambda: bool(network.seen("deal_ended")), "the deal's end")
    view = await client.ledger.deal(result.deal)
    assert view.deal.status is DealStatus.ENDED
    assert {shard.status for shard in view.shards} == {ShardStatus.ENDED}
    assert [shard.paid for shard in view.shards] == [3 * plan.quote.price] * 3
    assert not network.seen("fault")
    assert len(network.seen("proof_accepted")) == 9
    assert await money_adds_up(network)
    for provider in network.providers:
        await network.until(lambda p=provider: not p.node.custody.held(), "released pieces")  # type: ignore[misc]


async def test_a_node_that_lost_its_blocks_is_faulted_terminated_and_repaired(network: Network) -> None:
    await network.add_providers(4)
    client = await a_client(network)
    content = add_files(client.store, FILES)
    deal = await stored(network, client, content, periods=12)
    view = await client.ledger.deal(deal)
    victim = network.provider(view.shards[0].provider)
    await network.steps_until(lambda: bool(network.seen("proof_accepted")), "a first proof")
    victim.lose_blocks()
    key = ShardKey(deal, 0)
    await network.steps_until(
        lambda: bool(network.seen("shard_terminated", deal=deal, shard=0)), "termination"
    )
    faults = network.seen("fault")
    assert {fault.attributes["provider"] for fault in faults} == {victim.home.account}
    assert len(faults) == PARAMS.terminate_after

    await network.steps_until(
        lambda: len(network.seen("shard_accepted", deal=deal, shard=0)) == 2, "the repair's acceptance"
    )
    spare = network.provider((await client.ledger.deal(deal)).shards[0].provider)
    assert spare is not victim
    held = spare.node.custody.piece(key)
    assert held is not None
    assert all(spare.home.store.has(multihash) for multihash in held.multihashes())
    await network.steps_until(
        lambda: bool(network.seen("proof_accepted", provider=spare.home.account)), "proof of the spare"
    )
    await network.steps_until(lambda: bool(network.seen("deal_ended")), "the deal's end")
    rewards = [event.attributes["reward"] for event in network.seen("paid", provider=spare.home.account)]
    assert sum(int(str(reward)) for reward in rewards) > 0
    assert await money_adds_up(network)


async def test_with_one_node_gone_everything_can_still_be_read(network: Network) -> None:
    await network.add_providers(4)
    client = await a_client(network)
    content = add_files(client.store, FILES)
    deal = await stored(network, client, content)
    for shard in (await client.ledger.deal(deal)).shards[:1]:
        await network.provider(shard.provider).stop()
    assert await readable(network.fetcher(client), client, content)


async def test_a_node_with_damaged_disk_heals_itself_from_its_siblings(network: Network) -> None:
    await network.add_providers(4, heal=True)
    client = await a_client(network)
    deal = await stored(network, client, add_files(client.store, FILES), periods=2)
    victim = network.provider((await client.ledger.deal(deal)).shards[0].provider)
    victim.lose_blocks()
    network.honest.add(victim.home.account)
    await network.steps_until(lambda: bool(network.seen("deal_ended")), "the deal's end")
    assert not network.seen("fault")
    assert victim.node.runner.tally.proofs == 2


async def test_nodes_whose_piece_files_are_gone_or_damaged_make_them_anew(network: Network) -> None:
    """From their own blocks, though they may not fetch: one after a restart, the others in the window."""
    await network.add_providers(3)
    client = await a_client(network)
    deal = await stored(network, client, add_files(client.store, FILES), periods=2)
    first, *others = [network.provider(each.provider) for each in (await client.ledger.deal(deal)).shards]
    await first.node.stop()
    for path in (first.home.folder / "pieces").iterdir():
        path.unlink()
    first.home.rows.forget(first.home.store.keys())
    await first.node.start()
    for node in others:
        for path in (node.home.folder / "pieces").iterdir():
            whole = path.read_bytes()
            path.write_bytes(whole[:600] + bytes(len(whole) - 600))
    await network.steps_until(lambda: bool(network.seen("deal_ended")), "the deal's end")
    assert not network.seen("fault")
    assert [node.node.runner.tally.proofs for node in (first, *others)] == [2] * (1 + len(others))


async def test_a_damaged_piece_file_is_made_anew_once_and_listed_until_then(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window, a spot challenge and an inspection may miss it at once. What is not ours is let go of."""
    (node,) = await network.add_providers(1)
    client = await a_client(network)
    deal = await stored(network, client, add_files(client.store, FILES), code=(1, 1))
    await node.stop()
    (path,) = (node.home.folder / "pieces").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    ended = path.with_name(piece_file.file_name(CID.of(b"ended"), 0))
    ended.write_bytes(whole[:50])
    older = path.with_name(piece_file.file_name(CID.of(b"of an older release"), 0))
    older.write_bytes(b"HFPIECE1" + whole[8:])
    (path.parent / "killed.1.tmp").touch()
    await node.start()
    made: list[int] = []

    def save(folder: Path, piece: piece_file.PieceFile) -> piece_file.PieceHead:
        made.append(piece.shard)
        return written(folder, piece)

    written = piece_file.save
    monkeypatch.setattr(piece_file, "save", save)
    recover = node.node._acceptance.recover
    assert len(node.node.admin_status()["damaged_piece_files"]) == 2
    await asyncio.gather(*(recover(ShardKey(deal, 0), fetch=False) for _ in range(4)))
    assert made == [0]
    assert path.read_bytes() == whole
    (left,) = node.node.admin_status()["damaged_piece_files"]
    assert "another release" in left
    assert set(path.parent.iterdir()) == {path, older}


async def test_client_and_node_may_share_one_store_and_its_garbage_collection(network: Network) -> None:
    client = await a_client(network)
    own = Provider(network, client)
    await own.start()
    network.stack.push_async_callback(own.stop)
    network.providers.append(own)
    await network.add_providers(2)
    content = add_files(client.store, FILES)
    junk = client.store.put_many([(CID.of(b"junk").multihash, b"junk")])
    assert junk.new == 1
    deal = await stored(network, client, content, periods=2, code=(2, 3))
    pins = Pins(Meta(client.folder / "pins"), network.clock)
    collect(client.store, pins, deals=blocks_of_pieces(client.folder / "pieces"))
    assert not client.store.has(CID.of(b"junk").multihash)
    (held,) = own.node.custody.held().values()
    assert held.deal == deal
    kept = [client.store.row(multihash) for multihash in held.multihashes()]
    assert {row.block_class for row in kept if row is not None} == {BlockClass.DEAL}
    assert None not in kept
    await network.steps_until(lambda: bool(network.seen("deal_ended")), "the deal's end")
    assert not network.seen("fault")
    await network.until(lambda: not own.node.custody.held(), "the released piece")
    collect(client.store, pins, deals=blocks_of_pieces(client.folder / "pieces"))
    assert list(client.store.keys()) == []


async def test_a_restarted_node_goes_on_without_hashing_anything_again(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    await network.add_providers(3)
    client = await a_client(network)
    deal = await stored(network, client, add_files(client.store, FILES), periods=4)
    await network.steps_until(lambda: bool(network.seen("proof_accepted")), "a first proof")
    node = network.provider((await client.ledger.deal(deal)).shards[0].provider)
    await node.stop()

    def no_hashing(*_: object) -> None:
        raise AssertionError("a restarted node computed proof rows anew")

    monkeypatch.setattr(commitments_module.Commitments, "put_many", no_hashing)
    await node.start()
    await network.steps_until(lambda: bool(network.seen("deal_ended")), "the deal's end")
    assert not network.seen("fault")


async def test_an_interrupted_store_goes_on_with_the_same_deal(network: Network) -> None:
    await network.add_providers(3)
    client = await a_client(network)
    content = add_files(client.store, FILES)
    with await network.plan(client, content) as plan:
        run = asyncio.create_task(network.execute(client, plan))
        await network.until(lambda: bool(network.seen("deal_created")), "the deal")
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    with await network.plan(client, content) as plan:
        result = await network.execute(client, plan)
    assert result.existing
    assert len(network.seen("deal_created")) == 1
    again = await network.plan(client, content)
    with again:
        assert (await network.execute(client, again)).deal == result.deal


async def test_a_shard_that_a_dead_node_was_drawn_for_goes_to_another(network: Network) -> None:
    # The draw weighs by stake: a dead one is all but sure to be drawn first.
    providers = [*await network.add_providers(2, stake=900 * HOLD), *await network.add_providers(2)]
    for dead in providers[:2]:
        await dead.stop()
    client = await a_client(network)
    content = add_files(client.store, FILES)
    with await network.plan(client, content, code=(1, 2)) as plan:
        run = asyncio.create_task(network.execute(client, plan))
        alive = {provider.home.account for provider in providers[2:]}
        while not run.done():
            # Time passes only while the living have nothing to do.
            await network.until(lambda: run.done() or not network.waiting_for() & alive, "uploads")
            if not run.done():
                await network.step()
        result = await run
    holders = {shard.provider for shard in (await client.ledger.deal(result.deal)).shards}
    assert holders == {provider.home.account for provider in providers[2:]}
    assert network.seen("offer_expired")


async def test_client_and_owner_are_told_that_a_node_is_full(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    (full,) = await network.add_providers(1)
    before = full.home.store.stat()
    monkeypatch.setattr(full.home.store, "stat", lambda: before._replace(disk_free_bytes=0))
    client = await a_client(network)
    content = add_files(client.store, {"x": b"something"})
    told: list[tuple[int, str]] = []
    async with asyncio.timeout(30):
        with await network.plan(client, content, code=(1, 1)) as plan:
            run = asyncio.create_task(network.execute(client, plan, lambda *each: told.append(each)))
            await network.steps_until(run.done, "the end of the offers")
            with pytest.raises(PlacementFailed):
                await run
    assert ["disk has no room" in why for shard, why in told if shard == 0].count(True) == 1
    assert "disk has no room" in full.node.runner.tally.last_problem


async def test_a_named_node_that_never_answers_gives_the_money_back(network: Network) -> None:
    (dead,) = await network.add_providers(1)
    await dead.stop()
    client = await a_client(network)
    content = add_files(client.store, {"x": b"something"})
    with await network.plan(client, content, code=(1, 1), named=(dead.home.account,)) as plan:
        run = asyncio.create_task(network.execute(client, plan))
        await network.steps_until(run.done, "the refusal")
        with pytest.raises(PlacementFailed, match="no node took shard 0"):
            await run
    paid = 1_000 * HOLD - (await client.ledger.account(client.account)).balance
    assert paid == plan.quote.fee


@pytest.mark.parametrize(
    "ask",
    [
        Ask(10**15, 0, 2**63 - 1, open=True),
        Ask(0, 0, 1_000, open=True),
        Ask(0, 10**9, 2**63 - 1, open=True),
        Ask(0, 0, 2**63 - 1, open=False),
    ],
    ids=["dear", "too large", "too small", "closed"],
)
async def test_a_node_takes_nothing_that_it_does_not_ask_for_even_if_named(
    network: Network, ask: Ask
) -> None:
    (node,) = await network.add_providers(1)
    client = await a_client(network)
    content = add_files(client.store, FILES)
    with await network.plan(client, content, code=(1, 1), named=(node.home.account,)) as plan:
        deal = CreateDeal(
            content=content,
            manifest=plan.manifest_root,
            k=1,
            m=1,
            replicated=plan.manifest.replicated,
            periods=3,
            price=plan.quote.price,
            challenges=plan.challenges,
            pieces=plan.pieces,
            providers=plan.request.named,
        )
        key = ShardKey((await client.sender.send(deal)).tx_id, 0)
        # The ledger looked at what the node asked then; this is for the node itself to see.
        await node.home.sender.send(ask)
        visitor = network.pool().client(node.node.settings.endpoint)
        with pytest.raises(UploadRefused, match="does not take"):
            await visitor.shard_state(key.deal, key.shard)
        await node.node.register()  # asks as before
        assert (await visitor.shard_state(key.deal, key.shard)).phase is ShardPhase.MANIFEST
        assert (await network.execute(client, plan)).deal == key.deal
        # What it has accepted stays accepted, whatever it asks from now on.
        await node.home.sender.send(ask)
        assert (await visitor.shard_state(key.deal, key.shard)).phase is ShardPhase.HELD


async def test_the_ledger_may_go_away_for_a_while(network: Network) -> None:
    await network.add_providers(3)
    client = await a_client(network)
    await stored(network, client, add_files(client.store, FILES), periods=3)
    await network.steps_until(lambda: bool(network.seen("proof_accepted")), "a first proof")
    await network.restart_ledger()
    await network.steps_until(lambda: bool(network.seen("deal_ended")), "the deal's end")
    assert not network.seen("fault")


async def test_a_node_says_that_another_chain_runs_where_its_ledger_did(network: Network) -> None:
    home = network.home("node")
    home.ledger = LedgerClient(network.ledger.url, network.session, CHAIN, sleep=network.clock.sleep)
    home.sender = Sender(home.ledger, home.signer)
    await network.fund(home.account)
    provider = Provider(network, home)
    await provider.start()
    network.stack.push_async_callback(provider.stop)
    runner = provider.node.runner
    await network.ledger.stop()
    other = Ledger(network.folder / "other", network.clock, PARAMS, chain="another", port=network.ledger.port)
    await other.start()
    await network.pass_time_until(lambda: not runner.caught_up.is_set(), "the node sees the other chain")
    assert f"runs chain another, not {CHAIN}" in runner.tally.last_problem
    assert "`holdfast ledger join URL --replace` here; then start the node anew" in runner.tally.last_problem
    await other.stop()
    await network.ledger.start()
    await network.pass_time_until(runner.caught_up.is_set, "the node follows its own chain again")


async def test_a_store_ends_when_the_ledger_stays_away_and_goes_on_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path, replace(PARAMS, accept_timeout_s=100_000)) as network:
        (node,) = await network.add_providers(1)
        client = await a_client(network)
        content = add_files(client.store, FILES)
        with await network.plan(client, content, code=(1, 1)) as plan:
            await node.stop()
            run = asyncio.create_task(network.execute(client, plan))
            await network.until(lambda: bool(network.seen("shard_assigned")), "an offer")
            await network.ledger.stop()
            began_s = network.clock()
            await network.pass_time_until(run.done, "the store's end")
            with pytest.raises(LedgerUnreachable, match="store the same again"):
                await run
            assert LEDGER_PATIENCE_S - PROBE_S <= network.clock() - began_s <= 2 * LEDGER_PATIENCE_S
            await network.ledger.start()
            await node.start()
            result = await network.execute(client, plan)
    assert result.existing
    assert len(network.seen("deal_created")) == 1


async def test_a_store_outlives_a_ledger_that_is_often_away_for_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path, replace(PARAMS, accept_timeout_s=100_000)) as network:
        (node,) = await network.add_providers(1)
        client = await a_client(network)
        content = add_files(client.store, FILES)
        with await network.plan(client, content, code=(1, 1)) as plan:
            await node.stop()
            run = asyncio.create_task(network.execute(client, plan))
            await network.until(lambda: bool(network.seen("shard_assigned")), "an offer")
            for _ in range(3):
                await network.ledger.stop()
                await network.pass_time(LEDGER_PATIENCE_S / 2)
                await network.ledger.start()
                await network.pass_time(4 * PROBE_S)
                assert not run.done()
            await node.start()
            await network.pass_time_until(run.done, "the acceptance")
            assert not (await run).existing


async def test_too_few_nodes_are_told_before_anything_is_paid(network: Network) -> None:
    await network.add_providers(1)
    client = await a_client(network)
    content = add_files(client.store, FILES)
    with pytest.raises(PlacementFailed, match="are needed"):
        await network.plan(client, content, code=(2, 3))
    with pytest.raises(PlacementFailed, match="too low"):
        await network.plan(client, content, code=(1, 1), max_price=1)


async def test_a_network_that_ended_keeps_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)

    def open_here() -> list[str]:
        files = {file.with_name(file.name.split(".")[0]) for file in tmp_path.glob("node*/**/*.mdb")}
        assert files
        return [str(file) for file in files if is_open_here(file)]

    async def serve_once() -> None:
        async with a_network(tmp_path) as network:
            (provider,) = await network.add_providers(1)
            async with network.session.get(f"{provider.node.settings.endpoint}/v1/status") as answer:
                assert answer.status == 200
            assert open_here()

    await serve_once()
    let_go()
    assert not open_here()
