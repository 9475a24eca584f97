"""What differs between two UnixFS trees: entries added, removed and changed.

Equal subtrees are skipped by their CIDs, unread, and so are equal shards of HAMTs: the cost is that of the
difference. Both sides of a folder are walked in one order, that of the hashes of the names if one side is a
HAMT, so that any two forms of a folder (flat, HAMT, other fanout) are merged like sorted lists.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum

from merkledag import dag_pb
from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from merkledag.dag_pb import Row
from merkledag.errors import LimitExceeded, NotADirectory
from merkledag.folder import Shard, directory_message
from merkledag.hamt import HASH_BITS, bits_of, hash_name
from merkledag.steps import Buffer, Steps, Walk, Want, need
from merkledag.unixfs import Data, Kind

MAX_FOLDER_DEPTH = 1_024  # folders inside each other


class ChangeKind(StrEnum):
    """What happened to an entry on the way from the first tree to the second."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; `path` is () for the roots themselves.

    An added or removed folder is one change, what is in it none. A folder is CHANGED where its mode or
    modification time differ, or where it took the place of something else; its entries come by themselves.
    """

    kind: ChangeKind
    path: tuple[str, ...]
    before: CID | None
    after: CID | None


@dataclass(frozen=True, slots=True)
class _Folder:
    """A directory's root block, decoded."""

    cid: CID
    rows: list[Row]
    message: Data


@dataclass(frozen=True, slots=True)
class _Item:
    """An entry, or a sub-shard with everything whose keys lie in `first` … `last`."""

    first: tuple[int, bytes]
    last: tuple[int, bytes]
    cid: CID
    shard: Shard | None = None  # the shard that holds the link to a sub-shard
    number: int = 0


def diff(before: CID, after: CID) -> Walk[Change]:
    """Yields the changes from one tree to the other, depth first.

    Within a folder they come sorted by name, or by its hash if one side is a HAMT. Raises DecodeError for
    directories that contradict themselves and LimitExceeded past `MAX_FOLDER_DEPTH`.
    """
    pending: list[Generator[Want | Change | tuple[str, CID, CID], Buffer | None, None]] = []
    pair: tuple[str, CID, CID] | None = ("", before, after)
    path: list[str] = []
    while True:
        if pair is not None and pair[1] != pair[2]:
            name, old, new = pair
            here = (*path, name) if pending else ()
            old_folder = yield from _folder(old)
            new_folder = None if old_folder is None else (yield from _folder(new))
            if old_folder is None or new_folder is None:
                yield Change(ChangeKind.CHANGED, here, old, new)
            else:
                if len(pending) >= MAX_FOLDER_DEPTH:
                    raise LimitExceeded(f"{old}: folders deeper than {MAX_FOLDER_DEPTH}")
                if _stat(old_folder) != _stat(new_folder):
                    yield Change(ChangeKind.CHANGED, here, old, new)
                path = list(here)
                pending.append(_merge(here, old_folder, new_folder))
        pair = None
        answer: Buffer | None = None
        while pending and pair is None:
            try:
                item = pending[-1].send(answer)
            except StopIteration:
                pending.pop()
                path = path[:-1]
                answer = None
                continue
            if isinstance(item, Want | Change):
                answer = yield item
            else:
                pair = item
        if pair is None:
            return


def _stat(folder: _Folder) -> tuple[object, object]:
    return folder.message.mode, folder.message.mtime


def _folder(cid: CID) -> Steps[_Folder | None]:
    """The directory that `cid` is, None for anything else."""
    if cid.codec != DAG_PB:
        return None
    rows, payload = dag_pb.decode_rows((yield Want(cid)))
    try:
        return _Folder(cid, rows, directory_message(cid, payload))
    except NotADirectory:
        return None


class _Side:
    """What is left of one folder, lowest keys last."""

    def __init__(self, folder: _Folder, by_hash: bool) -> None:
        self._by_hash = by_hash
        self.items: list[_Item] = []
        if folder.message.kind is Kind.HAMT:
            self._push(Shard(folder.cid, folder.rows, folder.message, 0, 0))
            return
        named: dict[bytes, CID] = {}
        for cid, name, _ in folder.rows:
            named.setdefault(name or b"", cid)
        items = [self._entry(name, cid) for name, cid in named.items()]
        self.items = sorted(items, key=_first, reverse=True)

    def _entry(self, name: bytes, cid: CID) -> _Item:
        key = (hash_name(name) if self._by_hash else 0, name)
        return _Item(key, key, cid)

    def _push(self, shard: Shard) -> None:
        free = HASH_BITS - bits_of(shard.fanout) * (shard.level + 1)  # bits of the hash below a bucket
        found: list[_Item] = []
        for slot in shard.slots:
            if slot.name:
                shard.check(slot)
                found.append(self._entry(slot.name, slot.cid))
                continue
            low = (shard.path << bits_of(shard.fanout) | slot.number) << free
            above = low + (1 << free) - 1, b"\xff" * 2_000
            found.append(_Item((low, b""), above, slot.cid, shard, slot.number))
        self.items.extend(sorted(found, key=_first, reverse=True))

    def expand(self) -> Walk[Change]:
        """Replaces the lowest item, a sub-shard, by what is in it."""
        item = self.items.pop()
        assert item.shard is not None  # the caller looked
        block = need((yield Want(item.cid)))
        self._push(item.shard.child(item.number, item.cid, block))


def _first(item: _Item) -> tuple[int, bytes]:
    return item.first


def _merge(
    path: tuple[str, ...], before: _Folder, after: _Folder
) -> Generator[Want | Change | tuple[str, CID, CID], Buffer | None, None]:
    """Yields what one side alone has as changes, and (name, CID, CID) for names whose CIDs differ."""
    by_hash = Kind.HAMT in (before.message.kind, after.message.kind)
    left, right = _Side(before, by_hash), _Side(after, by_hash)
    while left.items or right.items:
        old = left.items[-1] if left.items else None
        new = right.items[-1] if right.items else None
        if old is not None and (new is None or old.last < new.first):
            if old.shard is not None:
                yield from left.expand()
            else:
                left.items.pop()
                yield Change(ChangeKind.REMOVED, (*path, _name(old)), old.cid, None)
        elif new is not None and (old is None or new.last < old.first):
            if new.shard is not None:
                yield from right.expand()
            else:
                right.items.pop()
                yield Change(ChangeKind.ADDED, (*path, _name(new)), None, new.cid)
        elif old is not None and new is not None:  # they overlap
            yield from _overlap(left, right, old, new)


def _overlap(
    left: _Side, right: _Side, old: _Item, new: _Item
) -> Generator[Want | Change | tuple[str, CID, CID], Buffer | None, None]:
    if (old.first, old.last, old.cid) == (new.first, new.last, new.cid):
        left.items.pop()
        right.items.pop()
        return
    if old.shard is None and new.shard is None:
        left.items.pop()
        right.items.pop()
        yield _name(old), old.cid, new.cid
        return
    # The wider one first: then equal shards meet each other.
    if old.shard is not None and (new.shard is None or _width(old) >= _width(new)):
        yield from left.expand()
    if new.shard is not None and (old.shard is None or _width(new) >= _width(old)):
        yield from right.expand()


def _width(item: _Item) -> int:
    return item.last[0] - item.first[0]


def _name(item: _Item) -> str:
    return item.first[1].decode("utf-8", "surrogateescape")
