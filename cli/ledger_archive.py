"""Writes an archive of a ledger's history: into a stream, or a file that an interrupted one goes on with."""

from __future__ import annotations

import os
import shutil
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from cli.ledger_replay import replayed, scratch_folder
from cli.ledger_sources import open_history
from cli.output import blocks_text, invalid, meter, not_found, note, raw
from cli.part import Part, check_length, full_disk, remove_tree
from cli.streams import check_binary_stdout, is_stdout
from cli.target import give_name
from ledger.engine.blocks import node_cid
from merkledag import car

if TYPE_CHECKING:
    from cli.home import Home
    from cli.ledger_sources import History
    from ledger.engine.archive import Manifest
    from merkledag.cid import CID


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

    With `state` the state after the last block is in it: where the source is not a ledger's own folder, its
    history is run again to have it.
    """
    target = None
    if is_stdout(file):
        check_binary_stdout("an archive", json_output=json_output)
    else:
        target = _new_file(file)
    async with open_history(home, source, ledger) as history:
        if not state or history.storage is not None:
            return await _write(history, target, state=state, progress=progress)
        home.ensure()
        scratch = scratch_folder(home, history.genesis) / "whole"
        await replayed(history, scratch, "running", progress=progress, keep_history=True)
        if history.origin is not None:
            shutil.copyfile(history.origin, scratch / history.origin.name)
    async with open_history(home, str(scratch)) as again:
        told = await _write(again, target, state=state, progress=progress)
    remove_tree(scratch.parent)
    return told


async def _write(history: History, target: Path | None, *, state: bool, progress: bool) -> dict[str, Any]:
    if target is None:
        manifest = _manifest(history, state=state)
        sink = _Stdout()
        _begin(sink, history, manifest)
        await _write_blocks(sink, history, manifest, 0, None, progress)
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
            manifest, last, prev = _resume(file, history, state=state)
            await _write_blocks(file, history, manifest, last, prev, progress)
            file.flush()
            os.fsync(file.fileno())
        give_name(part.content, target)
    except BaseException:
        part.release()
        raise
    part.discard()
    return _told(manifest)


def _resume(file: BinaryIO, history: History, *, state: bool) -> tuple[Manifest, int, CID | None]:
    """What was written before, cut behind its last whole block; a new beginning where that is of no use."""
    from ledger.engine.archive import check_link
    from ledger.engine.archive_reader import ArchiveReader
    from ledger.engine.errors import InvalidArchive
    from merkledag.errors import MerkledagError

    last, prev = 0, None
    reader = None
    try:
        reader = ArchiveReader(file)
        if reader.contents.genesis != history.genesis or reader.contents.manifest.last > history.last:
            raise InvalidArchive("of another chain")
        for given in reader.blocks():
            check_link(given, history.genesis, prev)
            last, prev = given.block.height, node_cid(given.raw)
    except (InvalidArchive, MerkledagError):
        if reader is None or not reader.contents.begun:
            manifest = _manifest(history, state=state)
            file.seek(0)
            file.truncate()
            _begin(file, history, manifest)
            return manifest, 0, None
        note(f"going on after block {last}")
    file.seek(reader.offset)
    file.truncate()
    return reader.contents.manifest, last, prev


def _manifest(history: History, *, state: bool) -> Manifest:
    from ledger.engine.archive import KIND, Manifest, state_root
    from ledger.engine.archive_reader import ArchiveReader

    origin = root = None
    if history.origin is not None:
        with history.origin.open("rb") as file:
            origin = ArchiveReader(file).root
    if state and history.last:
        assert history.storage is not None, "a state comes out of a store"
        root = node_cid(state_root(history.storage.state_items(), history.last, history.app_hash).encode())
    return Manifest(
        kind=KIND,
        chain=history.genesis.chain_id,
        genesis=node_cid(history.genesis.encode()),
        first=1,
        last=history.last,
        tip=history.tip,
        app_hash=history.app_hash,
        state=root,
        origin=origin,
    )


def _begin(sink: _Sink, history: History, manifest: Manifest) -> None:
    """Writes all that comes before the blocks."""
    from ledger.engine.archive import head, section, state_parts, state_root

    sink.write(head(manifest, history.genesis))
    if history.origin is not None and manifest.origin is not None:
        with history.origin.open("rb") as file:
            file.seek(len(car.header([manifest.origin])))
            while data := file.read(COPY_BYTES):
                sink.write(data)
    if manifest.state is not None:
        assert history.storage is not None, "a state comes out of a store"
        root = state_root(history.storage.state_items(), history.last, history.app_hash)
        sink.write(section(root.encode()))
        for part in state_parts(history.storage.state_items()):
            sink.write(section(part))


async def _write_blocks(
    sink: _Sink, history: History, manifest: Manifest, done: int, prev: CID | None, progress: bool
) -> None:
    """Writes the blocks after `done` up to the manifest's last, each checked against the one before."""
    from ledger.engine.archive import check_link, sections

    counted = meter("exporting", manifest.last - done, wanted=progress, as_text=blocks_text)
    try:
        if done < manifest.last:
            async with aclosing(history.blocks(done + 1)) as blocks:
                async for given in blocks:
                    check_link(given, history.genesis, prev)
                    prev = node_cid(given.raw)
                    sink.write(sections(given))
                    counted.advance(1)
                    if given.block.height == manifest.last:
                        break
    finally:
        counted.finish()
    if prev != manifest.tip:
        raise invalid(f"{history.name} gave another block {manifest.last} than when the export began")


def _told(manifest: Manifest) -> dict[str, Any]:

    return {
        "root": str(node_cid(manifest.encode())),
        "chain_id": manifest.chain,
        "first": manifest.first,
        "last": manifest.last,
        "tip": None if manifest.tip is None else str(manifest.tip),
        "app_hash": manifest.app_hash.hex(),
    }
