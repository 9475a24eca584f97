"""`holdfast car export`: DAGs of the store as one archive, depth first."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cli.car_output import CarWriter
from cli.output import meter
from cli.streams import is_stdout
from cli.target import LARGE_BLOCK_BYTES, Target
from merkledag import car, dag_pb, unixfs
from merkledag.block import Block, verify_block
from merkledag.codecs import DAG_PB, RAW
from merkledag.errors import MerkledagError
from merkledag.hamt import prefix_chars
from merkledag.scope import EntityBytes, walk_scope
from merkledag.steps import Want, inline, run
from merkledag.traverse import Scope
from merkledag.unixfs import Kind
from storage_node.errors import BlockNotFound
from storage_node.fingerprints import FingerprintSet

if TYPE_CHECKING:
    from cli.sources import ContentSource
    from merkledag.car_index import IndexKind
    from merkledag.cid import CID
    from merkledag.steps import Buffer, Walk
    from storage_node.blockstore.interface import View
    from storage_node.blockstore.store import Store

MAX_SEARCHED_NODES: Final = 10_000  # links looked at to tell where a missing block belongs
RAW_BYTES_UNSEEN: Final = b""  # a raw block has no links: a walk need not see its bytes


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Which blocks, and in what form they are written."""

    roots: Sequence[CID]
    scope: Scope
    entity_bytes: EntityBytes | None
    dups: bool
    version: int
    index: IndexKind | None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    blocks: int
    size_bytes: int


class Exporter:
    """Walks DAGs; large raw blocks of the store are never brought into this process's memory.

    `verify` hashes those again too, as the source does with all that it gives.
    """

    def __init__(self, store: Store, source: ContentSource, *, verify: bool) -> None:
        self._store = store
        self._source = source
        self._verify = verify

    def write(self, request: ExportRequest, output: str, *, progress: bool) -> Exported:
        """Writes the archive to a new file, or to stdout.

        Exit 3 with nothing left behind when a block is missing, 4 when the file exists.
        """
        expected_bytes = self._expected_bytes(request)  # so that an absent root leaves no file behind
        data_bytes = None
        if request.version == 2 and not _is_new_file(output):
            data_bytes = self._data_bytes(request)
        bar = meter("exported", expected_bytes, wanted=progress)
        try:
            with Target(output) as target:
                writer = CarWriter(
                    target, request.roots, version=request.version, index=request.index, data_bytes=data_bytes
                )
                for block, view in self._blocks(request):
                    bar.advance(len(block.data if view is None else view))
                    if view is None:
                        writer.add(block.cid, block.data)
                    else:
                        writer.add_view(block.cid, view)
                writer.finish()
            return Exported(writer.blocks, target.size_bytes)
        finally:
            bar.finish()

    def _blocks(self, request: ExportRequest) -> Iterator[tuple[Block, View | None]]:
        """Each block, and a view of it, to be entered, where its bytes were left in the store."""
        seen = FingerprintSet()
        many = len(request.roots) > 1 and not request.dups
        for root in request.roots:
            walk = walk_scope(
                root,
                request.scope,
                request.entity_bytes,
                skip=(lambda cid: bytes(cid) in seen) if many else None,
                dedupe=not request.dups,
                is_new=FingerprintSet().add,
            )
            for block, view in self._drive(root, walk, sees_raw=request.entity_bytes is not None):
                if many and not seen.add(bytes(block.cid)):
                    continue  # in parts of files, of which all bytes are seen: there is no view
                yield block, view

    def _drive(
        self, root: CID, walk: Walk[Block], *, sees_raw: bool
    ) -> Generator[tuple[Block, View | None], None, None]:
        view: View | None = None
        try:
            item = next(walk)
            while True:
                if not isinstance(item, Want):
                    yield item, view
                    item = walk.send(None)
                    continue
                cid = item.cid
                data: Buffer | None = inline(cid)
                view = self._find(cid) if data is None and cid.codec == RAW and not sees_raw else None
                if view is not None and len(view) < LARGE_BLOCK_BYTES:
                    with view as small:  # reading it here and now is less work than leaving it
                        data, view = bytes(small), None
                elif view is not None:
                    data = RAW_BYTES_UNSEEN
                item = walk.send(self._get(root, cid) if data is None else data)
        except StopIteration:
            return
        finally:
            walk.close()

    def _find(self, cid: CID) -> View | None:
        view = self._store.find(cid.multihash)
        return _Verified(cid, view) if view is not None and self._verify else view

    def _get(self, root: CID, cid: CID) -> Buffer:
        try:
            return self._source.get(cid)
        except BlockNotFound as error:
            raise BlockNotFound(f"{error}; it belongs to {self._path(root, cid)}") from None

    def _path(self, root: CID, wanted: CID) -> str:
        """The path below `root` that needs a block, as far as folders and files that are here tell."""
        stack, seen = [(root, str(root))], {root}
        while stack and len(seen) < MAX_SEARCHED_NODES:
            cid, path = stack.pop()
            if cid.codec != DAG_PB or (found := self._store.find(cid.multihash)) is None:
                continue
            with found as data:
                for link, name in _named_links(bytes(data)):
                    below = f"{path}/{name}" if name else path
                    if link == wanted:
                        return below
                    if link not in seen:
                        seen.add(link)
                        stack.append((link, below))
        return str(root)

    def _data_bytes(self, request: ExportRequest) -> int:
        """The size of the CARv1, for a header that has to be written before it."""
        total = len(car.header(request.roots))
        for block, view in self._blocks(request):
            length = len(block.data if view is None else view)
            if view is not None:
                view.__exit__(None, None, None)  # unread
            total += len(car.frame_head(block.cid, length)) + length
        return total

    def _expected_bytes(self, request: ExportRequest) -> int | None:
        """About what will be written, for the progress line, if that can be told from the roots."""
        from merkledag.reader import stat

        total: int | None = 0 if request.scope == "all" and request.entity_bytes is None else None
        for root in request.roots:
            try:
                found = run(stat(root), self._source.get)
            except MerkledagError:  # the walk will say what is wrong with it, if anything is
                total = None
                continue
            total = None if total is None or found.kind == "other" else total + found.size_bytes
        return total


class _Verified:
    """A view whose bytes are hashed when it is entered."""

    __slots__ = ("_cid", "_view")

    def __init__(self, cid: CID, view: View) -> None:
        self._cid = cid
        self._view = view

    def __len__(self) -> int:
        return len(self._view)

    def __enter__(self) -> memoryview:
        data = self._view.__enter__()
        try:
            verify_block(self._cid, data)
        except BaseException:
            self._view.__exit__(None, None, None)
            raise
        return data

    def __exit__(self, *_: object) -> None:
        self._view.__exit__(None, None, None)


def _named_links(block: bytes) -> list[tuple[CID, str]]:
    """The links of a dag-pb node with the names that paths have; chunks and inner HAMT nodes have none."""
    node = dag_pb.decode(block)
    width = 0
    with suppress(MerkledagError):
        message = unixfs.decode(node.data or b"")
        if message.kind is Kind.HAMT and message.fanout:
            width = prefix_chars(message.fanout)
    return [(link.cid, (link.name or "")[width:]) for link in node.links]


def _is_new_file(output: str) -> bool:
    return not is_stdout(output) and not os.path.lexists(output)
