"""Editing UnixFS folders in place: the CID is the one that building the folder afresh would give.

Only the shards on the way to the changed names are read and written. Every edit ends in the form that the
profile asks for: a flat folder that outgrows its threshold becomes a HAMT, and a HAMT that shrinks to the
threshold becomes flat again (IPIP-499; both change at `>`). Mode and modification time stay, and so does the
fanout of a HAMT.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from merkledag import dag_pb, hamt
from merkledag.block import Block
from merkledag.builder import Link
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.codecs import name as codec_name
from merkledag.dag_pb import name_bytes
from merkledag.directory import DirEntry, checked_name, entry_bytes, envelope_bytes, outgrown, write_folder
from merkledag.errors import NoSuchLink, NotADirectory
from merkledag.folder import AHEAD, Shard, Slot, directory_message
from merkledag.hamt import Held, Item, bits_of, bucket, hash_name
from merkledag.profile import ImportProfile
from merkledag.steps import Steps, Want
from merkledag.unixfs import Data, Kind

_SHORTEST = CID(1, RAW, b"\0\0")  # no link is shorter than that to an empty identity block

_Named = dict[bytes, tuple[CID, int | None]]  # entries: CID and tsize by name


class Edited(NamedTuple):
    """An edited folder: its new root, and the blocks that the edit made, the root last."""

    link: Link
    blocks: list[Block]


class _Change(NamedTuple):
    """A name, its hash, and what it shall stand for: None removes it."""

    hashed: int
    name: bytes
    item: Item | None


def edit(
    profile: ImportProfile,
    root: CID,
    put: Iterable[DirEntry] = (),
    remove: Iterable[str] = (),
) -> Steps[Edited]:
    """The folder `root` with the entries `put` added or replaced, and the names `remove` gone.

    All changes happen at once, each shard is read and written once. A name in both is replaced. Raises
    NoSuchLink for a name to remove that is not there, NotADirectory, ValueError for names no folder can
    hold, DecodeError for a folder that contradicts itself, LimitExceeded where two names share all 64 bits of
    their hash. (A HAMT that somebody else made below the threshold is made flat by the first edit that
    shrinks it; growth alone does not reveal it without reading it all.)
    """
    changes = _changes(put, remove)
    block = yield Want(root)
    if root.codec != DAG_PB:
        raise NotADirectory(f"{root} is a {codec_name(root.codec)} block, not a directory")
    rows, payload = dag_pb.decode_rows(block)
    message = directory_message(root, payload)
    if message.kind is Kind.DIRECTORY:
        named: _Named = {}
        for cid, name, tsize in rows:
            named.setdefault(name or b"", (cid, tsize))
        return _rebuilt(profile, root, named, changes, message)
    profile = replace(profile, hamt_fanout=message.fanout or profile.hamt_fanout)
    editor = _Editor(profile, root)
    top = Shard(root, rows, message, 0, 0)
    slots = yield from editor.slots(top, changes)
    if editor.may_shrink():
        small = yield from _all_links(profile, top, message, editor.growth_bytes, editor.growth_entries)
        if small is not None:
            return _rebuilt(profile, root, small, changes, message)
    written = hamt.write_shard(profile, slots, editor.blocks, message.mode, message.mtime)
    return Edited(written, editor.blocks)


def _changes(put: Iterable[DirEntry], remove: Iterable[str]) -> list[_Change]:
    wanted: dict[bytes, Item | None] = {}
    for name in remove:
        wanted[name_bytes(name)] = None
    for entry in put:
        raw = checked_name(entry.name)
        wanted[raw] = Item(hash_name(raw), raw, entry.cid, entry.tsize)
    return sorted(_Change(hash_name(name), name, item) for name, item in wanted.items())


def _rebuilt(
    profile: ImportProfile,
    root: CID,
    named: _Named,
    changes: Sequence[_Change],
    message: Data,
) -> Edited:
    """A folder small enough to have been read whole, with the changes made."""
    for change in changes:
        if change.item is not None:
            named[change.name] = change.item.cid, change.item.tsize
        elif named.pop(change.name, None) is None:
            raise NoSuchLink(change.name.decode("utf-8", "surrogateescape"), root)
    rows = [(name, *held) for name, held in sorted(named.items(), key=_first)]
    return Edited(*write_folder(profile, rows, message.mode, message.mtime))


def _first(row: tuple[bytes, object]) -> bytes:
    return row[0]


def _all_links(
    profile: ImportProfile, root: Shard, message: Data, growth_bytes: int, growth_entries: int
) -> Steps[_Named | None]:
    """All entries of a HAMT, or None as soon as it is certain that it stays one, with what it will grow by.

    Upper shards are read first: they tell soonest, for a sub-shard holds two entries at least.
    """
    named: _Named = {}
    least = 2 * entry_bytes(profile, b"n", _SHORTEST, None)
    size = envelope_bytes(profile, message.mode, message.mtime) + growth_bytes
    unread: deque[tuple[Shard, int, CID]] = deque()
    shard = root
    while True:
        for slot in shard.slots:
            number, name, cid, tsize = slot
            if not name:
                unread.append((shard, number, cid))
                size += least
                continue
            shard.check(slot)
            named[name] = cid, tsize
            size += entry_bytes(profile, name, cid, tsize)
        if outgrown(profile, len(named) + 2 * len(unread) + growth_entries, size):
            return None
        if not unread:
            return named
        parent, number, cid = unread.popleft()
        block = yield Want(cid, tuple([each[2] for each in islice(unread, AHEAD)]))
        shard = parent.child(number, cid, block)
        size -= least


class _Editor:
    """One edit of one HAMT, and by how much its entries and their estimated size change."""

    def __init__(self, profile: ImportProfile, root: CID) -> None:
        self._profile = profile
        self._root = root
        self._bits = bits_of(profile.hamt_fanout)
        self.blocks: list[Block] = []
        self.growth_bytes = 0
        self.growth_entries = 0

    def may_shrink(self) -> bool:
        """Whether a folder that had to be a HAMT before may be flat after the edit."""
        profile = self._profile
        fewer = profile.max_directory_links is not None and self.growth_entries < 0
        return profile.hamt_threshold_bytes > 0 and (self.growth_bytes < 0 or fewer)

    def slots(
        self, shard: Shard, changes: Sequence[_Change]
    ) -> Steps[list[tuple[int, bytes, CID, int | None]]]:
        """The buckets of `shard` after the changes, all of which belong below it; at most 21 levels deep."""
        groups: dict[int, list[_Change]] = {}
        for change in changes:
            groups.setdefault(bucket(change.hashed, shard.level, self._bits), []).append(change)
        present = {slot.number: slot for slot in shard.slots}
        ahead = [slot.cid for number in groups if (slot := present.get(number)) is not None and not slot.name]
        done: list[tuple[int, bytes, CID, int | None]] = []
        for number in sorted(present.keys() | groups.keys()):
            slot = present.get(number)
            group = groups.get(number)
            after: Held | None
            if group is None:
                assert slot is not None  # a number comes from one of the two
                after = slot[1:]
            elif slot is not None and not slot.name:
                ahead.remove(slot.cid)
                after = yield from self._sub_shard(shard, slot, group, tuple(ahead))
            else:
                after = self._entries(shard, slot, group)
            if after is not None:
                done.append((number, *after))
        return done

    def _sub_shard(
        self, shard: Shard, slot: Slot, group: list[_Change], ahead: tuple[CID, ...]
    ) -> Steps[Held | None]:
        """What takes the place of a sub-shard: nothing, its only entry left, or a shard again."""
        block = yield Want(slot.cid, ahead)
        slots = yield from self.slots(shard.child(slot.number, slot.cid, block), group)
        if not slots:
            return None
        if len(slots) == 1 and slots[0][1]:
            return slots[0][1:]
        written = hamt.write_shard(self._profile, slots, self.blocks)
        return b"", written.cid, written.tsize

    def _entries(self, shard: Shard, slot: Slot | None, group: list[_Change]) -> Held | None:
        """What a bucket without a sub-shard holds after the changes."""
        items: dict[bytes, Item] = {}
        if slot is not None:
            shard.check(slot)
            items[slot.name] = Item(hash_name(slot.name), *slot[1:])
        for change in group:
            old = items.pop(change.name, None)
            if old is not None:
                self.growth_entries -= 1
                self.growth_bytes -= entry_bytes(self._profile, *old[1:])
            if change.item is not None:
                items[change.name] = change.item
                self.growth_entries += 1
                self.growth_bytes += entry_bytes(self._profile, *change.item[1:])
            elif old is None:
                raise NoSuchLink(change.name.decode("utf-8", "surrogateescape"), self._root)
        run = sorted(items.values())
        return hamt.place(self._profile, run, shard.level, self.blocks) if run else None
