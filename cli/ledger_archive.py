"""Writes an archive of a ledger's history: into a stream, or a file that an interrupted one goes on with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from cli.ledger_replay import open_storage, remove_scratch, replayed, scratch_folder
from cli.ledger_sources import open_history, require_signed
from cli.output import blocks_text, invalid, meter, not_found, note, raw
from cli.part import Part, check_length, full_disk
from cli.streams import check_binary_stdout, is_stdout
from cli.target import give_name
from ledger.engine.blocks import node_cid
from merkledag import car

if TYPE_CHECKING:
    from cli.home import Home
    from cli.ledger_sources import History
    from ledger.engine.archive import Manifest
    from ledger.engine.archive_links import Links
    from ledger.engine.archive_reader import ArchiveReader
    from ledger.engine.blocks import Block
    from ledger.engine.cometbft.light.block import LightBlock
    from ledger.genesis import Genesis
    from ledger.snapshot import SnapshotManifest

COPY_BYTES = 256 << 10


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class _Stdout:
    def write(self, data: bytes) -> None:
        raw(data)


async def write_archive(
    home: Home, source: str, ledger: str, file: str, *, state: bool, progress: bool, json_output: bool
) -> dict[str, Any]:
    """Writes the archive; what is to be told of it. Exit 4 for a file that exists, 6 on a full disk.

    With `state` it holds one: a running ledger's newest snapshot, else the state after the last block, for
    which an archive's history is run again.
    """
    target = None
    if is_stdout(file):
        check_binary_stdout("an archive", json_output=json_output)
    else:
        target = _new_file(file)
    async with open_history(home, source, ledger) as history:
        require_signed(history)
        if not state or history.storage is not None or history.fetch_snapshot is not None:
            return await _write(history, target, state=state, progress=progress)
        home.ensure()
        scratch = scratch_folder(home, history.genesis) / "whole"
        await replayed(history, scratch, "running", progress=progress, keep_history=True)
        if history.origin is not None:
            shutil.copyfile(history.origin, scratch / history.origin.name)
    async with open_history(home, str(scratch)) as again:
        told = await _write(again, target, state=state, progress=progress)
    remove_scratch(scratch.parent)
    return told


async def _write(history: History, target: Path | None, *, state: bool, progress: bool) -> dict[str, Any]:
    if target is None:
        sink = _Stdout()
        manifest = await _begin(sink, history, state=state)
        await _write_blocks(sink, history, manifest, 0, _links(history.genesis, history.light), progress)
        return _told(manifest)
    try:
        return await _write_file(history, target, state=state, progress=progress)
    except OSError as error:
        raise full_disk(target, error) or error from None


def _new_file(file: str) -> Path:
    target = Path(file)
    check_length(target)
    if os.path.lexists(target):
        raise invalid(f"{target} exists: choose another name")
    if not target.parent.is_dir():
        raise not_found(f"{target.parent}: there is no such folder to write into")
    return target


async def _write_file(history: History, target: Path, *, state: bool, progress: bool) -> dict[str, Any]:
    part = Part(target, f"{node_cid(history.genesis.encode())} {state}")
    try:
        handle = os.open(part.content, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with os.fdopen(handle, "r+b") as file:
            manifest, last, links = await _resume(file, history, state=state)
            await _write_blocks(file, history, manifest, last, links, progress)
            file.flush()
            os.fsync(file.fileno())
        give_name(part.content, target)
    except BaseException:
        part.release()
        raise
    part.discard()
    return _told(manifest)


async def _resume(file: BinaryIO, history: History, *, state: bool) -> tuple[Manifest, int, Links]:
    """What was written before, cut behind its last whole block; a new beginning where that is of no use."""
    from ledger.engine.archive_reader import ArchiveReader
    from ledger.engine.errors import InvalidArchive
    from merkledag.errors import MerkledagError

    try:
        reader = ArchiveReader(file)
        if reader.contents.genesis != history.genesis or reader.contents.manifest.last > history.last:
            raise InvalidArchive("of another chain")
        links = _links(history.genesis, reader.contents.light)
        last = _read_on(reader, links)
    except (InvalidArchive, MerkledagError):
        file.seek(0)
        file.truncate()
        return await _begin(file, history, state=state), 0, _links(history.genesis, history.light)
    if last < reader.contents.manifest.last:
        note(f"going on after block {last}")
    file.seek(reader.offset)
    file.truncate()
    return reader.contents.manifest, last, links


def _read_on(reader: ArchiveReader, links: Links) -> int:
    """The last whole block of an unfinished archive. Raises InvalidArchive for one that does not follow."""
    from ledger.engine.errors import InvalidArchive
    from merkledag.errors import MerkledagError

    last = 0
    blocks = reader.blocks()
    while True:
        try:
            given = next(blocks, None)
        except (InvalidArchive, MerkledagError):
            if not reader.contents.begun:
                raise
            return last
        if given is None:
            return last
        links.add(given)
        last = given.block.height


def _links(genesis: Genesis, light: LightBlock | None) -> Links:
    from ledger.engine.archive_links import Links

    return Links(genesis, light)


async def _begin(sink: _Sink, history: History, *, state: bool) -> Manifest:
    """Writes all that comes before the blocks."""
    if not state or not history.last:
        return _write_head(sink, history, None)
    if history.fetch_snapshot is None:
        return _write_head(sink, history, _stored_state(history))
    with TemporaryDirectory(prefix="holdfast-") as folder:
        found = await _fetched_state(history, history.fetch_snapshot, Path(folder))
        return _write_head(sink, history, found)


class _State(NamedTuple):
    """A state to be written: what is in it, and what writes its sections."""

    manifest: SnapshotManifest
    write: Callable[[_Sink], None]


def _stored_state(history: History) -> _State:
    from ledger.engine.archive import state_manifest, write_state

    if history.light is not None and history.light.height <= history.last:
        raise invalid(f"nothing signed vouches for the state after block {history.last}: leave --state out")
    storage = history.storage
    assert storage is not None, "a state comes out of a store"
    found = state_manifest(storage.state_items(), history.genesis.chain_id, history.last, history.app_hash)
    return _State(found, lambda sink: write_state(sink.write, found, storage.state_items()))


async def _fetched_state(history: History, fetch: Callable[[Path], Awaitable[Block]], folder: Path) -> _State:
    """The newest snapshot, compared with the app hash of its block."""
    from ledger.engine.archive_reader import SnapshotReader
    from ledger.engine.archive_replay import restore_state

    path = folder / "snapshot.car"
    block = await fetch(path)
    with path.open("rb") as file, open_storage(folder / "checked") as storage:
        reader = SnapshotReader(file)
        restore_state(storage, history.genesis, block, reader.state())
    note(f"the state is that after block {block.height}, with the app hash that it states")
    return _State(reader.manifest, lambda sink: _copy(path, reader.head_bytes, sink))


def _write_head(sink: _Sink, history: History, state: _State | None) -> Manifest:
    from ledger.engine.archive import KIND, Manifest, head, light_node
    from ledger.engine.archive_reader import ArchiveReader

    origin, light = None, None if history.light is None else history.light.encode()
    if history.origin is not None:
        with history.origin.open("rb") as file:
            origin = ArchiveReader(file).root
    manifest = Manifest(
        kind=KIND,
        chain=history.genesis.chain_id,
        genesis=node_cid(history.genesis.encode()),
        first=1,
        last=history.last,
        tip=history.tip,
        app_hash=history.app_hash,
        state=None if state is None else state.manifest.cid,
        origin=origin,
        light=None if light is None else node_cid(light_node(light)),
    )
    sink.write(head(manifest, history.genesis, light or b""))
    if history.origin is not None and origin is not None:
        _copy(history.origin, len(car.header([origin])), sink)
    if state is not None:
        state.write(sink)
    return manifest


def _copy(path: Path, begin: int, sink: _Sink) -> None:
    with path.open("rb") as file:
        file.seek(begin)
        while data := file.read(COPY_BYTES):
            sink.write(data)


async def _write_blocks(
    sink: _Sink, history: History, manifest: Manifest, done: int, links: Links, progress: bool
) -> None:
    """Writes the blocks after `done` up to the manifest's last, each checked against the one before."""
    from ledger.engine.archive import sections

    counted = meter("exporting", manifest.last - done, wanted=progress, as_text=blocks_text)
    try:
        if done < manifest.last:
            async with aclosing(history.blocks(done + 1)) as blocks:
                async for given in blocks:
                    links.add(given)
                    sink.write(sections(given))
                    counted.advance(1)
                    if given.block.height == manifest.last:
                        break
    finally:
        counted.finish()
    if links.tip != manifest.tip:
        raise invalid(f"{history.name} gave another block {manifest.last} than when the export began")
    links.finish()


def _told(manifest: Manifest) -> dict[str, Any]:
    return {
        "root": str(node_cid(manifest.encode())),
        "chain_id": manifest.chain,
        "first": manifest.first,
        "last": manifest.last,
        "tip": None if manifest.tip is None else str(manifest.tip),
        "app_hash": manifest.app_hash.hex(),
    }
