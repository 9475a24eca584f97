"""Marks what roots reach, breadth first, in a workspace where it can go on after being stopped or killed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_JSON, DAG_PB
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import IncompleteDag
from storage_node.gc_journal import Queue, Workspace
from storage_node.reach import node_links

NEEDED = 1  # somebody here needs the block; without it only deals do
_QUEUED = {DAG_PB: 2, DAG_CBOR: 4, DAG_JSON: 8}  # its links as this codec's block are, or will be, read
LINKS_AT_ONCE = 1 << 14

IsPartial = Callable[[CID], bool]


class Marker:
    """Puts nodes into the workspace's queues and follows them.

    A queue of whole DAGs refuses what is missing (IncompleteDag), one of partial DAGs passes over it.
    """

    def __init__(self, store: Blockstore, work: Workspace) -> None:
        self._store = store
        self._work = work
        self._whole, self._partial = work.queues

    def block(self, multihash: bytes) -> None:
        """Mark a block alone, for its own sake."""
        self._work.marks.add(multihash, NEEDED)

    def blocks_of_deals(self, multihashes: Iterable[bytes]) -> None:
        """Mark blocks that only deals need."""
        left = iter(multihashes)
        while group := list(islice(left, LINKS_AT_ONCE)):
            self._work.marks.add_many(group)

    def whole(self, roots: Iterable[CID], is_partial: IsPartial | None = None) -> None:
        """Mark roots and queue those with links: their DAGs must be here, except those that are partial."""
        if is_partial is not None:
            whole: list[CID] = []
            for cid in roots:
                if cid.codec in _QUEUED and is_partial(cid):
                    self.partial([cid])
                else:
                    whole.append(cid)
            roots = whole
        self._queue(self._whole, roots)

    def partial(self, roots: Iterable[CID]) -> None:
        """As `whole`, of DAGs that need not be."""
        self._queue(self._partial, roots)

    def _queue(self, queue: Queue, cids: Iterable[CID]) -> None:
        marks = self._work.marks
        leaves: list[bytes] = []
        nodes: dict[int, dict[bytes, CID]] = {}
        for cid in self._spread(cids):
            queued = _QUEUED.get(cid.codec)
            if queued is None:  # also of codecs that nobody here can read: what they refer to is not known
                leaves.append(cid.multihash)
            elif (flags := marks.flags(cid.multihash)) < 0 or not flags & queued:
                nodes.setdefault(queued, {})[cid.multihash] = cid
        marks.add_many(leaves, NEEDED)
        for queued, fresh in nodes.items():
            queue.push(fresh.values())  # before they are marked: see gc_journal
            marks.add_many(fresh, NEEDED | queued)

    def follow_whole(self, go_on: Callable[[], bool], is_partial: IsPartial | None = None) -> bool:
        """Follow the queue of whole DAGs to its end; False if `go_on` said no between two steps.

        A node that is partial goes over to the other queue. Raises IncompleteDag, DamagedBlock.
        """

        def refuse(cid: CID) -> None:
            raise IncompleteDag(
                f"block {cid} of a pin, deal or the mutable tree is missing; nothing was freed: "
                "fetch it, or let go of what needs it",
                cid,
            )

        return self._follow(self._whole, refuse, lambda cids: self.whole(cids, is_partial), go_on)

    def follow_partial(self, go_on: Callable[[], bool]) -> bool:
        """Follow the queue of partial DAGs to its end; False if `go_on` said no. Raises DamagedBlock."""
        return self._follow(self._partial, lambda _: None, self.partial, go_on)

    def _follow(
        self,
        queue: Queue,
        missing: Callable[[CID], None],
        push: Callable[[Iterable[CID]], None],
        go_on: Callable[[], bool],
    ) -> bool:
        while batch := queue.take():
            found: list[CID] = []
            for cid, place in batch:
                found += node_links(self._store, cid, missing)
                if len(found) >= LINKS_AT_ONCE or place == batch[-1][1]:
                    push(found)
                    queue.done(place)
                    found = []
                    if not go_on():
                        return False
        return True

    def _spread(self, cids: Iterable[CID]) -> Iterator[CID]:
        """CIDs of blocks; in place of one that carries its block, what that links to."""
        for cid in cids:
            if not cid.is_identity:
                yield cid
            elif cid.codec in _QUEUED:
                yield from self._spread(node_links(self._store, cid, lambda _: None))
