"""The blocks, records and DNSLink names of the public gateway test suite, as a source and a resolver.

Run as a program, it serves them, so that the suite itself can be pointed at it:
`python -m tests.gateway.public_suite FOLDER [PORT]`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from urllib.parse import quote

from aiohttp import ClientSession, ClientTimeout

from gateway.app import build_app
from gateway.serving.listener import listen
from gateway.settings import GatewaySettings
from gateway.source import NameRecord, NameTarget
from merkledag import car, ipns
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.errors import RecordError
from merkledag.peer import name_text, parse_name
from merkledag.resolve import resolve
from merkledag.steps import run
from tests.gateway.black_box.running import GatewayHome
from tests.gateway.support import Answer, MemoryNames, MemorySource, fetch

_NANOSECONDS = 10**9
SETTINGS = GatewaySettings(subdomain_hosts=("localhost", "example.com"))
# Roots of the suite's archives, by their names there.
CACHE = "bafybeib3ffl2teiqdncv3mkz4r23b5ctrwkzrrhctdbne6iboayxuxk5ui"
LISTED = "bafybeig6ka5mlwkl4subqhaiatalkcleo4jgnr3hqwvpmsqfca27cijp3i"
RAW_BLOCK = "bafybeie72edlprgtlwwctzljf6gkn2wnlrddqjbkxo3jomh4n7omwblxly"
WITH_FILES = "bafybeihchr7vmgjaasntayyatmp5sv6xza57iy2h4xj7g46bpjij6yhrmy"
DAG_CBOR = "bafyreibs4utpgbn7uqegmd2goqz4bkyflre2ek2iwv743fhvylwi4zeeim"
DAG_JSON = "baguqeeram5ujjqrwheyaty3w5gdsmoz6vittchvhk723jjqxk7hakxkd47xq"
HELLO = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"
HAMT = "bafybeidbclfqleg2uojchspzd4bob56dqetqjsj27gy2cq3klkkgxtpn4i"
NOBODYS = "QmYzfKSE55XCjD1MW128RfciAf2DViABhEiXfgVFMabSjN"


def load(folder: Path) -> tuple[MemorySource, MemoryNames]:
    """Everything in the folder of fixtures."""
    source = MemorySource()
    decoder = car.CarDecoder()
    decoder.feed((folder / "fixtures.car").read_bytes())
    while (item := decoder.next()) is not None:
        if not isinstance(item, car.CarHeader):
            source.add([item])
    decoder.finish()
    domains = json.loads((folder / "dnslinks.json").read_text())["domains"]
    targets = {name: NameTarget(path, 300) for name, path in domains.items()}
    records = {}
    for path in folder.glob("*.ipns-record"):
        name = parse_name(path.stem.split("_")[0])
        try:
            record = ipns.decode(path.read_bytes())
            ipns.verify(record, name, time.time_ns())
        except RecordError:
            continue  # some are bad on purpose
        ttl_s = record.remaining_ttl_ns(time.time_ns(), 0) // _NANOSECONDS
        targets[name_text(name)] = NameTarget(str(record.path), ttl_s)
        records[name_text(name)] = NameRecord(record.raw, ttl_s)
    return source, MemoryNames(targets, records)


class Suite:
    """A gateway over all that, and what is in it to compare with."""

    def __init__(self, url: str, source: MemorySource, session: ClientSession) -> None:
        self.url = url
        self.source = source
        self.session = session

    async def ask(
        self, path: str, host: str = "", *, method: str = "GET", accept: str = "", **headers: str
    ) -> Answer:
        """The answer to a path, in which only what must be is quoted; `If_None_Match` is a header's name."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if host:
            sent["Host"] = host
        if accept:
            sent["Accept"] = accept
        return await fetch(self.session, self.url + quote(path, safe="/?&=%:;,*@+"), sent, method)

    def cid(self, root: str, *names: str) -> CID:
        """Where a path below a root leads."""
        return run(resolve(CID.parse(root), names), self.block).cid

    def block(self, cid: CID) -> bytes:
        return cid.digest if cid.is_identity else self.source.here[cid.multihash]

    async def car(self, path: str, accept: str = "") -> list[str]:
        """The CIDs in a CAR, each verified, in order."""
        answer = await self.ask(path, accept=accept)
        assert answer.status == 200, answer.text
        assert answer.headers["content-type"].startswith("application/vnd.ipld.car; version=1")
        decoder = car.CarDecoder()
        decoder.feed(answer.body)
        assert isinstance(decoder.next(), car.CarHeader)
        cids = []
        while isinstance(block := decoder.next(), Block):
            cids.append(str(block.cid))
        decoder.finish()
        return cids


def new_session() -> ClientSession:
    """A client that takes what it is sent as it is."""
    return ClientSession(timeout=ClientTimeout(total=30), auto_decompress=False)


def fill(home: GatewayHome, folder: Path) -> None:
    """The same in a home, by the command line."""
    home.run("car", "import", folder / "fixtures.car", "--no-pin-roots")
    home.link(json.loads((folder / "dnslinks.json").read_text())["domains"])
    for path in folder.glob("*.ipns-record"):
        name = path.stem.split("_")[0]
        try:
            ipns.verify(ipns.decode(path.read_bytes()), parse_name(name), time.time_ns())
        except RecordError:
            continue
        home.run("name", "import", name, path)


async def _serve(folder: Path, port: int) -> None:
    source, names = load(folder)
    listener = await listen(build_app(source, names, SETTINGS, records=names), "127.0.0.1", port, SETTINGS)
    print(listener.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
