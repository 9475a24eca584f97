"""A node joins a chain that goes on from another one: it has no first state, and gets one by state sync."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from ledger.engine.assemble import load_application
from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.abci.messages import ApplySnapshotChunkResult as Applied
from ledger.engine.cometbft.abci.messages import OfferSnapshotResult as Offered
from ledger.engine.cometbft.engine import CometEngine
from ledger.engine.cometbft.errors import Disagreement
from ledger.engine.cometbft.sync.snapshots import FORMAT, SHOWN_AFTER_BLOCKS, SnapshotServer
from ledger.engine.cometbft.waiting import load_or_wait
from ledger.engine.snapshots import Snapshots
from ledger.engine.storage import LedgerStorage
from ledger.errors import InvalidGenesis
from tests.ledger.cometbft.lone import NoMempool, init_chain
from tests.ledger.cometbft.test_carried import validator
from tests.ledger.engine.test_rpc import Http, served
from tests.ledger.test_carry import Moved
from tests.ledger.world import World, key


@pytest.fixture(scope="module")
def world() -> Moved:
    """A chain that goes on from an embedded one, three blocks later."""
    old = World()
    old.fund("client", "other")
    new = Moved(old, (validator("steward", 10),))
    for _ in range(3):
        new.block(step=1)
    return new


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[LedgerStorage, LedgerStorage]]:
    """A store with a snapshot of that chain's, and an empty one: in this order."""
    with ExitStack() as opened:
        made = LedgerStorage(tmp_path / "server"), LedgerStorage(tmp_path / "fresh")
        for storage in made:
            storage.open()
            opened.callback(storage.close)
        yield made


async def test_it_waits_for_a_state_and_begins_with_no_other(
    tmp_path: Path, world: Moved, stores: tuple[LedgerStorage, LedgerStorage]
) -> None:
    genesis, app = world.genesis, world.app
    source, storage = stores
    # Given a chain whose first state its genesis does not have
    with pytest.raises(InvalidGenesis, match="goes on from another"):
        load_application(storage, genesis)
    source.restore(genesis.encode(), app.items(), app.height, b"block", b"name", app.app_hash)
    snapshots = Snapshots(source, genesis.chain_id, 1)
    write = snapshots.begin()
    assert write is not None
    write()
    server = SnapshotServer(snapshots)
    [offer] = server.offers(app.height + SHOWN_AFTER_BLOCKS)
    # when a node of it starts with an empty store
    engine = CometEngine(
        load_or_wait(storage, genesis), storage, {}, NoMempool(), f"unix://{tmp_path}/abci.sock"
    )
    await engine.start()
    try:
        # then it says that it is nowhere yet, and nobody has anything there; and no block is run from there
        async with served(engine) as url, aiohttp.ClientSession() as session:
            http = Http(url, session)
            assert (await http.get("/v1/status"))["height"] == 0
            assert await http.get("/v1/genesis") == genesis.to_json()
        assert engine.app.account(key("client")).balance == 0
        with pytest.raises(Disagreement, match="join it by state sync"):
            await engine.init_chain(init_chain(genesis))
        assert storage.genesis() is None
        # and with the state that the validators signed it goes on
        offered = messages.Snapshot(
            height=offer.height, format=FORMAT, chunks=offer.chunks, hash=offer.hash, metadata=offer.metadata
        )
        for app_hash, verdict in ((bytes(32), Offered.REJECT_SENDER), (app.app_hash, Offered.ACCEPT)):
            asked = messages.RequestOfferSnapshot(snapshot=offered, app_hash=app_hash)
            assert (await engine.offer_snapshot(asked)).result == verdict
        for index in range(offer.chunks):
            chunk = server.chunk(offer.height, index)
            applied = messages.RequestApplySnapshotChunk(index=index, chunk=chunk, sender="peer")
            assert (await engine.apply_snapshot_chunk(applied)).result == Applied.ACCEPT
        assert dict(engine.app.items()) == dict(app.items())
        info = await engine.info(messages.RequestInfo())
        assert (info.last_block_height, info.last_block_app_hash) == (app.height, app.app_hash)
    finally:
        await engine.stop()
    again = load_or_wait(storage, genesis)
    assert (again.height, again.app_hash) == (app.height, app.app_hash)
