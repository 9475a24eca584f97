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

from gateway.app import build_app
from gateway.listener import listen
from gateway.settings import GatewaySettings
from gateway.source import NameRecord, NameTarget
from merkledag import car, ipns
from merkledag.errors import RecordError
from merkledag.peer import name_text, parse_name
from tests.gateway.support import MemoryNames, MemorySource

_NANOSECONDS = 10**9


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


async def _serve(folder: Path, port: int) -> None:
    source, names = load(folder)
    settings = GatewaySettings(subdomain_hosts=("localhost", "example.com"))
    listener = await listen(build_app(source, names, settings, records=names), "127.0.0.1", port, settings)
    print(listener.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
