"""How fast the gateway serves what is not here: at a node that is so many milliseconds away.

Run from the repository's root: `python -m bench.gateway_cold [--size-mib 256] [--chunk-kib 1024]
[--files 2000] [--delay-ms 50] [--rounds 3] [--before TREE]`. Prints one JSON document on stdout and a table
on stderr.

Three processes on this machine: a node that answers each request so much later than it came (real trustless
routes over blocks in memory), a gateway over an empty store on disk that knows that node, and this client. Of
every round each side (this tree, and the one of `--before`) has a gateway of its own, in turns. Lines: the
whole file when it is nowhere here (time to its first byte, MiB/s, most memory of the gateway), again from
the store, and 64 KiB from its middle with a gateway that has nothing; 2,000 files of 4 KiB in 20 folders as
one TAR and as one CAR, each with a gateway that has nothing. Beside them stands `car`: the same file asked of
the node as one CAR and verified by this process, the way that the gateway does not take.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from merkledag.builder import Link

ROOT: Final = Path(__file__).resolve().parent.parent
MIB: Final = 1 << 20
RANGE_BYTES: Final = 64 * 1024
LINES: Final = ("first_byte_ms", "cold_mib_s", "warm_mib_s", "range_ms", "anonymous_mib", "tar_s", "car_s")
SMALL_BYTES: Final = 4096
FILES_A_FOLDER: Final = 100


def node(size_mib: int, chunk_bytes: int, files: int, delay_s: float) -> None:
    """The node's process: prints its port and the file's CID, then serves until it is ended."""
    from aiohttp import web
    from aiohttp.typedefs import Handler

    from gateway.app import add_trustless_routes
    from merkledag.builder import FileTree, build_file, make_leaf
    from merkledag.directory import DirEntry, build_directory
    from merkledag.profile import UNIXFS_V1_2025
    from storage_node.blockstore.memory import MemoryStore
    from storage_node.source import LocalSource

    store, chance, tree = MemoryStore(), random.Random(7), FileTree(UNIXFS_V1_2025)
    for _ in range(size_mib * MIB // chunk_bytes):
        blocks = tree.add(make_leaf(UNIXFS_V1_2025, chance.randbytes(chunk_bytes)))
        store.put_many((block.cid.multihash, block.data) for block in blocks)
    link, blocks = tree.finish()
    store.put_many((block.cid.multihash, block.data) for block in blocks)

    def folder(entries: list[DirEntry]) -> Link:
        found, made = build_directory(UNIXFS_V1_2025, entries)
        store.put_many((block.cid.multihash, block.data) for block in made)
        return found

    def small() -> Link:
        found, made = build_file(UNIXFS_V1_2025, [chance.randbytes(SMALL_BYTES)])
        store.put_many((block.cid.multihash, block.data) for block in made)
        return found

    folders = []
    for at in range(0, files, FILES_A_FOLDER):
        links = [(f"file{number}", small()) for number in range(at, min(at + FILES_A_FOLDER, files))]
        folders.append(
            (f"folder{at}", folder([DirEntry(name, each.cid, each.tsize) for name, each in links]))
        )
    top = folder([DirEntry(name, each.cid, each.tsize) for name, each in folders])

    @web.middleware
    async def far_away(request: web.Request, handler: Handler) -> web.StreamResponse:
        await asyncio.sleep(delay_s)
        return await handler(request)

    app = web.Application(middlewares=[far_away])
    add_trustless_routes(app, LocalSource(store))

    async def serve() -> None:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        facts = {"port": runner.addresses[0][1], "cid": str(link.cid), "tree": str(top.cid)}
        print(json.dumps(facts), flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


def gateway(peer: str, folder: str) -> None:
    """A gateway's process: prints its port, then serves until it is ended."""
    from gateway.app import build_app
    from gateway.serving.listener import listen
    from gateway.settings import GatewaySettings
    from merkledag.cid import CID
    from storage_node.blockstore.store import open_store
    from storage_node.endpoints import open_session
    from storage_node.fetch import NetworkFetcher
    from storage_node.pool import NodePool
    from storage_node.providers import Holding
    from storage_node.source import LocalSource, NetworkSource

    class OneNode:
        """A directory of a network of one node, written out: older trees have no `NoDirectory`."""

        def holdings(self) -> tuple[Holding, ...]:
            return ()

        async def refresh(self, manifests: Collection[CID], *, max_age_s: float = 0.0) -> bool:
            return False

        async def learn_content(self, content: CID) -> bool:
            return False

        async def learn_deal(self, deal: CID) -> CID:
            return deal

        async def learn_node(self, endpoint: str) -> bool:
            return False

        async def learn_some(self) -> None:
            return None

        async def endpoints(self) -> tuple[str, ...]:
            return (peer,)

    async def serve() -> None:
        async with open_session(allow_private=True) as session:
            pool = NodePool(session, wall_clock=time.time, clock=time.monotonic, allow_private=True)
            fetch = NetworkFetcher(OneNode(), pool).fetch
            source = NetworkSource(LocalSource(open_store(Path(folder))), fetch)
            listener = await listen(build_app(source, None), "127.0.0.1", 0, GatewaySettings())
            print(json.dumps({"port": listener.port}), flush=True)
            await asyncio.Event().wait()

    import uvloop

    uvloop.run(serve())


