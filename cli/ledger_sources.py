"""Where a ledger's history can come from: a running ledger, a ledger's folder, an archive."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cli.output import invalid, not_found, note, unreachable
from cli.streams import STDIO
from cli.urls import is_web_url

if TYPE_CHECKING:
    from cli.home import Home
    from ledger.engine.archive import GivenBlock
    from ledger.engine.archive_reader import ArchiveReader, Contents, Readable
    from ledger.engine.blocks import Block
    from ledger.engine.client import LedgerClient
    from ledger.engine.cometbft.light.block import LightBlock
    from ledger.engine.history import History as Stored
    from ledger.engine.storage import LedgerStorage
    from ledger.genesis import Genesis
    from merkledag.cid import CID


@dataclass(frozen=True, slots=True)
class History:
    """A history that is open: `blocks(first)` gives its blocks from `first` to `last`, each node checked.

    `tip` is the CID of the last block (None before the first) and `app_hash` the state's after it. `light` is
    the light block of `last`, or of the block after it, where validators sign: no history has more.
    `storage` is the ledger's store where that is open, `archive` the archive that it is from.
    `fetch_snapshot` writes the newest snapshot, if there is one, into a file, and tells which block it is of.
    `origin` is an archive of the end of the chain that this one goes on from, if it does.
    """

    name: str
    genesis: Genesis
    last: int
    tip: CID | None
    app_hash: bytes
    blocks: Callable[[int], AsyncGenerator[GivenBlock, None]]
    light: LightBlock | None = None
    storage: LedgerStorage | None = None
    archive: ArchiveReader | None = None
    fetch_snapshot: Callable[[Path], Awaitable[Block]] | None = None
    origin: Path | None = None


@asynccontextmanager
async def open_history(home: Home, source: str, ledger: str = "") -> AsyncIterator[History]:
    """The history that `source` names: a URL, a folder, a file; "" is this home's ledger, running or not."""
    if not source:
        source = _default(home, ledger)
    if is_web_url(source):
        async with _remote(home, source.rstrip("/")) as found:
            yield found
    elif _is_folder(source):
        with _folder(Path(source)) as found:
            yield found
    else:
        with _file(source) as found:
            yield found


def require_signed(history: History) -> None:
    """Says how much of a stopped validator's folder no history has; exit 4 where that is all of it."""
    if history.storage is None or not history.genesis.validators:
        return
    height = history.storage.height()
    if height and history.light is None:
        raise invalid(
            f"{history.name}: it was not noted who signed its blocks. Let it run beside its cometbft for "
            "some seconds; `holdfast ledger import FOLDER --as-chain ID` needs no signatures"
        )
    if height > history.last:
        note(f"blocks {history.last + 1} to {height} are left out: it was not noted who signed them")


def _is_folder(source: str) -> bool:
    return source != STDIO and Path(source).is_dir()


def _default(home: Home, ledger: str) -> str:
    from cli.ledger_files import genesis_file
    from cli.servers import known_ledger

    if not ledger and genesis_file(home).exists() and home.server("ledger") is None:
        return str(home.ledger)
    url = known_ledger(home, ledger)
    if url is None:
        raise unreachable("no ledger is known here: name a URL, a ledger's folder or an archive")
    return url


@asynccontextmanager
async def _remote(home: Home, url: str) -> AsyncIterator[History]:
    from cli.ledger_pin import pinned_client
    from ledger.engine.export import fetch_snapshot, fetched_blocks

    def lost(why: str) -> None:
        note(f"{why}; trying again")

    async with pinned_client(home, url) as client:
        genesis, status = await client.genesis(), await client.status()
        last, app_hash = int(status["height"]), bytes(status["app_hash"])
        snapshot = int(status["snapshot_height"])
        light, tip = None, None
        if last and genesis.validators:
            light = await _fetch_light(client, status)
            # A header vouches for the state after the block before it: none is to come where blocks do not.
            last = min(last, light.height if status["trouble"] or light.height == 1 else light.height - 1)
        if last:
            block = await _fetch_last(client, last, has_headers=light is not None)
            tip, app_hash = block.cid, block.app_hash
        with TemporaryDirectory(prefix="holdfast-") as folder:
            origin = None if genesis.origin is None else await _fetch_origin(client, Path(folder))
            yield History(
                url,
                genesis,
                last,
                tip,
                app_hash,
                lambda first: fetched_blocks(client, first, last, lost, has_headers=light is not None),
                light,
                fetch_snapshot=(
                    (lambda path: fetch_snapshot(client, snapshot, path, lost)) if snapshot else None
                ),
                origin=origin,
            )


async def _fetch_light(client: LedgerClient, status: Mapping[str, Any]) -> LightBlock:
    """The newest light block up to which the server knows who signed."""
    signed = int(status["signed_height"])
    if not signed:
        raise unreachable(f"{client.url} does not know yet who signed its blocks: try again in some seconds")
    return await client.light_block(signed)


