"""Random requests to our gateway and to boxo's over the same blocks: `python -m tests.peers.compare_gateway`.

Every request follows from its seed, so that `--seed N --cases 1` asks the one of a report again. Differences
that are meant are known (gateway_known.py, docs/gateway.md) and counted.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.app import build_app
from gateway.serving.listener import listen
from gateway.settings import GatewaySettings
from gateway.source import NameRecord, NameTarget
from merkledag.block import Block
from tests.gateway.support import MemoryNames, MemorySource
from tests.peers import support
from tests.peers.gateway_answers import Differences, Server, differences
from tests.peers.gateway_content import TTL_S, Content, make_content
from tests.peers.gateway_known import Case, explain
from tests.peers.gateway_requests import PATHS, SUBDOMAINS, TRUSTLESS, Request, random_request

ENDING_TIMEOUT_S = 30
SETTINGS = GatewaySettings(
    subdomain_hosts=(SUBDOMAINS,), path_hosts=(PATHS, TRUSTLESS), trustless_hosts=(TRUSTLESS,)
)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A request that the two answer differently."""

    request: Request
    fields: Differences

    def __str__(self) -> str:
        told = "".join(
            f"\n    {name}: ours {mine}, theirs {yours}" for name, (mine, yours) in self.fields.items()
        )
        return f"seed {self.request.seed}: {self.request.text}{told}"


@contextmanager
def their_gateway(content: Content, folder: Path) -> Iterator[Server]:
    """boxo's gateway as a process."""
    peer = support.find_peer("boxo")
    archive = folder / "content.car"
    content.write(archive)
    config = {
        "car": str(archive),
        "hosts": [SUBDOMAINS],
        "strict": [TRUSTLESS],
        "names": {name: {"path": path, "ttl_s": TTL_S} for name, path in content.names.items()},
        "records": {key: base64.b64encode(record).decode() for key, record in content.records.items()},
    }
    process = subprocess.Popen(
        [*peer.command, "gateway"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # where it complains about itself
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(config) + "\n")
        process.stdin.flush()
        server = Server(process.stdout.readline().strip(), may_hang_up=True)
        yield server
        server.close()
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(ENDING_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@asynccontextmanager
async def our_gateway(content: Content) -> AsyncIterator[Server]:
    """Ours, in this process."""
    source = MemorySource(Block(cid, data) for cid, data in content.blocks.items())
    names = MemoryNames(
        {name: NameTarget(path, TTL_S) for name, path in content.names.items()},
        {key: NameRecord(record, TTL_S) for key, record in content.records.items()},
    )
    listener = await listen(build_app(source, names, SETTINGS, records=names), "127.0.0.1", 0, SETTINGS)
    server = Server(listener.url)
    try:
        yield server
    finally:
        server.close()
        await listener.close()


def ask_both(
    content: Content, requests: Iterable[Request], ours: Server, theirs: Server
) -> tuple[list[Mismatch], Counter[str]]:
    """The requests with differences that nothing explains, and how often each known difference was met."""
    found = []
    known: Counter[str] = Counter()
    for request in requests:
        our_answer, their_answer = ours.ask(request), theirs.ask(request)
        fields = differences(request, our_answer, their_answer)
        case = Case(content, request, our_answer, their_answer)
        reasons = {field: explain(case, field) for field in fields}
        known.update({reason for reason in reasons.values() if reason is not None})
        if unexplained := {field: pair for field, pair in fields.items() if reasons[field] is None}:
            found.append(Mismatch(request, unexplained))
    return found, known


async def compare(seeds: Iterable[int]) -> tuple[list[Mismatch], Counter[str]]:
    """Asks both for the requests of all seeds."""
    content = make_content()
    requests = [random_request(seed, content) for seed in seeds]
    with tempfile.TemporaryDirectory() as folder, their_gateway(content, Path(folder)) as theirs:
        async with our_gateway(content) as ours:
            return await asyncio.to_thread(ask_both, content, requests, ours, theirs)


def main() -> int:
    """Prints every difference that is not known; exit status 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers.compare_gateway", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    arguments = parser.parse_args()
    started = time.monotonic()
    print(f"{arguments.cases} requests from seed {arguments.seed} on")
    mismatches, known = asyncio.run(compare(range(arguments.seed, arguments.seed + arguments.cases)))
    for mismatch in mismatches:
        print(mismatch)
    for row, count in known.most_common():
        print(f"{count:8} {row}")
    print(f"{arguments.cases} compared in {time.monotonic() - started:.0f} s, {len(mismatches)} differ")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
