"""The blocks, records and DNSLink names of the public gateway test suite, as a source and a resolver.

Run as a program, it serves them, so that the suite itself can be pointed at it:
`python -m tests.gateway.public_suite FOLDER [PORT]`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from gateway.app import build_app
from gateway.listener import listen
from gateway.names import key_name
from gateway.settings import GatewaySettings
from gateway.source import NameRecord, NameTarget
from merkledag import car, dag_cbor, protobuf
from merkledag.ed25519 import verify
from merkledag.errors import MerkledagError
from merkledag.peer import parse_peer
from tests.gateway.support import MemoryNames, MemorySource

_SIGNED = b"ipns-signature:"
_NANOSECONDS = 10**9


def fields(data: bytes) -> dict[int, bytes | int]:
    """The fields of a protobuf message, by number."""
    found: dict[int, bytes | int] = {}
    position = 0
    while position < len(data):
        tag, position = protobuf.read_varint(data, position)
        if tag & 7 == 2:
            start, position = protobuf.read_length(data, position)
            found[tag >> 3] = data[start:position]
        else:
            found[tag >> 3], position = protobuf.read_varint(data, position)
    return found


def read_record(name: str, data: bytes) -> NameTarget | None:
    """What an IPNS record says, None if its second signature or its old fields are not good (IPIP-428)."""
    message = fields(data)
    signed, signature = message.get(9), message.get(8)
    if not isinstance(signed, bytes) or not isinstance(signature, bytes):
        return None
    content = dag_cbor.decode_lenient(signed)
    if 1 in message and message[1] != content["Value"]:
        return None
    try:
        public_key = parse_peer(name)
    except MerkledagError:
        public_key = None  # an RSA key, which is inside the record
    if public_key is not None and not verify(public_key, signature, _SIGNED + signed):
        return None
    return NameTarget(content["Value"].decode(), content["TTL"] // _NANOSECONDS)


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
        name = key_name(path.stem.split("_")[0])
        assert name is not None
        target = read_record(name, path.read_bytes())
        if target is not None:
            targets[name] = target
            records[name] = NameRecord(path.read_bytes(), target.ttl_s)
    return source, MemoryNames(targets, records)


async def _serve(folder: Path, port: int) -> None:
    source, names = load(folder)
    settings = GatewaySettings(subdomain_hosts=("localhost", "example.com"))
    listener = await listen(build_app(source, names, settings, records=names), "127.0.0.1", port, settings)
    print(listener.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
