"""From an archive to a store: a history run again, block by block, or a state put there as it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from ledger.carry import carried_items, check_origin
from ledger.engine.archive import GivenBlock, check_link, check_operator
from ledger.engine.archive_reader import Contents
from ledger.engine.assemble import load_application, run_again
from ledger.engine.blocks import Block, node_cid
from ledger.engine.errors import InvalidArchive
from ledger.engine.storage import LedgerStorage
from ledger.engine.witness import Witness
from ledger.errors import InvalidTransaction
from ledger.genesis import Genesis
from ledger.transactions import decode_beacon
from merkledag.cid import CID

MAX_AHEAD_BLOCKS = 256  # whose beacons are verified together
MAX_AHEAD_BYTES = 16 << 20  # of blocks that wait to be run, and one block more


class Replay:
    """A chain run again from its genesis over `storage`, going on after the last block that is in it.

    With `keep_history` the store becomes that of the ledger; without, it has headers and state alone. Raises
    what `load_application` does.
    """

    def __init__(self, storage: LedgerStorage, genesis: Genesis, *, keep_history: bool) -> None:
        self.app = load_application(storage, genesis)
        self._storage = storage
        self._keep_history = keep_history
        raw = storage.block(self.app.height) if self.app.height else None
        self.tip: CID | None = None if raw is None else node_cid(raw)

    @property
    def height(self) -> int:
        """The last block that was run."""
        return self.app.height

    def look_ahead(self, following: Sequence[GivenBlock]) -> None:
        """Verifies the beacons of the blocks that `add` is given next together, in two fifths of the time.

        Judges nothing: a beacon that does not verify, or does not follow, is left to `add`.
        """
        operator = self.app.genesis.operator
        key = self.app.bls_key(operator)
        if key is None:
            return
        signatures = []
        for given in following:
            try:
                signatures.append(decode_beacon(given.txs[0]).beacon)
            except (IndexError, InvalidTransaction):
                break
        self.app.beacons.look_ahead(key, self.app.chain_id, self.height + 1, self.app.beacon, signatures)

    def add(self, given: GivenBlock) -> None:
        """Runs the next block and keeps it.

        Raises InvalidArchive when it is not the operator's or does not follow the last one, CorruptStore when
        it is not what was signed, ReplayMismatch when it does not lead to the app hash of its header.
        """
        block, height = given.block, self.app.height + 1
        check_link(given, self.app.genesis, self.tip)
        made = run_again(self.app, given.raw, given.txs, height, "of the history")
        stored = made.stored
        if not self._keep_history:
            stored = replace(stored, txs=(), events=b"", witness=Witness())
        self._storage.apply(stored)
        self.app.commit()
        if (self.app.time, self.app.beacon) != (block.time, block.beacon):
            raise InvalidArchive(f"block {height} states another time or beacon than it led to")
        self.tip = node_cid(given.raw)


async def in_batches(blocks: AsyncIterable[GivenBlock]) -> AsyncGenerator[list[GivenBlock], None]:
    """The blocks in lists that `Replay.look_ahead` takes; what came before an error comes before it."""
    batch: list[GivenBlock] = []
    size_bytes = 0
    try:
        async for given in blocks:
            batch.append(given)
            size_bytes += given.size_bytes
            if len(batch) == MAX_AHEAD_BLOCKS or size_bytes >= MAX_AHEAD_BYTES:
                yield batch
                batch, size_bytes = [], 0
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


Fresh = Callable[[], AbstractContextManager[Contents]]
"""Opens an archive's contents anew, from their beginning."""


def restore_state(
    storage: LedgerStorage, genesis: Genesis, block: Block, items: Iterable[tuple[bytes, bytes]]
) -> None:
    """Puts the state after a block into an empty store; there is nothing before that block in the store then.

    Raises InvalidArchive unless the operator signed the block, CorruptStore where the state has another app
    hash than it says.
    """
    check_operator(block, genesis)
    storage.restore(genesis.encode(), items, block.height, block.encode(), block.cid.digest, block.app_hash)


def restore_archived(storage: LedgerStorage, fresh: Fresh) -> GivenBlock:
    """Puts an archive's state into an empty store, and returns the block that led to it.

    Raises as `restore_state`, and InvalidArchive where there is no state in it.
    """
    with fresh() as contents:
        manifest, genesis = contents.read_state_manifest(), contents.genesis
        if manifest is None:
            raise InvalidArchive("the archive holds no state")
        tip = next(given for given in contents.blocks() if given.block.height == manifest.height)
    with fresh() as contents:
        restore_state(storage, genesis, tip.block, contents.state())
    return tip


def begin_after(storage: LedgerStorage, scratch: LedgerStorage, genesis: Genesis, origin: Fresh) -> None:
    """Makes an empty store that of a chain that goes on from the end in `origin`; `scratch` is empty too.

    Raises as `restore_archived`, CorruptState where `genesis` does not go on from there.
    """
    tip = restore_archived(scratch, origin)
    rows = scratch.committed().state
    check_origin(genesis, rows, tip.block.app_hash, node_cid(tip.raw))
    storage.create(genesis.encode(), carried_items(genesis, rows))
