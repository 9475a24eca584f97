"""Which nodes of the mutable tree need not be whole: they were linked while blocks below them were not here.

All other nodes were whole when they came into the tree, so a block that is missing below one of them is
lost, and a collection must not free what else hangs there. A node is noted in the transaction that links it;
nodes that are no longer in the tree are forgotten after a collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from merkledag.cid import CID
from merkledag.folder import entries
from merkledag.mutate_tree import is_directory
from merkledag.steps import iterate, run
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import BlockNotFound
from storage_node.meta import Meta, MetaWrite, Table
from storage_node.mfs_view import IsPartial, Segments
from storage_node.reach import reachable

_PREFIX = b"mfs-partial/"  # in Table.RECORDS: followed by the multihash, with nothing as value
MAX_REMEMBERED = 1 << 16


class PartialNodes:
    """The nodes that are noted; called with a CID it says whether that one is (`gc_mark.IsPartial`)."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta
        self._seen: set[bytes] = set()

    def __call__(self, cid: CID) -> bool:
        if cid.is_identity or self._meta.get(Table.RECORDS, _PREFIX + cid.multihash) is None:
            return False
        if len(self._seen) <= MAX_REMEMBERED:
            self._seen.add(cid.multihash)
        return True

    def change(self, write: MetaWrite, whole: Iterable[bytes], partial: Iterable[bytes]) -> None:
        """Forget nodes, then note others, in the transaction of a change of the tree."""
        for multihash in whole:
            write.delete(Table.RECORDS, _PREFIX + multihash)
        for multihash in partial:
            write.put(Table.RECORDS, _PREFIX + multihash, b"")

    def within(self, store: Blockstore, root: CID) -> list[bytes]:
        """Those that are noted of the DAG of a root, which is here."""
        if next(self._all(), None) is None:
            return []
        return [cid.multihash for cid in reachable(store, [root], lambda _: None) if self(cid)]

    def forget_unseen(self, unchanged: bytes | None, key: bytes) -> int:
        """Forget what was not asked for since this object was made, by a walk of the whole tree.

        Not if the record `key` is no longer `unchanged`, what it was before the walk; returns how many.
        """
        if len(self._seen) > MAX_REMEMBERED:
            return 0
        stale = [multihash for multihash in self._all() if multihash not in self._seen]
        if not stale:
            return 0
        with self._meta.write() as write:
            if write.get(Table.RECORDS, key) != unchanged:
                return 0
            for multihash in stale:
                write.delete(Table.RECORDS, _PREFIX + multihash)
        return len(stale)

    def _all(self) -> Iterator[bytes]:
        return (key[len(_PREFIX) :] for key, _ in self._meta.items(Table.RECORDS, _PREFIX))


def path_to(store: Blockstore, root: CID, wanted: CID, is_partial: IsPartial) -> Segments | None:
    """A path of the tree below which a block belongs; None if it is only in parts that need not be whole."""
    pending: list[tuple[Segments, CID]] = [((), root)]
    seen: set[CID] = set()
    while pending:
        path, cid = pending.pop()
        if cid.multihash == wanted.multihash:
            return path
        if cid in seen or is_partial(cid):
            continue
        seen.add(cid)
        try:
            if run(is_directory(cid), lambda each: store.get(each.multihash)):
                rows = iterate(entries(cid), lambda each: store.get(each.multihash))
                pending += [((*path, row.name), row.cid) for row in rows]
            elif any(each.multihash == wanted.multihash for each in reachable(store, [cid], lambda _: None)):
                return path
        except BlockNotFound:
            return path  # a part of this folder itself
    return None
