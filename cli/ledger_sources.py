"""Where a ledger's history can come from: a running ledger, a ledger's folder, an archive."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.output import not_found, note, unreachable
from cli.streams import STDIO
from cli.urls import is_web_url

if TYPE_CHECKING:
    from cli.home import Home
    from ledger.engine.archive import ArchiveReader, GivenBlock, Readable
    from ledger.engine.storage import LedgerStorage
    from ledger.genesis import Genesis
    from merkledag.cid import CID


@dataclass(frozen=True, slots=True)
class History:
    """A history that is open: `blocks(first)` gives its blocks from `first` to `last`, each node checked.

    `tip` is the CID of the last block (None before the first) and `app_hash` the state's after it; `storage`
    is the ledger's store where that is open, `archive` the file.
    """

    name: str
    genesis: Genesis
    last: int
    tip: CID | None
    app_hash: bytes
    blocks: Callable[[int], AsyncGenerator[GivenBlock, None]]
    storage: LedgerStorage | None = None
    archive: ArchiveReader | None = None


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


def _is_folder(source: str) -> bool:
    return source != STDIO and Path(source).is_dir()


def _default(home: Home, ledger: str) -> str:
    from cli.compose import genesis_file
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
    from ledger.engine.export import fetched_blocks

    def lost(why: str) -> None:
        note(f"{why}; trying again")

    async with pinned_client(home, url) as client:
        genesis, status = await client.genesis(), await client.status()
        last, app_hash = int(status["height"]), bytes(status["app_hash"])
        tip = None
        if last:
            block = await client.block(last)
            tip, app_hash = block.cid, block.app_hash
        yield History(
            url, genesis, last, tip, app_hash, lambda first: fetched_blocks(client, first, last, lost)
        )


@contextmanager
def _folder(path: Path) -> Iterator[History]:
    """A home, or the ledger's folder in it; nobody may be running it."""
    from ledger.engine.blocks import node_cid
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
        last = storage.height()
        tip = storage.block(last) if last else None
        kept = Stored(storage)

        async def blocks(first: int) -> AsyncGenerator[GivenBlock, None]:
            for given in stored_blocks(kept, first, last):
                await asyncio.sleep(0)  # where Ctrl-C arrives
                yield given

        yield History(
            str(folder),
            Genesis.decode(raw),
            last,
            None if tip is None else node_cid(tip),
            storage.app_hash() or b"",
            blocks,
            storage=storage,
        )
    finally:
        storage.close()


@contextmanager
def _file(name: str) -> Iterator[History]:
    from ledger.engine.archive import ArchiveReader

    with _opened(name) as file:
        reader = ArchiveReader(file)
        manifest = reader.manifest

        async def blocks(first: int) -> AsyncGenerator[GivenBlock, None]:
            for given in reader.blocks():
                await asyncio.sleep(0)
                if given.block.height >= first:
                    yield given

        yield History(
            name, reader.genesis, manifest.last, manifest.tip, manifest.app_hash, blocks, archive=reader
        )


@contextmanager
def _opened(name: str) -> Iterator[Readable]:
    if name == STDIO:
        yield sys.stdin.buffer
        return
    with Path(name).open("rb", buffering=0) as file:
        yield file
