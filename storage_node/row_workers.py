"""Makes proof rows of stored blocks in other processes, which open the store and read the blocks themselves.

A worker is sent multihashes and sends rows back, as the table keeps them: no block is copied from one process
to another, nor out of the store's file.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from pathlib import Path

from storage_node import commitments
from storage_node.blockstore.store import Store, open_store
from storage_node.worker_pool import WorkerPool


class RowWorkers:
    """Workers of `pool` for the blockstore in `folder`."""

    def __init__(self, pool: WorkerPool, folder: Path) -> None:
        self._pool = pool
        self._folder = str(folder)

    @property
    def workers(self) -> int:
        """How many work at once."""
        return self._pool.workers

    def submit(self, multihashes: Sequence[bytes]) -> Future[list[bytes | None]]:
        """The row of each block as it is kept, None for one that is not there. Raises as `WorkerPool.run`."""
        return self._pool.run(make_rows, self._folder, list(multihashes))


@cache
def _store(folder: str) -> Store:
    return open_store(Path(folder))


def make_rows(folder: str, multihashes: list[bytes]) -> list[bytes | None]:
    """What a worker does; see `RowWorkers.submit`."""
    rows: list[bytes | None] = []
    with _store(folder).reading() as find:
        for multihash in multihashes:
            block = find(multihash)
            rows.append(None if block is None else commitments.make(multihash, block))
    return rows