@contextmanager
def child(tree: Path, *arguments: str) -> Iterator[tuple[dict[str, Any], int]]:
    """A process of this file over the packages of `tree`: what it printed first, and its ID."""
    command = [sys.executable, "-P", str(Path(__file__).resolve()), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with subprocess.Popen(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline()), process.pid
        finally:
            process.terminate()


def download(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[float, float, int]:
    """Seconds to the first byte of the body and to the last, and how many there were."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    buffer = bytearray(MIB)
    began = time.perf_counter()
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    if answer.status not in (200, 206):
        raise SystemExit(f"{path} is answered by {answer.status}: {answer.read(300)!r}")
    size = len(answer.read(1))
    first_s = time.perf_counter() - began
    while got := answer.readinto(buffer):
        size += got
    connection.close()
    return first_s, time.perf_counter() - began, size


def anonymous_mib(pid: int) -> float:
    """Memory of a process that is no file's: what it holds, without the store's pages."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def one_round(tree: Path, peer: dict[str, Any], size_bytes: int, files: int) -> dict[str, float]:
    """The lines of one gateway that starts with nothing."""
    url, path = f"http://127.0.0.1:{peer['port']}", f"/ipfs/{peer['cid']}"
    middle = size_bytes // 2 - RANGE_BYTES
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        with child(tree, "gateway", url, f"{folder}/a") as (facts, _):
            asked = {"Range": f"bytes={middle}-{middle + RANGE_BYTES - 1}"}
            _, range_s, size = download(facts["port"], path, asked)
            assert size == RANGE_BYTES
        with child(tree, "gateway", url, f"{folder}/b") as (facts, pid):
            before = anonymous_mib(pid)
            first_s, cold_s, size = download(facts["port"], path)
            assert size == size_bytes, size
            held = anonymous_mib(pid) - before
            _, warm_s, _ = download(facts["port"], path)
        took = []
        for kind in ("tar", "car"):
            with child(tree, "gateway", url, f"{folder}/{kind}") as (facts, _):
                _, kind_s, size = download(facts["port"], f"/ipfs/{peer['tree']}?format={kind}")
                assert size > files * SMALL_BYTES, size
                took.append(kind_s)
    mib = size_bytes / MIB
    found = (first_s * 1e3, mib / cold_s, mib / warm_s, range_s * 1e3, held, *took)
    return dict(zip(LINES, found, strict=True))


def as_car(peer: dict[str, Any], size_bytes: int) -> dict[str, float]:
    """The same file as one CAR of the node, each block verified as it comes."""
    from merkledag.block import Block
    from merkledag.car import CarDecoder

    connection = HTTPConnection("127.0.0.1", peer["port"], timeout=120)
    began, size, first_s, decoder = time.perf_counter(), 0, 0.0, CarDecoder()
    connection.request("GET", f"/ipfs/{peer['cid']}?format=car&dag-scope=entity")
    answer = connection.getresponse()
    while data := answer.read1(MIB):
        decoder.feed(data)
        while (item := decoder.next()) is not None:
            if isinstance(item, Block):
                first_s = first_s or time.perf_counter() - began
                size += len(item.data)
    decoder.finish()
    assert size >= size_bytes
    took_s = time.perf_counter() - began
    return {"first_byte_ms": first_s * 1e3, "cold_mib_s": size_bytes / MIB / took_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=256)
    parser.add_argument("--chunk-kib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--delay-ms", type=float, default=50.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path)
    asked = parser.parse_args()
    sides = {"now": ROOT} | ({"before": asked.before.resolve()} if asked.before else {})
    size_bytes, delay_s = asked.size_mib * MIB, asked.delay_ms / 1e3
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in (*sides, "car")}
    made = (str(asked.size_mib), str(asked.chunk_kib * 1024), str(asked.files), str(delay_s))
    with child(ROOT, "node", *made) as (peer, _):
        for _ in range(asked.rounds):
            for name, tree in sides.items():
                rounds[name].append(one_round(tree, peer, size_bytes, asked.files))
            rounds["car"].append(as_car(peer, size_bytes))
    result = {
        name: {line: round(statistics.median(each[line] for each in found), 1) for line in found[0]}
        for name, found in rounds.items()
    }
    print(json.dumps({"settings": {key: str(value) for key, value in vars(asked).items()}, **result}))
    print("".join(f"{'':10}" if not line else f"{line:>16}" for line in ("", *LINES)), file=sys.stderr)
    for name, found in result.items():
        print(f"{name:10}" + "".join(f"{found.get(line, '–'):>16}" for line in LINES), file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:2] == ["node"]:
        node(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    elif sys.argv[1:2] == ["gateway"]:
        gateway(sys.argv[2], sys.argv[3])
    else:
        main()
