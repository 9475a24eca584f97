"""A block source and a name resolver in memory, and a server on loopback to ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiohttp import ClientResponse, ClientSession, ClientTimeout
from yarl import URL

from gateway.app import build_app
from gateway.serving.listener import Listener, listen
from gateway.settings import GatewaySettings
from gateway.source import NameRecord, NameTarget
from merkledag.block import Block
from merkledag.builder import build_file, build_symlink
from merkledag.cid import CID
from merkledag.directory import DirEntry, build_directory
from merkledag.profile import UNIXFS_V1_2025, ImportProfile

Tree = dict[str, "Tree | bytes | str"]


class MemorySource:
    """Blocks in a dict. `remote` ones are not here at once: they come by `get` only, once `arrive` is set.

    A view that is used after its context would raise: it is released.
    """

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self.here: dict[bytes, bytes] = {}
        self.remote: dict[bytes, bytes] = {}
        self.arrive = asyncio.Event()
        self.arrive.set()
        self.open_views = 0
        self.viewed = 0
        self.waiting = 0
        self.fetched: list[CID] = []
        self.add(blocks)

    def add(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            self.here[block.cid.multihash] = block.data

    def move_to_remote(self) -> None:
        self.remote, self.here = self.here, {}

    def view(self, cid: CID) -> AbstractContextManager[memoryview] | None:
        data = self.here.get(cid.multihash)
        return None if data is None else self._open(data)

    @contextmanager
    def _open(self, data: bytes) -> Iterator[memoryview]:
        self.open_views += 1
        self.viewed += 1
        view = memoryview(data)
        try:
            yield view
        finally:
            self.open_views -= 1
            view.release()

    async def get(self, cid: CID) -> bytes:
        data = self.here.get(cid.multihash)
        if data is not None:
            return data
        self.fetched.append(cid)
        self.waiting += 1
        try:
            await self.arrive.wait()
        finally:
            self.waiting -= 1
        try:
            return self.remote[cid.multihash]
        except KeyError:
            raise LookupError(f"nobody has {cid}") from None

    async def has(self, cid: CID) -> bool:
        return cid.multihash in self.here


class MemoryNames:
    """Names and records in dicts."""

    def __init__(self, targets: dict[str, NameTarget], records: dict[str, NameRecord] | None = None) -> None:
        self.targets = targets
        self.records = records or {}

    async def resolve(self, name: str) -> NameTarget:
        try:
            return self.targets[name]
        except KeyError:
            raise LookupError(f"no record of {name}") from None

    async def record(self, name: str) -> NameRecord:
        try:
            return self.records[name]
        except KeyError:
            raise LookupError(f"no record of {name}") from None


def add_file(source: MemorySource, data: bytes, chunk_bytes: int = 1 << 20) -> tuple[CID, int]:
    """Imports a file; its CID and the size of its DAG."""
    chunks = [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    link, blocks = build_file(UNIXFS_V1_2025, chunks)
    source.add(blocks)
    return link.cid, link.tsize


def add_tree(source: MemorySource, tree: Tree, profile: ImportProfile = UNIXFS_V1_2025) -> tuple[CID, int]:
    """Imports a folder: bytes are files, str are symbolic links, dicts are folders."""
    entries = []
    for name, item in tree.items():
        if isinstance(item, bytes):
            cid, tsize = add_file(source, item)
        elif isinstance(item, str):
            link, block = build_symlink(profile, item)
            source.add([block])
            cid, tsize = link.cid, link.tsize
        else:
            cid, tsize = add_tree(source, item, profile)
        entries.append(DirEntry(name, cid, tsize))
    link, blocks = build_directory(profile, entries)
    source.add(blocks)
    return link.cid, link.tsize


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its body read."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


async def fetch(session: ClientSession, url: str, headers: dict[str, str] | None, method: str) -> Answer:
    """Asks for a URL that is quoted already; follows no redirect."""
    target = URL(url, encoded=True)
    async with session.request(method, target, headers=headers, allow_redirects=False) as response:
        body = await response.read()
        return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, body)


@dataclass(frozen=True, slots=True)
class Client:
    """Asks one listener; never follows redirects."""

    listener: Listener
    session: ClientSession

    async def ask(self, path: str, headers: dict[str, str] | None = None, *, method: str = "GET") -> Answer:
        return await fetch(self.session, self.listener.url + path, headers, method)

    @asynccontextmanager
    async def stream(
        self, path: str, headers: dict[str, str] | None = None, *, method: str = "GET"
    ) -> AsyncIterator[ClientResponse]:
        url = URL(self.listener.url + path, encoded=True)
        async with self.session.request(method, url, headers=headers, allow_redirects=False) as response:
            yield response


@asynccontextmanager
async def serving(
    source: MemorySource,
    names: MemoryNames | None = None,
    settings: GatewaySettings | None = None,
    records: MemoryNames | None = None,
) -> AsyncIterator[Client]:
    """A gateway on loopback and a client for it."""
    settings = settings or GatewaySettings()
    app = build_app(source, names, settings, records=records)
    listener = await listen(app, "127.0.0.1", 0, settings)
    session = ClientSession(timeout=ClientTimeout(total=20), auto_decompress=False)
    try:
        yield Client(listener, session)
    finally:
        await session.close()
        await listener.close()