async def _fetch_last(client: LedgerClient, height: int, *, has_headers: bool) -> Block:
    """A block which is signed, or to which a light block will have to lead."""
    from ledger.engine.export import fetched_blocks

    if not has_headers:
        return await client.block(height)
    async with aclosing(fetched_blocks(client, height, height, has_headers=True)) as blocks:
        return (await anext(blocks)).block


async def _fetch_origin(client: LedgerClient, folder: Path) -> Path:
    path = folder / "origin.car"
    with path.open("wb") as file:
        async with aclosing(client.stream("/v1/origin", {})) as portions:
            async for data in portions:
                file.write(data)
    return path


@contextmanager
def _folder(path: Path) -> Iterator[History]:
    """A home, or the ledger's folder in it; nobody may be running it."""
    from ledger.engine.export import stored_blocks
    from ledger.engine.history import History as Stored
    from ledger.engine.storage import LedgerStorage
    from ledger.genesis import Genesis

    folder = path if (path / "db").is_dir() else path / "ledger"
    if not (folder / "db").is_dir():
        raise not_found(f"{path} holds no ledger that was ever started")
    storage = LedgerStorage(folder)
    storage.open()
    try:
        raw = storage.genesis()
        if raw is None:
            raise not_found(f"{folder} holds no ledger that was ever started")
        last, light, snapshot = storage.height(), None, None
        kept, genesis = Stored(storage), Genesis.decode(raw)
        if genesis.validators:
            light = kept.last_light()
            last = 0 if light is None else min(last, light.height)
            snapshot = None if light is None else _stored_snapshot(storage, kept, light.height)
        tip = kept.block(last) if last else None

        async def blocks(first: int) -> AsyncGenerator[GivenBlock, None]:
            for given in stored_blocks(kept, first, last):
                await asyncio.sleep(0)  # where Ctrl-C arrives
                yield given

        yield History(
            str(folder),
            genesis,
            last,
            None if tip is None else tip.cid,
            (storage.app_hash() or b"") if tip is None else tip.app_hash,
            blocks,
            light,
            storage=storage,
            fetch_snapshot=snapshot,
            origin=kept.origin,
        )
    finally:
        storage.close()


def _stored_snapshot(
    storage: LedgerStorage, kept: Stored, below: int
) -> Callable[[Path], Awaitable[Block]] | None:
    """What copies the newest snapshot of a block before that height, if there is one."""
    from ledger.engine.snapshots import Snapshots

    snapshots = Snapshots(storage, "", 0, time.monotonic)
    height = max((each for each in snapshots.heights() if each < below), default=0)
    block = kept.block(height) if height else None
    if block is None:
        return None

    async def copy(path: Path) -> Block:
        await asyncio.to_thread(shutil.copyfile, snapshots.path(height), path)
        return block

    return copy


@contextmanager
def _file(name: str) -> Iterator[History]:
    from ledger.engine.archive_reader import ArchiveReader
    from ledger.engine.errors import InvalidArchive
    from merkledag.errors import MerkledagError

    with (
        _opened(name) as file,
        TemporaryDirectory(prefix="holdfast-") as folder,
        closing(_OriginCopy(Path(folder) / "origin.car")) as copy,
    ):
        try:
            reader = ArchiveReader(file, copy.add)
            contents = reader.contents
            contents.read_state_manifest()  # and with it all of the origin
        except (MerkledagError, InvalidArchive) as error:
            raise invalid(f"{name} is no sound archive of a ledger: {error}") from None
        copy.close()
        manifest = contents.manifest

        async def blocks(first: int) -> AsyncGenerator[GivenBlock, None]:
            for given in reader.blocks():
                await asyncio.sleep(0)
                if given.block.height >= first:
                    yield given

        yield History(
            name,
            contents.genesis,
            manifest.last,
            manifest.tip,
            manifest.app_hash,
            blocks,
            contents.light,
            archive=reader,
            origin=None if contents.origin is None else copy.path,
        )


class _OriginCopy:
    """The nodes of the chain that an archive's chain goes on from, as an archive of their own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._is_new = True

    def add(self, data: bytes) -> None:
        """The next node; the first one is the manifest."""
        from ledger.engine.archive import section
        from ledger.engine.blocks import node_cid
        from merkledag import car

        if self._is_new:
            self._file.write(car.header([node_cid(data)]))
            self._is_new = False
        self._file.write(section(data))

    def close(self) -> None:
        """Nothing more comes; harmless twice."""
        self._file.close()


@contextmanager
def contents_of(path: Path) -> Iterator[Contents]:
    """What is in an archive, from its beginning."""
    from ledger.engine.archive_reader import ArchiveReader

    with path.open("rb", buffering=0) as file:
        yield ArchiveReader(file).contents


@contextmanager
def _opened(name: str) -> Iterator[Readable]:
    if name == STDIO:
        yield sys.stdin.buffer
        return
    with Path(name).open("rb", buffering=0) as file:
        yield file
