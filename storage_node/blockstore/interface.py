"""What every blockstore promises; `Store` (LMDB) and `MemoryStore` pass the same conformance suite."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from storage_node.errors import (
    BlockNotFound,
    BlockRefused,
    CorruptStore,
    DamagedBlock,
    QuotaExceeded,
    StoreFailed,
    StoreFull,
)

__all__ = [
    "MAX_MULTIHASH_BYTES",
    "BlockClass",
    "BlockNotFound",
    "BlockRefused",
    "BlockRow",
    "Blockstore",
    "Buffer",
    "CorruptStore",
    "DamagedBlock",
    "Freed",
    "PutResult",
    "QuotaExceeded",
    "StoreFailed",
    "StoreFull",
    "StoreStat",
    "storable",
]

Buffer: TypeAlias = bytes | memoryview

MAX_MULTIHASH_BYTES = 255  # LMDB keys end at 511 bytes; the longest real multihash has 68


class BlockClass(enum.IntEnum):
    """Why a block is here: OWN blocks leave by garbage collection only, CACHE blocks may be evicted."""

    OWN = 0
    CACHE = 1


class BlockRow(NamedTuple):
    """What the store knows of a block without touching its bytes."""

    length: int  # bytes
    epoch: int  # GC epoch of its last put or touch
    block_class: BlockClass


class PutResult(NamedTuple):
    """What `put_many` did: blocks that were new, blocks that were here already, bytes of the new ones."""

    new: int
    present: int
    bytes: int


class Freed(NamedTuple):
    """What a deletion freed: the multihashes that really went, and the bytes of their blocks."""

    multihashes: list[bytes]
    bytes: int


class StoreStat(NamedTuple):
    """Sizes of a store; every field is known without a scan.

    `blocks` and `bytes` include the cached ones. `file_bytes` is what the files take on disk,
    `reusable_bytes` the part of it that is free for new blocks. `max_bytes` None means no quota.
    """

    blocks: int
    bytes: int
    cache_blocks: int
    cache_bytes: int
    file_bytes: int
    reusable_bytes: int
    disk_free_bytes: int
    max_bytes: int | None
    reserve_bytes: int


@runtime_checkable
class Blockstore(Protocol):
    """Blocks keyed by multihash. Every method is safe from any thread; none awaits.

    Identity multihashes are never stored: `put_many` skips them, the others say "not here".
    Hashes are not checked on put: whoever takes bytes from outside verifies them first.
    """

    def get(self, multihash: bytes) -> bytes:
        """A copy of the block. Raises BlockNotFound."""
        ...

    def view(self, multihash: bytes) -> AbstractContextManager[memoryview]:
        """The block without a copy; valid inside the context only. Raises BlockNotFound at the call.

        Leave the context within a second: an open view keeps deleted pages from being reused.
        """
        ...

    def find(self, multihash: bytes) -> AbstractContextManager[memoryview] | None:
        """As `view`, but None if the block is not here."""
        ...

    def size(self, multihash: bytes) -> int | None:
        """Length in bytes, None if not here; never touches the block's own pages."""
        ...

    def has(self, multihash: bytes) -> bool:
        """Whether the block is here; says nothing about the next moment (see `touch_many`)."""
        ...

    def put_many(
        self, items: Iterable[tuple[bytes, Buffer]], block_class: BlockClass = BlockClass.OWN
    ) -> PutResult:
        """Store (multihash, bytes) pairs durably; returns when all of them survive a power cut.

        `items` is consumed lazily with bounded memory. A block that is here already is stamped with
        the current GC epoch (and becomes OWN if put as OWN). Raises StoreFull, QuotaExceeded,
        BlockRefused; what was committed before an error stays, unreferenced.
        """
        ...

    def touch_many(self, multihashes: Iterable[bytes]) -> list[bytes]:
        """Stamp present blocks with the current GC epoch and class OWN; returns the absent ones.

        Whoever relies on blocks that it did not put (pinning what is here) holds a lease and touches
        them, or a collection that is under way may still free them.
        """
        ...

    def delete_many(self, multihashes: Iterable[bytes]) -> Freed:
        """Delete blocks whatever refers to them; absent ones are no error."""
        ...

    def replace(self, multihash: bytes, data: Buffer) -> None:
        """Overwrite a damaged block with `data`, which the caller has verified. Raises BlockNotFound."""
        ...

    def keys(self, after: bytes | None = None) -> Iterator[bytes]:
        """Multihashes in the store's own order, from the one behind `after` on; no snapshot."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """As `keys()`."""
        ...

    def stat(self) -> StoreStat:
        """Sizes, without a scan."""
        ...

    def lease(self) -> AbstractContextManager[None]:
        """Held from before the first put or touch until behind the pin: no collection frees those blocks."""
        ...

    # --- for garbage collection (storage_node/gc.py) ---

    def row(self, multihash: bytes) -> BlockRow | None:
        """Length, epoch and class of a block; None if not here."""
        ...

    def rows(self) -> Iterator[tuple[bytes, BlockRow]]:
        """Every block's row in the order of `keys()`; no snapshot."""
        ...

    def begin_collection(self) -> int:
        """Begin a new GC epoch; returns the epoch below which stamps may be freed.

        That is the new epoch or the oldest live lease's, whichever is lower. Read the pins after this call.
        """
        ...

    def lease_floor(self) -> int:
        """The epoch below which stamps belong to no live lease, without beginning a new epoch."""
        ...

    def free_many(
        self, multihashes: Iterable[bytes], before_epoch: int, only_class: BlockClass | None = None
    ) -> Freed:
        """Delete those blocks whose stamp, read inside the deleting transaction, is below `before_epoch`.

        With `only_class`, blocks that are no longer of that class stay too.
        """
        ...

    def close(self) -> None:
        """Finish writes under way and release threads; the store is not usable afterwards."""
        ...


def storable(multihash: bytes) -> bool:
    """False for identity, which is its own block. Raises BlockRefused for what cannot be a multihash."""
    if not 2 < len(multihash) <= MAX_MULTIHASH_BYTES:
        if multihash[:1] == b"\0":
            return False
        raise BlockRefused(f"a multihash of {len(multihash)} bytes; 3 to {MAX_MULTIHASH_BYTES} are possible")
    return multihash[0] != 0
