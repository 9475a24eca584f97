"""How fast the gateway serves: a large file, small files, paths, ranges, CAR. Prints JSON and a table.

`python bench/gateway.py [--size-mib 256] [--seconds 3] [--loop uvloop|asyncio] [--json]`

The server is a process of its own with its blocks in memory (so this measures the gateway, not a store), the
clients are this one. Beside it stands what the same server and clients do with a handler that writes fixed
bytes: the limit of HTTP in Python on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import random
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

MIB = 1024 * 1024
SMALL_BYTES = 4096
FOLDERS, FILES_A_FOLDER = 100, 100
MAX_SIZE_MIB = 4096


class Blocks:
    """Blocks in memory."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}

    def view(self, cid: Any) -> AbstractContextManager[memoryview] | None:
        data = self.data.get(cid.multihash)
        return None if data is None else self._open(data)

    @contextmanager
    def _open(self, data: bytes) -> Iterator[memoryview]:
        yield memoryview(data)

    async def get(self, cid: Any) -> bytes:
        return self.data[cid.multihash]

    async def has(self, cid: Any) -> bool:
        return cid.multihash in self.data


def fill(blocks: Blocks, size_mib: int) -> dict[str, Any]:
    """A large file, and 10,000 small ones in 100 folders."""
    from merkledag.builder import FileTree, make_leaf
    from merkledag.directory import DirEntry, build_directory
    from merkledag.profile import UNIXFS_V1_2025 as PROFILE

    def add(items: Any) -> None:
        for block in items:
            blocks.data[block.cid.multihash] = block.data

    chance = random.Random(7)
    tree = FileTree(PROFILE)
    for _ in range(size_mib):
        add(tree.add(make_leaf(PROFILE, chance.randbytes(MIB))))
    large, rest = tree.finish()
    add(rest)
    folders = []
    for number in range(FOLDERS):
        entries = []
        for file in range(FILES_A_FOLDER):
            leaf = make_leaf(PROFILE, chance.randbytes(SMALL_BYTES))
            add([leaf.block])
            entries.append(DirEntry(f"file-{file}.bin", leaf.link.cid, leaf.link.tsize))
        link, made = build_directory(PROFILE, entries)
        add(made)
        folders.append(DirEntry(f"folder-{number}", link.cid, link.tsize))
    root, made = build_directory(PROFILE, folders)
    add(made)
    return {"large": str(large.cid), "root": str(root.cid)}


def serve(pipe: Connection, size_mib: int, loop_name: str) -> None:
    """The server process: sends its port and CIDs, then serves until it is ended."""

    async def run() -> None:
        from aiohttp import web

        from gateway.app import build_app
        from gateway.listener import listen
        from gateway.settings import GatewaySettings

        blocks = Blocks()
        facts = fill(blocks, size_mib)
        settings = GatewaySettings(subdomain_hosts=())
        app = build_app(blocks, None, settings)
        body = bytes(SMALL_BYTES)

        async def fixed(_: web.Request) -> web.Response:
            return web.Response(body=body)

        bare = web.Application()
        bare.router.add_get("/fixed", fixed)
        listener = await listen(app, "127.0.0.1", 0, settings)
        other = await listen(bare, "127.0.0.1", 0, settings)
        pipe.send({**facts, "port": listener.port, "bare_port": other.port})
        await asyncio.Event().wait()

    if loop_name == "uvloop":
        import uvloop

        uvloop.run(run())
    else:
        asyncio.run(run())


def download(port: int, path: str) -> tuple[int, float]:
    """Bytes of one response and the seconds it took, read with a plain socket."""
    buffer = bytearray(MIB)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        start = time.perf_counter()
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        total = 0
        while count := sock.recv_into(buffer):
            total += count
        return total, time.perf_counter() - start


