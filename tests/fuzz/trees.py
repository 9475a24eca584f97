"""Targets: HAMTs of several shards, and archives in which a block is looked for by a changed index."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable
from typing import Any

from merkledag import car, car_v2, dag_cbor, dag_pb, unixfs
from merkledag.car_index import IndexKind
from merkledag.car_seek import find_block, read_header, run_reads
from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from merkledag.directory import DirEntry, build_directory
from merkledag.errors import DecodeError, HashMismatch, LimitExceeded, NotADirectory
from merkledag.folder import entries, lookup
from merkledag.profile import ImportProfile
from merkledag.steps import Buffer, iterate, run
from merkledag.unixfs import Kind
from tests.fuzz import mutations, oracle_pb, oracles
from tests.fuzz.archives import random_blocks
from tests.fuzz.target import Refused, Target, Unsure
from tests.merkledag.support import index_of


def packed(blocks: Iterable[bytes]) -> bytes:
    """Several blocks as one input, the root first."""
    return dag_cbor.encode(list(blocks))


def unpacked(data: bytes) -> list[bytes]:
    """The blocks of an input; raises DecodeError where shrinking made something else of it."""
    try:
        blocks = oracles.dag_cbor(data)
    except Refused as error:
        raise DecodeError(str(error)) from None
    if not isinstance(blocks, list) or not blocks or not all(isinstance(block, bytes) for block in blocks):
        raise DecodeError("this target takes lists of blocks")
    return blocks


def make_hamt(dice: random.Random) -> bytes:
    """A HAMT in which a shard is changed and all shards above it link to what came of it."""
    profile = ImportProfile(hamt_fanout=dice.choice((8, 8, 16, 256)))
    names = {
        mutations.random_text(dice).replace("/", "").replace("\0", "") for _ in range(dice.choice((1, 9, 30)))
    }
    leaf = CID(1, 0x55, b"\x12\x20" + dice.randbytes(32))
    listed = [DirEntry(name, leaf, 5) for name in sorted(names - {"", ".", ".."})]
    _, made = build_directory(profile, listed, hamt="always")
    blocks = [block.data for block in reversed(made)]
    if dice.random() < 0.15:
        return packed(blocks)
    at = dice.randrange(len(blocks))
    before = CID.of(blocks[at], DAG_PB)
    blocks[at] = _changed(dice, blocks)[at] if dice.random() < 0.6 else mutations.mutate(dice, blocks[at])
    for above in range(at - 1, -1, -1):  # the shards above come before
        old, new = bytes(before), bytes(CID.of(blocks[at], DAG_PB))
        if old in blocks[above]:
            before = CID.of(blocks[above], DAG_PB)
            blocks[above] = blocks[above].replace(old, new)
            at = above
    return packed(blocks)


def _changed(dice: random.Random, blocks: list[bytes]) -> list[bytes]:
    """Every shard with its links changed in a way that stays dag-pb and UnixFS."""
    out = []
    for block in blocks:
        node = dag_pb.decode(block)
        links, message = list(node.links), unixfs.decode(node.data or b"")
        kind = dice.randrange(5)
        if kind == 0 and links:
            link = dice.choice(links)
            links[links.index(link)] = link._replace(name=dice.choice(("00", "01x", "A", "7", link.name)))
        elif kind == 1 and links:
            links.pop(dice.randrange(len(links)))
        elif kind == 2 and links:
            links.append(dice.choice(links))
        elif kind == 3 and links:
            child = CID.of(dice.choice(blocks), DAG_PB)
            links[-1] = links[-1]._replace(cid=child, name=(links[-1].name or "")[:2])
        numbers = {int((link.name or "")[:2] or "0", 16) for link in links if _is_hex((link.name or "")[:2])}
        if dice.random() < 0.7:  # the bitfield then fits
            bits = sum(1 << number for number in numbers)
            message = unixfs.Data(
                Kind.HAMT,
                bits.to_bytes((bits.bit_length() + 7) // 8, "big"),
                hash_type=message.hash_type,
                fanout=dice.choice((message.fanout, message.fanout, message.fanout, 8)),
            )
        out.append(dag_pb.encode(dag_pb.PBNode(tuple(links), unixfs.encode(message))))
    return out


def _is_hex(text: str) -> bool:
    return bool(text) and set(text) <= set("0123456789ABCDEF")


def our_hamt(data: bytes) -> Any:
    """The entries; looking up each name must find it."""
    parts = unpacked(data)
    blocks = {CID.of(part, DAG_PB).multihash: part for part in parts}

    def get(cid: CID) -> Buffer:
        if cid.multihash not in blocks:
            raise DecodeError("a block that is not there")
        return blocks[cid.multihash]

    root = CID.of(parts[0], DAG_PB)
    with contextlib.suppress(DecodeError):
        if unixfs.decode(dag_pb.payload(parts[0]) or b"").kind is Kind.DIRECTORY:
            raise NotADirectory("a flat directory is another matter")
    found = list(iterate(entries(root), get))
    for entry in found[:5]:
        assert run(lookup(root, entry.name), get).name == entry.name
    return [(entry.name, (entry.cid.version, entry.cid.codec, entry.cid.multihash)) for entry in found]


def oracle_hamt(data: bytes) -> Any:
    try:
        parts = unpacked(data)
    except DecodeError as error:
        raise Refused(str(error)) from None
    blocks = {CID.of(part, DAG_PB).multihash: part for part in parts}
    try:
        return oracle_pb.hamt(blocks, CID.of(parts[0], DAG_PB).multihash)
    except oracle_pb.Missing:
        raise Refused("a block that is not there") from None


def make_sought(dice: random.Random) -> bytes:
    """An archive, an index of it that is changed, and the number of the block to look for."""
    blocks = random_blocks(dice)
    data = car.header([]) + b"".join(map(car.frame, blocks))
    raw = index_of(data).encode(dice.choice(tuple(IndexKind)))
    if dice.random() < 0.7:
        raw = mutations.mutate(dice, raw)
    head = car_v2.wrap(len(data), index=True).encode()
    which = bytes([dice.randrange(len(blocks))]) if blocks else b""
    return packed([head + data + raw, which, *(bytes(block.cid) for block in blocks)])


def our_sought(data: bytes) -> Any:
    """The block that an index leads to is the right one, or there is none."""
    archive, which, *cids = unpacked(data)
    if len(which) != 1 or which[0] >= len(cids):
        raise DecodeError("no block to look for")

    def read(at: int, size: int) -> bytes:
        return archive[at : at + size]

    cid = CID.decode(cids[which[0]])
    block = run_reads(find_block(run_reads(read_header(), read), cid), read)
    assert block is None or (
        block.cid == cid and CID.of(block.data, cid.codec, cid.hash_code, cid.version) == cid
    )
    return block


def oracle_sought(_data: bytes) -> Any:
    raise Unsure


TARGETS = (
    Target("hamt", make_hamt, our_hamt, oracle_hamt, (DecodeError, NotADirectory, LimitExceeded)),
    Target("car-find", make_sought, our_sought, oracle_sought, (DecodeError, LimitExceeded, HashMismatch)),
)
