"""Oracles of the protobuf formats: dag-pb, UnixFS, and the HAMT's rules above them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import mmh3

from tests.fuzz import oracles
from tests.fuzz.target import Refused


class Missing(Exception):
    """A block that is not there."""


Field = tuple[int, int, Any, int]  # number, wire type, value, bytes of the tag

WIRE_NUMBER, WIRE_64, WIRE_BYTES, WIRE_32 = 0, 1, 2, 5


def number(data: bytes, at: int) -> tuple[int, int]:
    """A protobuf varint: any length up to ten bytes, 64 bits."""
    for size in range(1, 11):
        if at + size > len(data):
            break
        if data[at + size - 1] < 0x80:
            value = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(data[at : at + size]))
            if value < 2**64:
                return value, at + size
            break
    raise Refused("no 64-bit number")


def message(data: bytes) -> list[Field]:
    """All fields of a message, in order."""
    at, found = 0, []
    while at < len(data):
        start = at
        tag, at = number(data, at)
        field, wire, tag_bytes = tag >> 3, tag & 7, at - start
        value: Any
        if wire == WIRE_NUMBER:
            value, at = number(data, at)
        elif wire == WIRE_BYTES:
            size, at = number(data, at)
            value, at = data[at : at + size], at + size
        elif wire in (WIRE_64, WIRE_32):
            size = 8 if wire == WIRE_64 else 4
            value, at = data[at : at + size], at + size
        else:
            raise Refused("a wire type that is not used")
        if at > len(data):
            raise Refused("cut off")
        found.append((field, wire, value, tag_bytes))
    return found


Link = tuple[tuple[int, int, bytes], bytes | None, int | None]


def dag_pb(data: bytes) -> tuple[list[Link], bytes | None]:
    """Links and data of a node."""
    links: list[Link] = []
    payload: bytes | None = None
    order = ""
    for field, wire, value, tag_bytes in message(data):
        if wire != WIRE_BYTES or field not in (1, 2) or tag_bytes != 1:
            raise Refused("a field that a node has not")
        order += "dl"[field - 1]
        if field == 1:
            payload = value
        else:
            links.append(_link(value))
    if order.count("d") > 1 or "d" in order.strip("d"):
        raise Refused("the data twice, or between links")
    return links, payload


def _link(data: bytes) -> Link:
    last = 0
    values: dict[int, Any] = {}
    for field, wire, value, tag_bytes in message(data):
        if field not in (1, 2, 3) or wire != (WIRE_NUMBER if field == 3 else WIRE_BYTES) or tag_bytes != 1:
            raise Refused("a field that a link has not")
        if field <= last:
            raise Refused("fields out of order or repeated")
        values[field] = value
        last = field
    if 1 not in values:
        raise Refused("a link without a CID")
    return oracles.cid(values[1]), values.get(2), values.get(3)


def unixfs(data: bytes) -> dict[str, Any]:
    """The message: single fields keep their last value, unknown fields are passed over."""
    found: dict[str, Any] = {"blocksizes": []}
    names = {1: "kind", 3: "filesize", 5: "hash_type", 6: "fanout", 7: "mode"}
    for field, wire, value, tag_bytes in message(data):
        if field == 0:
            raise Refused("the field number 0")
        if field > 8:
            continue
        if tag_bytes > 1:
            raise Refused("a number that is longer than it need be")
        if field == 4 and wire == WIRE_BYTES:
            at = 0
            while at < len(value):
                size, at = number(value, at)
                found["blocksizes"].append(size)
            continue
        if wire != (WIRE_BYTES if field in (2, 8) else WIRE_NUMBER):
            raise Refused("a field of another wire type")
        if field == 4:
            found["blocksizes"].append(value)
        else:
            found[{2: "data", 8: "mtime", **names}[field]] = _mtime(value) if field == 8 else value
    if found.get("kind", 6) > 5:
        raise Refused("no type, or an unknown one")
    if found.get("fanout", 0) > 1024:
        raise Refused("a fanout over the limit")
    if "mode" in found:
        found["mode"] %= 2**32
    return found


def _mtime(data: bytes) -> tuple[int, int]:
    seconds, nanoseconds = None, 0
    for field, wire, value, _ in message(data):
        if field == 0:
            raise Refused("the field number 0")
        if field == 1 and wire == WIRE_NUMBER:
            (seconds,) = struct.unpack("<q", struct.pack("<Q", value))
        elif field == 2 and wire == WIRE_32:
            (nanoseconds,) = struct.unpack("<I", value)
            if not 1 <= nanoseconds <= 999_999_999:
                raise Refused("no fraction of a second")
        elif field in (1, 2):
            raise Refused("a field of another wire type")
    if seconds is None:
        raise Refused("no seconds")
    return seconds, nanoseconds


Entries = list[tuple[str, tuple[int, int, bytes]]]


def hamt(blocks: Mapping[bytes, bytes], root: bytes) -> Entries:
    """The entries of a HAMT whose blocks are given by their SHA-256, in the order of a walk."""
    return _shard(blocks, blocks[root], None, "")


def _shard(blocks: Mapping[bytes, bytes], data: bytes, parent_fanout: int | None, path: str) -> Entries:
    """`path` is the part of the hash, as bits, that leads here."""
    links, payload = dag_pb(data)
    if payload is None:
        raise Refused("no UnixFS")
    node = unixfs(payload)
    fanout = node.get("fanout", 0)
    if node["kind"] != 5 or node.get("hash_type") != 0x22:
        raise Refused("no HAMT")
    if fanout not in (8, 16, 32, 64, 128, 256, 512, 1024) or parent_fanout not in (None, fanout):
        raise Refused("a fanout that is not used, or not above")
    if parent_fanout is not None and not links:
        raise Refused("a shard below the root that is empty")
    width, bits = len(f"{fanout - 1:X}"), fanout.bit_length() - 1
    if len(path) + bits > 64:
        raise Refused("too deep")
    bitfield = 0
    found: Entries = []
    for cid, name, _ in links:
        prefix, rest = (name or b"")[:width], (name or b"")[width:]
        bucket = next((at for at in range(fanout) if b"%0*X" % (width, at) == prefix), None)
        if bucket is None or bitfield & 1 << bucket:
            raise Refused("no bucket, or one that comes twice")
        bitfield |= 1 << bucket
        here = path + f"{bucket:0{bits}b}"
        if rest:
            if not f"{mmh3.hash64(rest, signed=False)[0]:064b}".startswith(here):
                raise Refused("a name in another's bucket")
            found.append((rest.decode("utf-8", "surrogateescape"), cid))
        elif cid[1] != 0x70:
            raise Refused("a shard that is no dag-pb")
        elif cid[2] in blocks:
            found += _shard(blocks, blocks[cid[2]], fanout, here)
        else:
            raise Missing
    if bitfield != int.from_bytes(node.get("data", b""), "big"):
        raise Refused("another bitfield")
    return found
