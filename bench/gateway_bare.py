"""The limits beside the gateway: aiohttp with a handler of fixed bytes, and a thread that sends a file.

`python -m bench.gateway_bare WORKERS FILE` prints the two ports as JSON and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import multiprocessing
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import web

from bench.gateway_load import MIB

BODY_BYTES: Final = 4096


def serve(sock: socket.socket) -> None:
    """One worker: answers everything with the same bytes, by the shortest of aiohttp's ways."""
    body = bytes(BODY_BYTES)

    async def fixed(_: web.BaseRequest) -> web.Response:
        return web.Response(body=body)

    async def run() -> None:
        server = web.Server(fixed, access_log=None)
        await asyncio.get_running_loop().create_server(server, sock=sock)
        await asyncio.Event().wait()

    uvloop.run(run())


def send_file(listener: socket.socket, path: Path) -> None:
    """Sends the file's pages to whoever connects, a MiB at a time."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        while True:
            sock, _ = listener.accept()
            with sock, memoryview(pages) as view:
                sock.recv(MIB)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(view))
                for at in range(0, len(view), MIB):
                    sock.sendall(view[at : at + MIB])


def main() -> None:
    workers, path = int(sys.argv[1]), Path(sys.argv[2])
    sockets: list[socket.socket] = []
    for _ in range(workers):
        port = sockets[0].getsockname()[1] if sockets else 0
        sockets.append(socket.create_server(("127.0.0.1", port), backlog=1024, reuse_port=True))
    context = multiprocessing.get_context("fork")  # before there is any thread
    for sock in sockets:
        context.Process(target=serve, args=(sock,), daemon=True).start()
    plain = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=send_file, args=(plain, path), daemon=True).start()
    print(json.dumps({"port": sockets[0].getsockname()[1], "file_port": plain.getsockname()[1]}), flush=True)
    for sock in sockets:
        sock.close()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the workers end, too
    sys.stdin.read()


if __name__ == "__main__":
    main()
