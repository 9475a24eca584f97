"""Proof rows of local blocks: remembered on disk, computed once, in other processes if a pool is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor

from proofs.commitment import BlockCommitment, commit_block
from storage_node.blockstore.interface import Blockstore
from storage_node.commitments import Commitments

BATCH_BYTES = 32 * 1024 * 1024
BATCH_BLOCKS = 1024

Advance = Callable[[int], None]


class ProofRows:
    """The rows of blocks in one store. Safe from any thread.

    ``executor`` may be a process pool, made by whoever starts the program: hashing 1 KiB leaves holds the
    interpreter's lock, so threads gain nothing.
    """

    def __init__(self, store: Blockstore, commitments: Commitments, executor: Executor | None = None) -> None:
        self._store = store
        self._commitments = commitments
        self._executor = executor

    def find(self, multihash: bytes) -> BlockCommitment | None:
        """A row that is remembered."""
        return self._commitments.get(multihash)

    def row(self, multihash: bytes) -> BlockCommitment:
        """A row, computed and remembered if it was not. Raises BlockNotFound."""
        known = self._commitments.get(multihash)
        if known is None:
            known = commit_block(self._store.get(multihash))
            self._commitments.put_many({multihash: known})
        return known

    def note(self, blocks: Iterable[tuple[bytes, bytes]]) -> None:
        """Compute and remember the rows of blocks whose bytes are at hand."""
        self._commitments.put_many({multihash: commit_block(data) for multihash, data in blocks})

    def forget(self, multihashes: Iterable[bytes]) -> None:
        """Drop the rows of blocks that are gone."""
        self._commitments.drop_many(multihashes)

    def ensure(self, multihashes: Iterable[bytes], advance: Advance) -> None:
        """Make sure that every block's row is remembered; ``advance`` is told of bytes.

        Raises BlockNotFound.
        """
        for batch in self._batches(multihashes, advance):
            names = list(batch)
            if self._executor is not None and len(names) > 1:
                made = list(self._executor.map(commit_block, batch.values()))
            else:
                made = [commit_block(data) for data in batch.values()]
            self._commitments.put_many(dict(zip(names, made, strict=True)))
            advance(sum(map(len, batch.values())))

    def _batches(self, multihashes: Iterable[bytes], advance: Advance) -> Iterator[dict[bytes, bytes]]:
        batch: dict[bytes, bytes] = {}
        size_bytes = 0
        for multihash in multihashes:
            known = self._commitments.get(multihash)
            if known is not None:
                advance(known.length)
                continue
            batch[multihash] = self._store.get(multihash)
            size_bytes += len(batch[multihash])
            if size_bytes >= BATCH_BYTES or len(batch) >= BATCH_BLOCKS:
                yield batch
                batch, size_bytes = {}, 0
        if batch:
            yield batch
