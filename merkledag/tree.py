"""Walking what people see of a DAG: folders, files and symlinks by their paths."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.errors import LimitExceeded
from merkledag.reader import Entry, NodeStat, entries, stat
from merkledag.steps import Buffer, Steps, Walk, Want

AHEAD = 16  # how many following entries a Want announces
MAX_TREE_DEPTH = 256  # folders within each other


class TreeItem(NamedTuple):
    """One folder, file or symlink (or another node, whose kind is "other").

    `names` lead to it from the root, whose own are (); they are as found and may be unsafe. `ahead` are
    roots that come next.
    """

    names: tuple[str, ...]
    cid: CID
    stat: NodeStat
    ahead: tuple[CID, ...]


class _Folder:
    """A folder whose entries are read a little before they are needed."""

    __slots__ = ("ended", "listing", "names", "queue")

    def __init__(self, names: tuple[str, ...], cid: CID) -> None:
        self.names = names
        self.listing = entries(cid)
        self.queue: deque[Entry] = deque()
        self.ended = False

    def fill(self) -> Steps[None]:
        """Reads on until `AHEAD` entries wait."""
        answer: Buffer | None = None
        while not self.ended and len(self.queue) <= AHEAD:
            try:
                item = self.listing.send(answer)
            except StopIteration:
                self.ended = True
                return
            if isinstance(item, Want):
                answer = yield item
            else:
                self.queue.append(item)
                answer = None


def walk_tree(root: CID, *, sized: bool = True, max_depth: int = MAX_TREE_DEPTH) -> Walk[TreeItem]:
    """Yields the node `root` and, if it is a folder, everything below it, depth first, folders first.

    Shared folders come as often as they are linked, so a small hostile DAG can be endless. Memory holds one
    path of folders. With `sized` false raw blocks are not fetched, and their sizes are 0. Raises
    LimitExceeded for folders nested deeper than `max_depth`, NotADirectory, DecodeError.
    """
    top = yield from _look(root, (), sized)
    yield TreeItem((), root, top, ())
    stack = [_Folder((), root)] if top.kind == "directory" else []
    while stack:
        folder = stack[-1]
        if len(folder.queue) <= AHEAD // 2:
            yield from folder.fill()
        if not folder.queue:
            stack.pop()
            continue
        entry = folder.queue.popleft()
        names = (*folder.names, entry.name)
        ahead = tuple(next_.cid for next_ in folder.queue)
        facts = yield from _look(entry.cid, ahead, sized)
        yield TreeItem(names, entry.cid, facts, ahead)
        if facts.kind == "directory":
            if len(stack) >= max_depth:
                raise LimitExceeded(f"{entry.cid}: folders are nested more than {max_depth} deep")
            stack.append(_Folder(names, entry.cid))


def _look(cid: CID, ahead: tuple[CID, ...], sized: bool) -> Steps[NodeStat]:
    """What a node is; its first Want announces what comes next."""
    if cid.codec == RAW and not sized:
        return NodeStat(cid, "raw", 0, 0)
    steps = stat(cid)
    want = next(steps)
    try:
        while True:
            want = steps.send((yield Want(want.cid, ahead)))
    except StopIteration as stop:
        found: NodeStat = stop.value
        return found


def stays_inside(target: str, depth: int) -> bool:
    """Whether a symlink `depth` folders below the root cannot lead out of it.

    Only leading `..` are followed, and those go up real folders; a `..` behind a name might go up from
    wherever another symlink leads, so it is refused. What the remaining names lead through are folders or
    symlinks of the same kind, so by induction all of them stay inside.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    parts = [part for part in target.split("/") if part not in {"", "."}]
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    return ups <= depth and ".." not in parts[ups:]
