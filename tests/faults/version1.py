"""Writes a home whose blockstore has format version 1, as programs of that version did; byte by byte."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import cbor2
import lmdb

SHARDS = 4
MAP_BYTES = 1 << 30
BLOCKS = 400
OWN, CACHE = 0, 1


def make_home(home: Path, chance: random.Random) -> list[bytes]:
    """A home with pinned raw blocks, cached ones and garbage; the pins as binary CIDv1."""
    blocks = [chance.randbytes(chance.randrange(1, 3000)) for _ in range(BLOCKS)]
    by_multihash = {b"\x12\x20" + hashlib.sha256(block).digest(): block for block in blocks}
    cached = {multihash for multihash in by_multihash if chance.random() < 0.5}
    pins = [b"\x01\x55" + each for each in by_multihash if each not in cached and chance.random() < 0.1]
    for folder in ("keys", "blocks/leases", "meta", "ledger", "run"):
        (home / folder).mkdir(parents=True)
    for number in range(SHARDS):
        mine = {each: block for each, block in by_multihash.items() if each[-1] % SHARDS == number}
        _write_shard(home / "blocks" / f"shard-{number:02d}.1.mdb", mine, cached)
    _write_pins(home / "meta" / "meta-00.1.mdb", pins)
    for kind, shards in (("blocks", SHARDS), ("meta", 1)):
        document = {"format": f"holdfast-{kind}", "version": 1, "shards": shards}
        (home / kind / "format.json").write_text(json.dumps(document) + "\n")
    return pins


def _write_shard(path: Path, blocks: dict[bytes, bytes], cached: set[bytes]) -> None:
    counters = [0, 0, 0, 0]
    with _environment(path) as environment, environment.begin(write=True) as txn:
        for number, (multihash, block) in enumerate(blocks.items(), 1):
            block_class = CACHE if multihash in cached else OWN
            key = struct.pack(">cQ", b"\2", number)
            txn.put(b"\1" + multihash, struct.pack(">9sQIB", key, 1, len(block), block_class))
            txn.put(key, block)
            counters[2 * block_class] += 1
            counters[2 * block_class + 1] += len(block)
        txn.put(b"\0counters", struct.pack(">4Q", *counters))


def _write_pins(path: Path, pins: list[bytes]) -> None:
    with _environment(path) as environment, environment.begin(write=True) as txn:
        for cid in pins:
            txn.put(b"\1" + cid, cbor2.dumps([cid, "recursive", "", {}, 0]))


def _environment(path: Path) -> Any:
    return lmdb.open(str(path), subdir=False, map_size=MAP_BYTES)
