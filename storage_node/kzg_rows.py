"""The KZG commitments of local blocks: made in other processes, kept as they are made, so never made twice.

A full blob (124 KiB) takes a core about 0.1 s: making them for much content takes long, and whoever is
interrupted or killed goes on where the last row was kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from merkledag import multihash
from proofs.kinds import ProofKind
from proofs.kzg.blob_commitments import BlobCommitments
from proofs.kzg.blobs import blobs_of
from proofs.kzg.setup import Setup
from storage_node import kzg_worker
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import BlockNotFound, DamagedBlock, StoreFull, WorkersLost
from storage_node.kzg_commitments import KzgCommitments

# What a core of any node is taken to need for a full blob, to see what no node can prepare in time.
BLOB_S = 0.12
LOST = "a process that made KZG commitments was killed: try again with more memory free, what is made is kept"

P = ParamSpec("P")
T = TypeVar("T")

# Told of (done, total) in blobs that had to be made.
Advance = Callable[[int, int], None]


class Workers(Protocol):
    """Processes that run functions of modules."""

    @property
    def workers(self) -> int:
        """How many work at once."""

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """`work(*args)` in one of them."""


class Committer:
    """Commits to the blobs of blocks in `workers`; `setup` is the path of the setup's file.

    At most one blob more than there are workers is on the way for a call, so that others' get their turn.
    """

    def __init__(self, workers: Workers, setup: str) -> None:
        self._workers = workers
        self._setup = setup

    def setup(self) -> Setup:
        """The setup, for whoever opens; read once a process. Raises DamagedSetup, OSError."""
        return kzg_worker.read_setup(self._setup)

    @property
    def cores(self) -> int:
        """How many blobs are worked on at once."""
        return self._workers.workers

    @property
    def at_once(self) -> int:
        """Blobs that one call has on the way at most."""
        return self.cores + 1

    async def pace_s(self) -> float:
        """How long a core takes here for a full blob while all of them work, measured. Raises WorkersLost."""
        try:
            trials = [self._workers.run(kzg_worker.pace_s, self._setup) for _ in range(self.cores)]
            taken_s = await asyncio.gather(*map(asyncio.wrap_future, trials))
        except BrokenExecutor as error:
            raise WorkersLost(LOST) from error
        return sum(taken_s) / len(taken_s)

    def slots(self) -> asyncio.Semaphore:
        """For calls of `commit` that share what may be on the way."""
        return asyncio.Semaphore(self.at_once)

    async def commit(self, block: bytes, slots: asyncio.Semaphore) -> BlobCommitments:
        """The commitments of a block's bytes. Cancelled, it leaves nothing waiting. Raises WorkersLost."""

        async def one(blob: memoryview) -> bytes:
            async with slots:
                try:
                    return await asyncio.wrap_future(self._begin(blob))
                except BrokenExecutor as error:
                    raise WorkersLost(LOST) from error

        made = await asyncio.gather(*map(one, blobs_of(block)))
        return BlobCommitments(len(block), b"".join(made))

    def commit_now(self, block: bytes) -> BlobCommitments:
        """As `commit`, for a thread, a blob at a time."""
        try:
            made = [self._begin(blob).result() for blob in blobs_of(block)]
        except BrokenExecutor as error:
            raise WorkersLost(LOST) from error
        return BlobCommitments(len(block), b"".join(made))

    def _begin(self, blob: memoryview) -> Future[bytes]:
        return self._workers.run(kzg_worker.commit, self._setup, bytes(blob))


@dataclass(frozen=True, slots=True)
class _Making:
    """A block whose commitments are being made."""

    multihash: bytes
    task: asyncio.Task[BlobCommitments]


class KzgRows:
    """The rows of blocks in one store; `kept` has those that are made."""

    def __init__(self, store: Blockstore, kept: KzgCommitments, committer: Committer) -> None:
        self._store = store
        self.kept = kept
        self.committer = committer

    def row(self, name: bytes) -> BlobCommitments:
        """A row, made and kept if it was not and there is room; call it in a thread.

        Raises BlockNotFound, DamagedBlock, WorkersLost.
        """
        known = self.kept.get(name)
        if known is None:
            known = self.committer.commit_now(self._block(name))
            with suppress(StoreFull):  # a proof must not fail for want of room for a note
                self.kept.put(name, known)
        return known

    async def missing(self, multihashes: Iterable[bytes]) -> int:
        """How many blobs `prepare` would commit to. Raises BlockNotFound."""
        return sum(blobs for _, blobs in await asyncio.to_thread(self._missing, multihashes))

    async def prepare(self, multihashes: Iterable[bytes], advance: Advance) -> None:
        """Make what is not kept yet, and keep each row when it is made; hold a lease.

        Memory is bounded by a few blocks more than there are workers. Raises BlockNotFound, DamagedBlock,
        WorkersLost, StoreFull.
        """
        missing = await asyncio.to_thread(self._missing, multihashes)
        done, total = 0, sum(blobs for _, blobs in missing)
        advance(done, total)
        slots = self.committer.slots()
        making: deque[_Making] = deque()

        async def keep_first() -> None:
            nonlocal done
            first = making[0]
            row = await first.task
            await asyncio.to_thread(self.kept.put, first.multihash, row)
            making.popleft()
            done += row.leaves
            advance(done, total)

        try:
            for name, _ in missing:
                if len(making) > self.committer.at_once:
                    await keep_first()
                block = await asyncio.to_thread(self._block, name)
                task = asyncio.create_task(self.committer.commit(block, slots))
                making.append(_Making(name, task))
            while making:
                await keep_first()
        finally:
            for each in making:
                each.task.cancel()
            await asyncio.gather(*(each.task for each in making), return_exceptions=True)

    def _block(self, name: bytes) -> bytes:
        """A block's bytes; a row of others would be believed for good."""
        block = self._store.get(name)
        if not multihash.verify(name, block):
            raise DamagedBlock(f"block {name.hex()} is damaged: see `holdfast repo verify --heal`", name)
        return block

    def _missing(self, multihashes: Iterable[bytes]) -> list[tuple[bytes, int]]:
        """Each block without a row once, and how many blobs it has."""
        missing: list[tuple[bytes, int]] = []
        for name in dict.fromkeys(multihashes):
            if self.kept.get(name) is None:
                length = self._store.size(name)
                if length is None:
                    raise BlockNotFound(f"block {name.hex()} is not here")
                missing.append((name, ProofKind.KZG.unit_count(length)))
        return missing
