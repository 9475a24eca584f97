"""Finding damaged blocks: every block is read and hashed again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from merkledag import multihash as mh
from merkledag.errors import MerkledagError, UnsupportedHash
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import DamagedBlock

THREADS = min(8, os.cpu_count() or 1)  # hashing a large block releases the GIL
GROUP_BLOCKS = 64  # checked by one thread at a time
GROUP_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`damaged` are the multihashes whose bytes do not match; `unverifiable` use an unknown hash function."""

    blocks: int
    size_bytes: int
    damaged: tuple[bytes, ...]
    unverifiable: int


def verify(
    store: Blockstore,
    multihashes: Iterable[bytes] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Hash blocks again: all of them, or those named (absent ones are passed over).

    `progress(blocks, bytes)` is called now and then from the calling thread. Runs beside everything else.
    """
    blocks = size_bytes = unverifiable = 0
    damaged: list[bytes] = []
    if multihashes is None:
        found = ((multihash, row.length) for multihash, row in store.rows())
    else:
        found = ((multihash, store.size(multihash) or 0) for multihash in multihashes)
    for _, report in verify_groups(store, found):
        blocks += report.blocks
        size_bytes += report.size_bytes
        damaged += report.damaged
        unverifiable += report.unverifiable
        if progress is not None:
            progress(blocks, size_bytes)
    return VerifyReport(blocks, size_bytes, tuple(damaged), unverifiable)


def verify_groups(
    store: Blockstore, blocks: Iterable[tuple[bytes, int]], threads: int = THREADS
) -> Iterator[tuple[bytes, VerifyReport]]:
    """The last multihash of each group of blocks and what was found in the group, in the order given.

    `blocks` are multihashes with the lengths of their blocks, as far as known. Groups are checked by several
    threads at once, `threads` ahead of the consumer at most.
    """
    ahead: deque[tuple[bytes, Future[VerifyReport]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        try:
            for group in _groups(blocks):
                ahead.append((group[-1], pool.submit(verify_group, store, group)))
                if len(ahead) > threads:
                    last, report = ahead.popleft()
                    yield last, report.result()
            while ahead:
                last, report = ahead.popleft()
                yield last, report.result()
        finally:
            for _, waiting in ahead:
                waiting.cancel()


def heal(store: Blockstore, multihash: bytes, data: bytes) -> None:
    """Put good bytes in a damaged block's place. Raises DamagedBlock if `data` does not match either."""
    if not mh.verify(multihash, data):
        raise DamagedBlock(f"the bytes offered for block {multihash.hex()} do not hash to it", multihash)
    store.replace(multihash, data)


def _groups(blocks: Iterable[tuple[bytes, int]]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size_bytes = 0
    for multihash, length in blocks:
        group.append(multihash)
        size_bytes += length
        if len(group) >= GROUP_BLOCKS or size_bytes >= GROUP_BYTES:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def verify_group(store: Blockstore, group: Iterable[bytes]) -> VerifyReport:
    """Hash these blocks again, one after the other; absent ones are passed over."""
    blocks = size_bytes = unverifiable = 0
    damaged: list[bytes] = []
    with store.reading() as find:
        for multihash in group:
            try:
                block = find(multihash)
                if block is None:
                    continue
                size_bytes += len(block)
                if not mh.verify(multihash, block):
                    damaged.append(multihash)
            except UnsupportedHash:
                unverifiable += 1
            except (DamagedBlock, MerkledagError):
                damaged.append(multihash)
            blocks += 1
    return VerifyReport(blocks, size_bytes, tuple(damaged), unverifiable)
