"""Nodes of DAGs taken apart once for many look-ups: folders by name, files by position; bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

from merkledag import dag_pb
from merkledag.cid import CID
from merkledag.dag_pb import PBLink
from merkledag.errors import DecodeError
from merkledag.filenode import FileNode
from merkledag.steps import Steps, Want

KEPT_PART = 4  # a node that would take more than a quarter of the room is not kept


class Kept(Protocol):
    """What says how much memory it takes."""

    @property
    def kept_bytes(self) -> int:
        """About so much."""
        ...


K = TypeVar("K", bound=Kept)


class Recent(Generic[K]):
    """Values by CID; beyond `max_bytes` those go that were not asked for the longest."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[CID, K] = OrderedDict()
        self.bytes = 0

    def get(self, cid: CID) -> K | None:
        """The value, from now on the most recent one."""
        found = self._kept.get(cid)
        if found is not None:
            self._kept.move_to_end(cid)
        return found

    def put(self, cid: CID, value: K) -> None:
        """Keeps a value, unless it is large."""
        size_bytes = value.kept_bytes
        if size_bytes > self._max_bytes // KEPT_PART or cid in self._kept:
            return
        self._kept[cid] = value
        self.bytes += size_bytes
        while self.bytes > self._max_bytes:
            _, old = self._kept.popitem(last=False)
            self.bytes -= old.kept_bytes


class Nodes(NamedTuple):
    """What traversals look at before they want a block. Blocks never change, so none of it is ever wrong."""

    folders: Recent[dag_pb.Index]
    files: Recent[FileNode]

    @staticmethod
    def bounded(max_bytes: int) -> Nodes:
        """Half of the room for each kind."""
        return Nodes(Recent(max_bytes // 2), Recent(max_bytes // 2))


class Find(Protocol):
    """As `dag_pb.find` of one node."""

    def __call__(self, *names: bytes) -> tuple[PBLink | None, bytes | None]: ...


def finder(cid: CID, nodes: Nodes | None) -> Steps[Find]:
    """How to find links of a dag-pb node by name; wants its block unless it is known."""
    index = None if nodes is None else nodes.folders.get(cid)
    if index is not None:
        return index.find
    block = yield Want(cid)
    if nodes is not None:
        try:
            index = dag_pb.Index(block)
        except DecodeError:
            pass  # a link is broken; the others are found all the same
        else:
            nodes.folders.put(cid, index)
            return index.find
    return partial(dag_pb.find, block)
