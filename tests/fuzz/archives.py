"""Targets: CAR archives of both versions, and the index of the second."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from merkledag import car, car_v2, dag_cbor
from merkledag.block import Block
from merkledag.car_index import CarIndex, IndexKind, read_index
from merkledag.cid import CID
from merkledag.errors import DecodeError, HashMismatch, LimitExceeded, UnsupportedHash
from tests.fuzz import mutations, oracles
from tests.fuzz.target import Refused, Target, Unsure

HASHES = {0x12: "sha256", 0x13: "sha512", 0x11: "sha1", 0x16: "sha3_256"}
PRAGMA = bytes.fromhex("0aa16776657273696f6e02")


def random_blocks(dice: random.Random) -> list[Block]:
    blocks = []
    for _ in range(dice.choice((0, 1, 2, 5))):
        data = dice.randbytes(dice.choice((0, 1, 30, 100)))
        code = dice.choice((0x12, 0x12, 0x13, 0x11, 0x16, 0x00))
        version = 0 if code == 0x12 and dice.random() < 0.3 else 1
        blocks.append(Block(CID.of(data, 0x70 if version == 0 else 0x55, code, version), data))
    return blocks


def make_car(dice: random.Random) -> bytes:
    blocks = random_blocks(dice)
    roots = [block.cid for block in blocks[: dice.choice((0, 1, 2))]]
    head: Any = {"version": 1, "roots": roots}
    if dice.random() < 0.1:
        head = mutations.mutate_value(dice, head)
    raw = dag_cbor.encode(head)
    data = mutations.varint(len(raw)) + raw + b"".join(map(car.frame, blocks))
    if dice.random() < 0.4:
        padding = dice.choice((0, 0, 7))
        start = 51 + padding
        places = [start, len(data), dice.choice((0, start + len(data)))]
        if dice.random() < 0.2:
            places[dice.randrange(3)] = dice.choice((*mutations.NUMBERS, len(data) - 1, start + 1))
        header = bytes(16) + b"".join(place.to_bytes(8, "little") for place in places)
        data = PRAGMA + header + bytes(padding) + data + dice.choice((b"", b"\x81\x08\0\0\0\0"))
    draw = dice.random()
    if draw < 0.2:
        return data
    if draw < 0.3:
        return data[: dice.randrange(len(data) + 1)]
    return mutations.mutate(dice, data)


def our_car(data: bytes) -> Any:
    """Header and blocks, fed in pieces that end anywhere."""
    dice = random.Random(data)
    decoder = car.CarDecoder()
    version, roots, blocks = 0, [], []
    at = 0
    while at < len(data):
        size = dice.choice((1, 7, 100, len(data)))
        decoder.feed(data[at : at + size])
        at += size
        while (item := decoder.next()) is not None:
            if isinstance(item, car.CarHeader):
                version, roots = item.version, [bytes(root) for root in item.roots]
            else:
                blocks.append((bytes(item.cid), item.data))
    decoder.finish()
    return version, roots, blocks


def oracle_car(data: bytes) -> Any:
    version = 1
    if data.startswith(PRAGMA):
        version = 2
        header = data[11:51]
        start, size = (int.from_bytes(header[at : at + 8], "little") for at in (16, 24))
        if len(header) < 40 or start < 51 or not 0 < size < 2**63 or start + size > len(data):
            raise Refused("no CARv2, or one that is cut off")
        data = data[start : start + size]
    length, at = oracles.varint(data)
    if at + length > len(data):
        raise Refused("cut off in its header")
    try:
        head = oracles.dag_cbor(data[at : at + length])
    except Refused:
        raise Unsure from None  # a header may be in a form that is not canonical
    if not isinstance(head, dict) or set(head) != {"version", "roots"} or head["version"] is True:
        raise Refused("no header")
    if head["version"] != 1 or not isinstance(head["roots"], list):
        raise Refused("another version, or no roots")
    if not all(isinstance(root, oracles.Cid) for root in head["roots"]):
        raise Refused("a root that is no CID")
    at += length
    blocks = []
    while at < len(data):
        length, at = oracles.varint(data, at)
        section = data[at : at + length]
        at += length
        if not section or at > len(data):
            raise Refused("an empty section, or one that is cut off")
        cid, content = split_section(section)
        verify(cid, content)
        blocks.append((cid, content))
    return version, [cid_bytes(root) for root in head["roots"]], blocks


def cid_bytes(cid: oracles.Cid) -> bytes:
    version, codec, hashed = cid
    return hashed if version == 0 else b"\x01" + mutations.varint(codec) + hashed


def split_section(section: bytes) -> tuple[bytes, bytes]:
    if section[:2] == b"\x12\x20":
        end = 34
    else:
        _, at = oracles.varint(section)
        _, at = oracles.varint(section, at)
        _, _, end = oracles.multihash(section, at)
    oracles.cid(section[:end])
    return section[:end], section[end:]


def verify(cid: bytes, content: bytes) -> None:
    """Digests may be cut down to 20 bytes; identity ones are the content."""
    code, digest, _ = oracles.multihash(oracles.cid(cid)[2])
    if code == 0:
        if digest != content:
            raise Refused("not the identity")
        return
    if code not in HASHES:
        raise Unsure
    if len(digest) < 20 or not hashlib.new(HASHES[code], content).digest().startswith(digest):
        raise Refused("another hash")


def make_index(dice: random.Random) -> bytes:
    index = CarIndex(identity=dice.random() < 0.3)
    for _ in range(dice.choice((0, 1, 3, 20))):
        index.add(mutations.random_cid(dice), dice.randrange(2**16))
    raw = index.encode(dice.choice(tuple(IndexKind)))
    return raw if dice.random() < 0.2 else mutations.mutate(dice, raw)


def our_index(data: bytes) -> Any:
    kind, buckets = read_index(data)
    return int(kind), [(bucket.code, bucket.width, bytes(bucket.entries)) for bucket in buckets]


def oracle_index(data: bytes) -> Any:
    kind, at = oracles.varint(data)
    if kind not in (0x400, 0x401):
        raise Refused("unknown kind")
    buckets: list[tuple[int | None, int, bytes]] = []

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(data):
            raise Refused("cut off")
        return int.from_bytes(data[at - size : at], "little")

    def widths(code: int | None) -> None:
        nonlocal at
        last = -1
        for _ in range(number(4)):
            width, size = number(4), number(8)
            if width <= last or not 8 <= width <= 136 or size % width:
                raise Refused("a width out of order, or no whole entries")
            last, at = width, at + size
            if at > len(data):
                raise Refused("cut off")
            buckets.append((code, width, data[at - size : at]))

    if kind == 0x400:
        widths(None)
    else:
        last_code = -1
        for _ in range(number(4)):
            code = number(8)
            if code <= last_code:
                raise Refused("hash functions out of order")
            last_code = code
            widths(code)
    if at != len(data):
        raise Refused("bytes after it")
    return kind, buckets


def make_checked(dice: random.Random) -> bytes:
    """The seed of an archive, and an index of it that is changed."""
    seed = dice.randrange(256)
    raw = archive_index(seed).encode(dice.choice(tuple(IndexKind)))
    return bytes([seed]) + (raw if dice.random() < 0.2 else mutations.mutate(dice, raw))


def archive_index(seed: int) -> CarIndex:
    """The index of some archive; offsets are distinct."""
    dice = random.Random(seed)
    index = CarIndex()
    for offset in range(50, 50 + 100 * dice.choice((1, 2, 8)), 100):
        index.add(CID.of(dice.randbytes(dice.choice((1, 2))), 0x55, dice.choice((0x12, 0x12, 0x13))), offset)
    return index


def our_check(data: bytes) -> Any:
    return int(archive_index(data[0] if data else 0).check(data[1:]))


def oracle_check(data: bytes) -> Any:
    """Every digest of the archive is there, sorted, and every entry is one of the archive."""
    index = archive_index(data[0] if data else 0)
    kind, buckets = oracle_index(data[1:])
    _, right = oracle_index(index.encode(IndexKind(kind)))
    wanted = {(code, entry) for code, width, raw in right for entry in cut(raw, width)}
    listed = {(code, entry) for code, width, raw in buckets for entry in cut(raw, width)}
    for _, width, raw in buckets:
        digests = [entry[:-8] for entry in cut(raw, width)]
        if digests != sorted(digests):
            raise Refused("not sorted")
    if not listed <= wanted:
        raise Refused("an entry that leads elsewhere")
    if {(code, entry[:-8]) for code, entry in listed} != {(code, entry[:-8]) for code, entry in wanted}:
        raise Refused("a block that is not listed")
    return kind


def cut(raw: bytes, width: int) -> list[bytes]:
    return [raw[at : at + width] for at in range(0, len(raw), width)]


def make_v2_header(dice: random.Random) -> bytes:
    header = car_v2.wrap(dice.choice(mutations.NUMBERS[1:11]), index=dice.random() < 0.5).encode()
    raw = header[11:]
    return raw if dice.random() < 0.3 else mutations.mutate(dice, raw)


def our_v2_header(data: bytes) -> Any:
    header = car_v2.decode(data)
    return header.data_offset, header.data_size, header.index_offset, header.fully_indexed


def oracle_v2_header(data: bytes) -> Any:
    start, size, index = (int.from_bytes(data[at : at + 8], "little") for at in (16, 24, 32))
    if len(data) != 40 or not 51 <= start < 2**63 or not 0 < size < 2**63:
        raise Refused("a place that cannot be")
    return start, size, index, bool(data[0] & 0x80)


CAR_ERRORS = (DecodeError, LimitExceeded, HashMismatch, UnsupportedHash)
TARGETS = (
    Target("car", make_car, our_car, oracle_car, CAR_ERRORS),
    Target("car-v2", make_v2_header, our_v2_header, oracle_v2_header, (DecodeError,)),
    Target("car-index", make_index, our_index, oracle_index, (DecodeError, LimitExceeded)),
    Target("car-check", make_checked, our_check, oracle_check, (DecodeError, LimitExceeded)),
)
