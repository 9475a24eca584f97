"""A node that joins a running chain by state sync, with the real `cometbft`, while the others prune."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger import snapshot
from ledger.engine import snapshots
from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.engine import CometEngine
from ledger.engine.cometbft.home.config import StateSync
from ledger.engine.cometbft.retention import Needs
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.pruning import Keep
from ledger.engine.storage import LedgerStorage
from ledger.engine.wal import Fault, no_fault
from ledger.genesis import Genesis
from ledger.snapshot import SnapshotManifest
from tests.ledger.cometbft.application import genesis, make_engine, open_storage, signer, transfer
from tests.ledger.cometbft.one import Validator
from tests.ledger.cometbft.processes import last_lines, until_answers

pytestmark = pytest.mark.peers

LIMIT_S = 150  # of a busy machine
SLOW_S = 60
COMMIT_MS = 80
SNAPSHOT_BLOCKS = 6
# As little as a chain can keep so that somebody who joins within some seconds is served.
KEEP = Keep(blocks_s=1)
NEEDS = Needs(trusting_s=3, evidence_s=1, evidence_blocks=1, lagging_blocks=1)


class Node:
    """A node of the chain: `cometbft` as a process, its application in the test's own."""

    def __init__(self, folder: Path, genesis: Genesis, number: int) -> None:
        self.place = Validator(folder, genesis, number)
        self.rpc = CometRpc(self.place.url)
        self.storage: LedgerStorage
        self.engine: CometEngine
        self.cometbft: asyncio.subprocess.Process

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Both halves, ended with the context."""
        async with self.application(), self.place.cometbft() as self.cometbft:
            yield

    @asynccontextmanager
    async def application(self, fault: Fault = no_fault) -> AsyncIterator[None]:
        """Our half alone."""
        self.storage = open_storage(self.place.folder, fault)
        async with AsyncExitStack() as ends:
            ends.callback(self.storage.abandon if fault is not no_fault else self.storage.close)
            ends.push_async_callback(self.rpc.close)
            self.engine = make_engine(
                self.place.folder,
                self.storage,
                self.place.genesis,
                self.rpc,
                keep=KEEP,
                needs=NEEDS,
                snapshot_blocks=SNAPSHOT_BLOCKS,
            )
            ends.push_async_callback(self.engine.stop)
            await self.engine.start()
            yield

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once something holds, which is looked at after each block."""
        told = self.engine.subscribe()
        while not condition():
            assert await told.next() is not None, last_lines(self.place.log)
        told.close()

    async def blocks(self, count: int) -> None:
        """Returns when so many more are committed."""
        goal = self.engine.app.height + count
        await self.until(lambda: self.engine.app.height >= goal)


async def test_a_node_joins_while_the_chain_lets_go_of_all_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 300)
    monkeypatch.setattr(snapshots, "MOST_KEPT", 1_000)  # however long a busy machine takes over a chunk
    chain = genesis(int(time.time()) - 1)
    validator, fresh = Node(tmp_path / "validator", chain, 0), Node(tmp_path / "fresh", chain, 1)
    validator.place.configure(commit_ms=COMMIT_MS)
    async with asyncio.timeout(LIMIT_S), validator.running():
        # Given a chain of which the first blocks are gone already
        await until_answers(validator.rpc, validator.cometbft, validator.place.log)
        await validator.engine.submit(transfer(0))
        while (await validator.rpc.status()).earliest_height == 1 or len(
            validator.engine.snapshots.heights()
        ) < 2:
            await validator.blocks(1)
        kept = snapshots.KEPT
        monkeypatch.setattr(snapshots, "KEPT", 1_000)  # CometBFT looks for some for as long as ten take
        # when another node begins with one of its snapshots,
        restored = await _killed_when_restored(fresh, validator)
        # is killed when its state is in place and CometBFT knows nothing of it, begins again with a trusted
        # block, and takes so long over a chunk that two newer snapshots are made,
        await _trust(fresh, validator)
        async with fresh.running():
            _be_slow(fresh, validator, lambda: monkeypatch.setattr(snapshots, "KEPT", kept))
            await until_answers(fresh.rpc, fresh.cometbft, fresh.place.log)
            await fresh.until(lambda: fresh.storage.pruned().blocks > restored)
            began = fresh.storage.pruned().blocks
            await validator.engine.submit(transfer(1))
            await fresh.blocks(SNAPSHOT_BLOCKS)
            # then it has the state of a block that was none of the first, and goes on with the others
            assert began >= restored > 1
            assert began in validator.engine.snapshots.heights()[:-2]
            tip = fresh.engine.history.block(fresh.engine.app.height)
            assert tip is not None
            await validator.until(lambda: validator.engine.app.height >= tip.height)
            assert tip == validator.engine.history.block(tip.height)
            assert fresh.engine.app.account(signer("alice").public_key).balance > 0
            fresh.storage.check_state()
            assert (await fresh.rpc.status()).earliest_height > began
            # and what it was served with is still there for others, with all blocks after it.
            assert (await validator.rpc.status()).earliest_height <= began
            await fresh.until(lambda: bool(fresh.engine.snapshots.heights()))


async def _trust(fresh: Node, other: Node) -> None:
    """Has a node that starts next begin with the newest block of another one, which keeps it."""
    trusted = await other.rpc.status()
    sync = StateSync((other.place.url,), trusted.height, trusted.block_hash.hex(), 3_600)
    fresh.place.configure(commit_ms=COMMIT_MS, peers=(other.place.peer,), sync=sync)


async def _killed_when_restored(node: Node, other: Node) -> int:
    """Gives a node another one's state as CometBFT does, until its application dies; the state's height."""

    class KilledError(Exception):
        pass

    def fault(at: str) -> None:
        if at == "replace.done":
            raise KilledError

    while not (shown := (await other.engine.list_snapshots(messages.RequestListSnapshots())).snapshots):
        await other.blocks(1)
    offered = shown[0]

    async def bring(index: int) -> None:
        asked = messages.RequestLoadSnapshotChunk(height=offered.height, format=offered.format, chunk=index)
        chunk = (await other.engine.load_snapshot_chunk(asked)).chunk
        given = messages.RequestApplySnapshotChunk(index=index, chunk=chunk, sender="peer")
        await node.engine.apply_snapshot_chunk(given)

    async with node.application(fault):
        app_hash = SnapshotManifest.decode(offered.metadata).app_hash
        await node.engine.offer_snapshot(messages.RequestOfferSnapshot(snapshot=offered, app_hash=app_hash))
        for index in range(offered.chunks - 1):
            await bring(index)
        with pytest.raises(KilledError):
            await bring(offered.chunks - 1)
    storage = node.place.storage()
    try:
        assert storage.height() == offered.height > 1
    finally:
        storage.close()
    return int(offered.height)


def _be_slow(node: Node, other: Node, begun: Callable[[], None]) -> None:
    """Has the node wait with a chunk until another one's newer snapshots would have replaced the one read."""
    quick = node.engine.apply_snapshot_chunk

    async def slow(request: Any) -> Any:
        if request.index == 1:
            begun()
            newest = other.engine.snapshots.newest()
            async with asyncio.timeout(SLOW_S):  # else nobody could end this engine
                await other.until(lambda: sum(at > newest for at in other.engine.snapshots.heights()) >= 2)
        return await quick(request)

    node.engine.apply_snapshot_chunk = slow  # type: ignore[method-assign]
