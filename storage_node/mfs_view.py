"""The mutable tree at one moment, for reading and in the middle of a change that is not stored yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from merkledag import codecs, dag_pb, folder, mutate_tree
from merkledag.cid import CID
from merkledag.errors import NoSuchLink, NotADirectory
from merkledag.mutate import Edited
from merkledag.profile import ImportProfile
from merkledag.reader import NodeStat, stat
from merkledag.steps import Buffer, Steps, inline, run

Get = Callable[[CID], Buffer]
IsPartial = Callable[[CID], bool]
Segments = tuple[str, ...]


def text(path: Segments) -> str:
    """A path as people write it."""
    return "/" + "/".join(path)


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a node's root block says: `cumulative_bytes` of all blocks below it are as its links declare."""

    node: NodeStat
    cumulative_bytes: int
    child_blocks: int


class View:
    """A root, new blocks that are not stored yet, and which of the nodes need not be whole (`partial`).

    `is_partial` says so of stored nodes: what hangs below one was not all here when it was linked. A node
    that is made from such a one is such a one.
    """

    def __init__(
        self, profile: ImportProfile, root: CID, get: Get, is_partial: IsPartial = lambda _: False
    ) -> None:
        self._profile = profile
        self._get = get
        self._is_partial = is_partial
        self.root = root
        self.blocks: dict[CID, bytes] = {}
        self.partial: set[bytes] = set()

    def get(self, cid: CID) -> Buffer:
        """A block, new or stored."""
        data = self.blocks.get(cid)
        return self._get(cid) if data is None else data

    def find(self, path: Segments) -> CID:
        """The node at a path; raises NoSuchLink, which names the folder, and NotADirectory."""
        cid = self.root
        for depth, segment in enumerate(path):
            try:
                cid = run(folder.lookup(cid, segment), self.get).cid
            except NoSuchLink:
                raise NoSuchLink(segment, text(path[:depth])) from None
            except NotADirectory:
                raise NotADirectory(f"{text(path[:depth])} is no folder") from None
        return cid

    def at(self, path: Segments, *, parents: bool = False) -> CID | None:
        """As `find`, None for what is not there; its folder must be, unless `parents`."""
        try:
            return self.find(path)
        except NoSuchLink:
            if not parents:
                self.find(path[:-1])
            return None

    def is_folder(self, cid: CID | None) -> bool:
        """Whether there is a node, and it is a directory."""
        return cid is not None and run(mutate_tree.is_directory(cid), self.get)

    def stat(self, cid: CID) -> FileStat:
        """What a node is; reads its root block alone."""
        carried = inline(cid)
        block = self.get(cid) if carried is None else carried
        node = dag_pb.decode(block) if cid.codec == codecs.DAG_PB else dag_pb.PBNode()
        return FileStat(run(stat(cid), self.get), len(block) + node.below_bytes, len(node.links))

    def put(self, path: Segments, cid: CID, tsize: int | None = None, *, parents: bool = False) -> None:
        """Puts a node at a path (not the root), in place of what is there."""
        size = self.stat(cid).cumulative_bytes if tsize is None else tsize
        self._apply(path, mutate_tree.put(self._profile, self.root, path, cid, size, parents=parents))

    def remove(self, path: Segments) -> None:
        """Removes what is at a path (not the root)."""
        self._apply(path, mutate_tree.remove(self._profile, self.root, path))

    def partial_from(self, path: Segments) -> int | None:
        """How many names lead to the first node on a path that need not be whole; None if all must be.

        What is not there is not looked at.
        """
        cid = self.root
        for depth in range(len(path) + 1):
            if cid.multihash in self.partial or self._is_partial(cid):
                return depth
            if depth == len(path):
                break
            try:
                cid = run(folder.lookup(cid, path[depth]), self.get).cid
            except (NoSuchLink, NotADirectory):
                break
        return None

    def _apply(self, path: Segments, steps: Steps[Edited]) -> None:
        depth = self.partial_from(path[:-1])
        edited = run(steps, self.get)
        self.blocks.update((block.cid, block.data) for block in edited.blocks)
        self.root = edited.link.cid
        if depth is not None:
            self.partial.add(self.find(path[:depth]).multihash)
