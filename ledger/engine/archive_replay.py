"""Runs a chain's history again, block by block, over a store that keeps how far it is."""

from __future__ import annotations

from dataclasses import replace

from ledger.engine.archive import GivenBlock, check_link
from ledger.engine.assemble import load_application, run_again
from ledger.engine.blocks import node_cid
from ledger.engine.errors import InvalidArchive
from ledger.engine.storage import LedgerStorage
from ledger.genesis import Genesis
from merkledag.cid import CID


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
            stored = replace(stored, txs=(), events=b"")
        self._storage.apply(stored)
        self.app.commit()
        if (self.app.time, self.app.beacon) != (block.time, block.beacon):
            raise InvalidArchive(f"block {height} states another time or beacon than it led to")
        self.tip = node_cid(given.raw)
