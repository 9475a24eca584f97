"""Finding damaged blocks: every block is read and hashed again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from merkledag import multihash as mh
from merkledag.errors import MerkledagError, UnsupportedHash
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import DamagedBlock

THREADS = 2  # hashing a large block releases the GIL
BLOCKS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`damaged` are the multihashes whose bytes do not match; `unverifiable` use an unknown hash function."""

    blocks: int
    size_bytes: int
    damaged: tuple[bytes, ...]
    unverifiable: int


@dataclass(frozen=True, slots=True)
class _Checked:
    multihash: bytes
    length: int
    damaged: bool = False
    unverifiable: bool = False


def verify(
    store: Blockstore,
    multihashes: Iterable[bytes] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Hash blocks again: all of them, or those named (absent ones are passed over).

    `progress(blocks, bytes)` is called now and then from the calling thread. Runs beside everything
    else; a scrub gives a bounded slice of `store.keys(after)` at a time.
    """
    blocks = size_bytes = unverifiable = 0
    damaged: list[bytes] = []
    with ThreadPoolExecutor(THREADS, thread_name_prefix="verify") as pool:
        for group in _groups(iter(store.keys() if multihashes is None else multihashes)):
            for checked in pool.map(lambda each: _check(store, each), group):
                if checked is None:
                    continue
                blocks += 1
                size_bytes += checked.length
                unverifiable += checked.unverifiable
                if checked.damaged:
                    damaged.append(checked.multihash)
            if progress is not None:
                progress(blocks, size_bytes)
    return VerifyReport(blocks, size_bytes, tuple(damaged), unverifiable)


def heal(store: Blockstore, multihash: bytes, data: bytes) -> None:
    """Put good bytes in a damaged block's place. Raises DamagedBlock if `data` does not match either."""
    if not mh.verify(multihash, data):
        raise DamagedBlock(f"the bytes offered for block {multihash.hex()} do not hash to it", multihash)
    store.replace(multihash, data)


def _groups(multihashes: Iterator[bytes]) -> Iterator[list[bytes]]:
    while group := list(islice(multihashes, BLOCKS_AT_ONCE)):
        yield group


def _check(store: Blockstore, multihash: bytes) -> _Checked | None:
    try:
        view = store.find(multihash)
        if view is None:
            return None
        with view as block:
            return _Checked(multihash, len(block), damaged=not mh.verify(multihash, block))
    except DamagedBlock:
        return _Checked(multihash, 0, damaged=True)
    except UnsupportedHash:
        return _Checked(multihash, store.size(multihash) or 0, unverifiable=True)
    except MerkledagError:
        return _Checked(multihash, store.size(multihash) or 0, damaged=True)
