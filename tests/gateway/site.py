"""A gateway with a small site in it, and readers of what it answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from html.parser import HTMLParser

from merkledag import car, dag_pb, unixfs
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from tests.gateway.support import Answer, Client, MemorySource

LARGE = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(40_000))  # 1.2 MiB, no repetition
CHUNK = 64 * 1024
IMMUTABLE = "public, max-age=29030400, immutable"
HOSTILE = "<img src=x onerror=alert(1)> \"'&"
KEY = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8"


@dataclass
class Site:
    """A gateway with a folder in it."""

    client: Client
    source: MemorySource
    root: CID
    large: CID

    async def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        answer = await self.client.ask(path, headers, method=method)
        assert self.source.open_views == 0
        return answer


def read_car(data: bytes) -> tuple[list[CID], list[CID]]:
    """Roots and blocks; every block verified."""
    decoder = car.CarDecoder()
    decoder.feed(data)
    header = decoder.next()
    assert isinstance(header, car.CarHeader)
    cids = []
    while (block := decoder.next()) is not None:
        assert isinstance(block, Block)
        cids.append(block.cid)
    decoder.finish()
    return list(header.roots), cids


def add_node(source: MemorySource, message: unixfs.Data, *links: dag_pb.PBLink) -> CID:
    """A UnixFS node as it is given here, whether or not any program would write it."""
    data = dag_pb.encode(dag_pb.PBNode(links, unixfs.encode(message)))
    block = Block(CID.of(data, DAG_PB), data)
    source.add([block])
    return block.cid


def raw_folder(source: MemorySource, name: str, target: CID) -> CID:
    """A folder with a name that no builder would write."""
    return add_node(source, unixfs.Data(unixfs.Kind.DIRECTORY), dag_pb.PBLink(target, name, 1))


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: dict[str, str] = {}
        self._href = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)
        if tag == "a":
            self._href = dict(attrs).get("href") or ""

    def handle_data(self, data: str) -> None:
        if self._href:
            self.links.setdefault(data, self._href)
            self._href = ""
