"""The mutable tree of a node (MFS): UnixFS folders under one root whose CID is kept in the meta store.

Every change builds new blocks, stores them durably, and then swaps the root in one transaction, if nobody
else has swapped it meanwhile; else the change is made again on the new root. So several processes may write
at once, a reader sees whole changes only, and what a method returned from survives `kill -9`. The root keeps
its blocks from being collected (`roots`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from merkledag import mutate_file
from merkledag.block import Block
from merkledag.builder import Link
from merkledag.cid import CID
from merkledag.directory import build_directory, checked_name
from merkledag.errors import InvalidPath, NoSuchLink, NotADirectory, NotAFile, PathError
from merkledag.path import MAX_PATH_CHARS, MAX_SEGMENTS
from merkledag.profile import ImportProfile
from merkledag.reader import read_file, stat
from merkledag.steps import Buffer, iterate, run
from merkledag.unixfs import Mtime
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import BlockNotFound
from storage_node.meta import Meta, Table
from storage_node.mfs_partial import PartialNodes
from storage_node.mfs_view import Get, Segments, View, text
from storage_node.pins import protect

ROOT_KEY = b"mfs-root"  # in Table.RECORDS: version (8 bytes, big-endian) ‖ binary CID
_VERSION_BYTES = 8

T = TypeVar("T")


def parse(path: str) -> Segments:
    """The names in an absolute path; `.` and empty ones vanish, `..` leads up. Raises InvalidPath."""
    if not path.startswith("/"):
        raise InvalidPath(f"{path[:80]!r}: paths of the mutable tree begin with a slash")
    if len(path) > MAX_PATH_CHARS:
        raise InvalidPath(f"path of {len(path)} characters; at most {MAX_PATH_CHARS}")
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            try:
                checked_name(part)
            except ValueError as error:
                raise InvalidPath(f"{path[:80]!r}: {error}") from None
            kept.append(part)
    if len(kept) > MAX_SEGMENTS:
        raise InvalidPath(f"path of {len(kept)} segments; at most {MAX_SEGMENTS}")
    return tuple(kept)


def roots(meta: Meta) -> Iterator[CID]:
    """What a collection must keep: the tree's root, looked up when asked. See PartialNodes for what of it
    need not be here."""
    _, root = _record(meta.get(Table.RECORDS, ROOT_KEY))
    if root is not None:
        yield root


def _record(value: bytes | None) -> tuple[int, CID | None]:
    if value is None:
        return 0, None
    return int.from_bytes(value[:_VERSION_BYTES], "big"), CID.decode(value[_VERSION_BYTES:])


class _Overtaken(Exception):
    """A file is not the one any more that a long write began with; `cid` is what it is now."""

    def __init__(self, cid: CID | None) -> None:
        super().__init__()
        self.cid = cid


class Mfs:
    """The tree. `get` reads blocks (the store's, or with the network behind it); `now_ns` tells the time.

    Methods take parsed paths; they raise PathError, what `get` raises, and what the store raises.
    """

    def __init__(
        self, store: Blockstore, meta: Meta, profile: ImportProfile, get: Get, now_ns: Callable[[], int]
    ) -> None:
        self._store = store
        self._meta = meta
        self._profile = profile
        self._get = get
        self._now_ns = now_ns
        self._partial = PartialNodes(meta)
        self._empty, blocks = build_directory(profile, [])
        self._empty_block = blocks[-1]

    def view(self) -> View:
        """The tree as it is now, for reading: later changes do not show in it."""
        return self._view_of(self._current()[1])

    def _view_of(self, root: CID) -> View:
        return View(self._profile, root, self._block, self._partial)

    def _current(self) -> tuple[int, CID]:
        version, root = _record(self._meta.get(Table.RECORDS, ROOT_KEY))
        return version, self._empty.cid if root is None else root

    def _block(self, cid: CID) -> Buffer:
        """The empty folder is there before anything was written."""
        return self._empty_block.data if cid == self._empty.cid else self._get(cid)

    def _change(self, step: Callable[[View], None], whole: Iterable[bytes] = ()) -> CID:
        """Makes a change on the newest root, again and again until nobody came in between; the new root.

        `whole` are nodes that are found to be whole now.
        """
        with self._store.lease():
            while True:
                version, root, view, _ = self._on_newest(step)
                if view.root == root:
                    return root
                made = [(cid.multihash, data) for cid, data in view.blocks.items()]
                self._store.put_many([*made, (self._empty_block.cid.multihash, self._empty_block.data)])
                if self._swap(version, view.root, view.partial, whole):
                    return view.root

    def _swap(self, version: int, root: CID, partial: Iterable[bytes], whole: Iterable[bytes]) -> bool:
        """Makes `root` the tree's, durably, if that is still `version`; whether it was."""
        with self._meta.write() as write:
            if _record(write.get(Table.RECORDS, ROOT_KEY))[0] != version:
                return False
            value = (version + 1).to_bytes(_VERSION_BYTES, "big") + bytes(root)
            write.put(Table.RECORDS, ROOT_KEY, value)
            self._partial.change(write, whole, partial)
            return True

    def _on_newest(self, step: Callable[[View], T]) -> tuple[int, CID, View, T]:
        """Takes a step on the newest root; on the next one, if a collection took blocks that only the old
        one had. Returns its version, that root, the view and what `step` returned.
        """
        while True:
            version, root = self._current()
            view = self._view_of(root)
            try:
                return version, root, view, step(view)
            except BlockNotFound:
                if self._current()[0] == version:
                    raise

    def mkdir(self, path: Segments, *, parents: bool = False) -> None:
        """Makes a folder; with `parents` also those above it, and one that is there is no error."""

        def step(view: View) -> None:
            there = view.at(path, parents=parents)
            if there is None:
                view.put(path, self._empty.cid, self._empty.tsize, parents=parents)
            elif not (parents and view.is_folder(there)):
                raise PathError(f"{text(path)} exists already")

        self._change(step)

    def link(self, cid: CID, path: Segments, *, parents: bool = False, force: bool = False) -> None:
        """Puts a node into the tree at `path`, which is free, or with `force` is replaced.

        Those of its blocks that are here stay from now on; none is fetched but the root. If all are, a
        collection refuses to go on when one is lost later.
        """

        def step(view: View) -> None:
            if not path or (view.at(path, parents=parents) is not None and not force):
                raise PathError(f"{text(path)} exists already")
            view.put(path, cid, parents=parents)
            if missing:
                view.partial.add(cid.multihash)

        with self._store.lease():
            if not cid.is_identity:
                self._store.put_many([(cid.multihash, self._block(cid))])
            missing = protect(self._store, cid)
            self._change(step, () if missing else self._partial.within(self._store, cid))

    def copy(self, source: Segments, target: Segments, *, parents: bool = False, force: bool = False) -> None:
        """Puts what is at `source` at `target` too."""

        def step(view: View) -> None:
            if not target or (view.at(target, parents=parents) is not None and not force):
                raise PathError(f"{text(target)} exists already")
            cid = view.find(source)
            partial = view.partial_from(source) is not None
            view.put(target, cid, parents=parents)
            if partial:
                view.partial.add(cid.multihash)

        self._change(step)

    def move(self, source: Segments, target: Segments, *, into: bool = False) -> None:
        """Moves a node: into a target that is a folder (which `into` demands), else in its place."""

        def step(view: View) -> None:
            cid = view.find(source)
            there = view.at(target)
            place = target
            if view.is_folder(there):
                place = (*target, *source[-1:])
            elif into:
                raise NotADirectory(f"{text(target)} is no folder")
            if place == source:
                return
            if place[: len(source)] == source:
                raise PathError(f"{text(source)} cannot be moved into itself")
            if place != target and view.is_folder(view.at(place)):
                raise PathError(f"{text(place)} exists already")
            partial = view.partial_from(source) is not None
            view.put(place, cid)
            view.remove(source)
            if partial:
                view.partial.add(cid.multihash)

        self._change(step)

    def remove(self, path: Segments, *, recursive: bool = False) -> None:
        """Removes a node; folders, and what is lost, only if `recursive`.

        The root can be only where its block is lost.
        """
        if not path and recursive and self._give_up():
            return

        def step(view: View) -> None:
            if not path:
                raise PathError("the root of the tree cannot be removed")
            cid = view.find(path)
            if not recursive and view.is_folder(cid):
                raise PathError(f"{text(path)} is a folder: -r removes it with all that is in it")
            view.remove(path)

        self._change(step)

    def _give_up(self) -> bool:
        """Begins an empty tree if the root's block is lost; whether it was."""
        with self._store.lease():
            version, root = self._current()
            try:
                self._block(root)
                return False
            except BlockNotFound:
                self._store.put_many([(self._empty.cid.multihash, self._empty_block.data)])
                return self._swap(version, self._empty.cid, (), ())

    def write(
        self,
        path: Segments,
        data: Iterable[Buffer],
        *,
        offset: int = 0,
        create: bool = False,
        parents: bool = False,
        truncate: bool = False,
    ) -> None:
        """Writes `data` into a file from `offset` on; `truncate` empties it before, zeros fill a gap.

        The file keeps its mode; a modification time, if it has one, becomes now. While the data came,
        somebody else may have changed the file: then it is written into what it is by then.
        """
        with self._store.lease():
            _, _, view, old = self._on_newest(lambda view: view.at(path, parents=parents))
            while True:
                if old is None and not create:
                    raise NoSuchLink(path[-1], text(path[:-1]))
                if view.is_folder(old):
                    raise NotAFile(f"{text(path)} is a folder")
                counted = _Counted(data)
                link = self._rewritten(old, offset, counted, truncate=truncate)
                try:
                    self._change(_exchange(path, old, link, parents=parents, keeps=not truncate))
                    return
                except _Overtaken as newer:
                    # What was read is in the store already, in the file that came too late.
                    end = offset + counted.size_bytes
                    data = iterate(read_file(link.cid, offset, end), self._block)
                    old, view = newer.cid, self.view()

    def _rewritten(self, old: CID | None, offset: int, data: Iterable[Buffer], *, truncate: bool) -> Link:
        """Stores the blocks of the changed file."""
        mode: int | None = None
        mtime: Mtime | None = None
        before: mutate_file.OldFile | None = None
        if old is not None:
            before = run(mutate_file.survey(self._profile, old), self._block)
            node = run(stat(old), self._block)
            mode = node.mode
            mtime = None if node.mtime is None else Mtime.of_ns(self._now_ns())
        walk = mutate_file.rewrite(
            self._profile, before, offset, data, truncate=truncate, mode=mode, mtime=mtime
        )
        links: list[Link] = []
        self._store.put_many(_blocks(iterate(walk, self._block), links))
        return links[0]


class _Counted:
    """Pieces of data, and how many bytes went by."""

    def __init__(self, data: Iterable[Buffer]) -> None:
        self._data = data
        self.size_bytes = 0

    def __iter__(self) -> Iterator[Buffer]:
        for piece in self._data:
            self.size_bytes += len(piece)
            yield piece


def _blocks(items: Iterator[Block | Link], links: list[Link]) -> Iterator[tuple[bytes, Buffer]]:
    """What a store takes; a Link goes into `links`."""
    for item in items:
        if isinstance(item, Link):
            links.append(item)
        else:
            yield item.cid.multihash, item.data


def _exchange(
    path: Segments, old: CID | None, link: Link, *, parents: bool, keeps: bool
) -> Callable[[View], None]:
    """The step that puts a file where `old` is; raises _Overtaken where something else is.

    `keeps` says whether blocks of the old file may be in the new one.
    """

    def step(view: View) -> None:
        there = view.at(path, parents=parents)
        if there != old:
            raise _Overtaken(there)
        partial = keeps and there is not None and view.partial_from(path) is not None
        view.put(path, link.cid, link.tsize, parents=parents)
        if partial:
            view.partial.add(link.cid.multihash)

    return step
