"""What every blockstore promises; `Store` (LMDB) and `MemoryStore` pass the same conformance suite."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sized
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
    "Evicted",
    "Find",
    "Freed",
    "PutResult",
    "QuotaExceeded",
    "StoreFailed",
    "StoreFull",
    "StoreStat",
    "View",
    "storable",
    "stronger",
]

Buffer: TypeAlias = bytes | memoryview

MAX_MULTIHASH_BYTES = 255  # LMDB keys end at 511 bytes; the longest real multihash has 68


class BlockClass(enum.IntEnum):
    """Why a block is here; the numbers are those on disk.

    OWN blocks (the user's) and DEAL blocks (kept for others under a deal) leave by garbage collection
    only, CACHE blocks may be evicted. OWN is stronger than DEAL and DEAL than CACHE: a put or touch makes
    a block's class stronger and never weaker.
    """

    OWN = 0
    CACHE = 1
    DEAL = 2


_STRENGTH = (2, 0, 1)  # by the classes' numbers


class BlockRow(NamedTuple):
    """What the store knows of a block without touching its bytes."""

    length: int  # bytes
    epoch: int  # GC epoch of its last put or touch
    block_class: BlockClass
    used_s: int = 0  # when a CACHE block was last used, in seconds of the store's clock; 0 for the others
    is_damaged: bool = False  # nothing is known of the block but that it was here; in `rows` only


class PutResult(NamedTuple):
    """What `put_many` did: blocks that were new, blocks that were here already, bytes of the new ones."""

    new: int
    present: int
    bytes: int


class Freed(NamedTuple):
    """What a deletion freed: the multihashes that really went, and the bytes of their blocks."""

    multihashes: list[bytes]
    bytes: int


class Evicted(NamedTuple):
    """How many cached blocks an eviction freed, and their bytes."""

    blocks: int
    bytes: int


class StoreStat(NamedTuple):
    """Sizes of a store; every field is known without a scan.

    `blocks` and `bytes` include the cached ones and those of deals. `file_bytes` is what the files take on
    disk, `reusable_bytes` the part of it that is free for new blocks. `max_bytes` None means no quota.
    """

    blocks: int
    bytes: int
    cache_blocks: int
    cache_bytes: int
    deal_blocks: int
    deal_bytes: int
    file_bytes: int
    reusable_bytes: int
    disk_free_bytes: int
    max_bytes: int | None
    reserve_bytes: int


class View(AbstractContextManager[memoryview], Sized, Protocol):
    """A block found: its length by `len()`, its bytes inside the context.

    Enter it once, soon, and leave it within a second: an open view keeps deleted pages from being reused.
    An empty block's view is false, as every empty thing is: compare with None.
    """


Find: TypeAlias = Callable[[bytes], memoryview | None]  # a block's bytes, None if it is not here


@runtime_checkable
class Blockstore(Protocol):
    """Blocks keyed by multihash. Every method is safe from any thread; none awaits.

    Identity multihashes are never stored: `put_many` skips them, the others say "not here".
    Hashes are not checked on put: whoever takes bytes from outside verifies them first.
    """

    def get(self, multihash: bytes) -> bytes:
        """A copy of the block. Raises BlockNotFound."""
        ...

    def view(self, multihash: bytes) -> View:
        """The block without a copy; valid inside the context only. Raises BlockNotFound at the call."""
        ...

    def find(self, multihash: bytes) -> View | None:
        """As `view`, but None if the block is not here; length and bytes by one look-up."""
        ...

    def reading(self) -> AbstractContextManager[Find]:
        """What finds many blocks within one context, at a lower cost each than `find`.

        Their bytes are valid until the context ends. Leave it soon, as a view's, and do not write meanwhile:
        it may not see what comes after it was entered. Finding raises DamagedBlock.
        """
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
        the current GC epoch and gets the stronger of the two classes; one that is CACHE afterwards counts
        as used now. Where the quota or the disk has no room, cached blocks that were used least recently
        make some; without them it raises StoreFull or QuotaExceeded. Raises BlockRefused. What was
        committed before an error stays, unreferenced.
        """
        ...

    def touch_many(
        self, multihashes: Iterable[bytes], block_class: BlockClass = BlockClass.OWN
    ) -> list[bytes]:
        """Stamp present blocks with the current GC epoch and make their class at least `block_class`.

        Returns the absent ones.

        Whoever relies on blocks that it did not put (pinning what is here) holds a lease and touches
        them, or a collection that is under way may still free them.
        """
        ...

    def use_many(self, multihashes: Iterable[bytes], at_s: int) -> None:
        """Say that blocks were used `at_s` (seconds of the store's clock); only CACHE blocks remember it.

        An earlier use than the one known changes nothing. Durable, so give many at once.
        """
        ...

    def evict(self, target_bytes: int, on_freed: Callable[[list[bytes]], None] | None = None) -> Evicted:
        """Free cached blocks, least recently used first, until at most `target_bytes` of cache are left.

        Costs what it frees, not what is here. `on_freed` is told the multihashes, a bounded group at a time.
        Needs no mark: whoever comes to rely on a cached block makes it OWN or DEAL first, which the
        deleting transaction sees.
        """
        ...

    def delete_many(self, multihashes: Iterable[bytes]) -> Freed:
        """Delete blocks whatever refers to them; absent ones are no error."""
        ...

    def replace(self, multihash: bytes, data: Buffer) -> None:
        """Overwrite a damaged block with `data`, which the caller has verified. Raises BlockNotFound.

        One whose row is damaged becomes OWN.
        """
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
        """Held from before the first put or touch until behind the pin: no collection frees those blocks.

        What this thread or task puts or touches as CACHE meanwhile is not evicted either.
        """
        ...

    # --- for garbage collection (storage_node/gc.py) ---

    def row(self, multihash: bytes) -> BlockRow | None:
        """Length, epoch and class of a block; None if not here."""
        ...

    def rows(self, after: bytes | None = None) -> Iterator[tuple[bytes, BlockRow]]:
        """Blocks' rows in the order of `keys()`, from the one behind `after` on; no snapshot.

        Blocks whose rows are damaged come too, as `is_damaged`: they were here, and `has` denies them.
        """
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

    def reclass_many(self, multihashes: Iterable[bytes], block_class: BlockClass, before_epoch: int) -> int:
        """Give blocks the class, weaker or not, if their stamp, read inside the transaction, is below
        `before_epoch`; returns how many changed.

        A collection makes OWN blocks DEAL that only deals still need. What becomes CACHE counts as used now.
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


def stronger(one: BlockClass, other: BlockClass) -> BlockClass:
    """The class that a block of class `one` has when it is put or touched as `other`."""
    return one if _STRENGTH[one] >= _STRENGTH[other] else other