class _Load(asyncio.Protocol):
    """One connection that asks again as soon as it was answered."""

    def __init__(self, requests: Iterator[bytes], deadline: float) -> None:
        self._requests = requests
        self._deadline = deadline
        self._left = -1
        self._head = b""
        self.count = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._head[:end].lower()
            if b" 200 " not in head[:16] and b" 206 " not in head[:16]:
                raise RuntimeError(f"unexpected answer: {self._head[:200]!r}")
            at = head.index(b"content-length:") + 15
            length = int(head[at:].split(b"\r\n", 1)[0])
            self._left = length - (len(self._head) - end - 4)
            self._head = b""
        else:
            self._left -= len(data)
        if self._left == 0:
            self.count += 1
            self._left = -1
            if time.perf_counter() >= self._deadline:
                self._transport.close()
            else:
                self._transport.write(next(self._requests))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def rate(port: int, requests: Iterator[bytes], seconds: float, connections: int = 8) -> float:
    """Requests a second over keep-alive connections."""
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: _Load(requests, start + seconds), "127.0.0.1", port)
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return sum(client.count for client in clients) / (time.perf_counter() - start)


def get(path: str, extra: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{extra}\r\n".encode()


def small(root: str) -> Iterator[bytes]:
    request = get(f"/ipfs/{root}/folder-0/file-0.bin")
    while True:
        yield request


def many(root: str) -> Iterator[bytes]:
    chance = random.Random(1)
    while True:
        yield get(
            f"/ipfs/{root}/folder-{chance.randrange(FOLDERS)}/file-{chance.randrange(FILES_A_FOLDER)}.bin"
        )


def ranges(large: str, size_bytes: int) -> Iterator[bytes]:
    chance = random.Random(2)
    while True:
        at = chance.randrange(size_bytes - 100)
        yield get(f"/ipfs/{large}", f"Range: bytes={at}-{at + 99}\r\n")


def fixed() -> Iterator[bytes]:
    while True:
        yield get("/fixed")


def measure(facts: dict[str, Any], size_mib: int, seconds: float, loop_name: str) -> dict[str, float]:
    """All figures, each the median of three."""

    def run(port: int, requests: Iterator[bytes]) -> float:
        if loop_name == "uvloop":
            import uvloop

            return uvloop.run(rate(port, requests, seconds))
        return asyncio.run(rate(port, requests, seconds))

    def speed(path: str) -> float:
        times = []
        for _ in range(3):
            total, took = download(facts["port"], path)
            if total < size_mib * MIB:
                raise RuntimeError(f"{path}: {total} bytes only")
            times.append(took)
        return size_mib / sorted(times)[1]

    def median(port: int, make: Any) -> float:
        return sorted(run(port, make()) for _ in range(3))[1]

    port = facts["port"]
    block = random.Random(3).randbytes(64 * MIB)
    start = time.perf_counter()
    hashlib.sha256(block).digest()
    hash_speed = 64 / (time.perf_counter() - start)
    start = time.perf_counter()
    bytearray(block)
    copy_speed = 64 / (time.perf_counter() - start)
    return {
        "large_file_mib_s": speed(f"/ipfs/{facts['large']}"),
        "large_car_mib_s": speed(f"/ipfs/{facts['large']}?format=car"),
        "one_small_file_requests_s": median(port, lambda: small(facts["root"])),
        "many_small_files_requests_s": median(port, lambda: many(facts["root"])),
        "range_100_bytes_requests_s": median(port, lambda: ranges(facts["large"], size_mib * MIB)),
        "limit_fixed_bytes_requests_s": median(facts["bare_port"], fixed),
        "limit_sha256_mib_s": hash_speed,
        "limit_memory_copy_mib_s": copy_speed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-mib", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--json", action="store_true", help="JSON only")
    options = parser.parse_args()
    if not 1 <= options.size_mib <= MAX_SIZE_MIB or not 0 < options.seconds <= 60:
        parser.error(f"size from 1 to {MAX_SIZE_MIB} MiB, seconds up to 60")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, options.size_mib, options.loop), daemon=True)
    server.start()
    theirs.close()
    try:
        facts = ours.recv()
        result = measure(facts, options.size_mib, options.seconds, options.loop)
    finally:
        server.terminate()
        server.join()
    if not options.json:
        width = max(map(len, result))
        for name, value in result.items():
            print(f"{name:<{width}}  {value:>12,.0f}", file=sys.stderr)
    print(json.dumps({"size_mib": options.size_mib, "loop": options.loop, "results": result}))


if __name__ == "__main__":
    main()
