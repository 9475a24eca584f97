"""What one DAG has and another one has not: read where they differ, and not below what both hold."""

from __future__ import annotations

from merkledag.cid import CID
from merkledag.steps import inline
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import DamagedBlock
from storage_node.fingerprints import FingerprintSet
from storage_node.pins import TOUCH_BLOCKS, may_link
from storage_node.reach import node_links, refuse_unreadable


def protect_difference(store: Blockstore, old: CID, new: CID) -> list[CID]:
    """As `pins.protect` of `new`, for what the DAG of `old` does not hold; returns what is missing of that.

    All of `old` must be here and stay pinned meanwhile: what it lacks of what both hold, `new` will lack.
    Both are read level by level, so an edit deep inside a tree costs the nodes above it.
    Raises BlockRefused for a block that its CID's codec cannot read.
    """
    walk = _Difference(store)
    walk.hold([old])
    new_level = [] if walk.holds(new) else [new]
    old_level = [old] if may_link(old) else []
    while new_level:
        walk.touch(new_level)
        below = [(cid, walk.links(cid)) for cid in new_level if may_link(cid)]
        kept = FingerprintSet()  # nodes that both link to are read in neither
        for _, children in below:
            for child in children:
                kept.add(bytes(child.to_v1()))
        older: list[CID] = []
        for cid in old_level:
            children = walk.old_links(cid)
            older += [each for each in children if may_link(each) and bytes(each.to_v1()) not in kept]
            walk.hold(children)
        old_level = _distinct(older)
        new_level = []
        for _, children in below:
            for child in children:
                if not walk.holds(child):
                    walk.hold([child])
                    if may_link(child):
                        new_level.append(child)
                    else:
                        walk.leaf(child)
    walk.flush()
    return list(walk.missing.values())


class _Difference:
    """What is known in the middle of a comparison."""

    def __init__(self, store: Blockstore) -> None:
        self._store = store
        self._held = FingerprintSet()
        self._leaves: dict[bytes, CID] = {}
        self.missing: dict[bytes, CID] = {}

    def hold(self, cids: list[CID]) -> None:
        """These need no look any more."""
        for cid in cids:
            self._held.add(bytes(cid.to_v1()))

    def holds(self, cid: CID) -> bool:
        """Whether a CID needs no look any more."""
        return bytes(cid.to_v1()) in self._held

    def touch(self, cids: list[CID]) -> None:
        """Stamp nodes before their links are read."""
        for cid in cids:
            self.leaf(cid)
        self.flush()

    def leaf(self, cid: CID) -> None:
        """Stamp a block, soon."""
        if cid.is_identity:
            return
        self._leaves[cid.multihash] = cid
        if len(self._leaves) >= TOUCH_BLOCKS:
            self.flush()

    def flush(self) -> None:
        """Stamp what is waiting for it."""
        for multihash in self._store.touch_many(self._leaves):
            self.missing[multihash] = self._leaves[multihash]
        self._leaves.clear()

    def links(self, cid: CID) -> list[CID]:
        """The links of a node of the new DAG; none of one that is missing, which is noted."""

        def absent(cid: CID) -> None:
            self.missing[cid.multihash] = cid

        return node_links(self._store, cid, absent, refuse_unreadable)

    def old_links(self, cid: CID) -> list[CID]:
        """The links of a node of the old DAG, as far as they can be read."""
        if inline(cid) is None and not self._store.has(cid.multihash):
            return []
        try:
            return node_links(self._store, cid, lambda _: None)
        except DamagedBlock:
            return []


def _distinct(cids: list[CID]) -> list[CID]:
    return list({bytes(cid.to_v1()): cid for cid in cids}.values())
