"""HAMT folders: where a name lives in the trie, and building the trie (UnixFS spec, "HAMTDirectory")."""

from __future__ import annotations

from typing import NamedTuple

import mmh3

from merkledag import dag_pb, unixfs
from merkledag.block import Block
from merkledag.builder import Link, make_block
from merkledag.cid import CID
from merkledag.dag_pb import PBLink, name_bytes
from merkledag.errors import LimitExceeded
from merkledag.profile import ImportProfile
from merkledag.unixfs import HASH_MURMUR3, Data, Kind, Mtime

HASH_BITS = 64


class Item(NamedTuple):
    """An entry and the 64-bit hash of its name."""

    hashed: int
    name: bytes
    cid: CID
    tsize: int | None


def hash_name(name: bytes) -> int:
    """The first half of murmur3-x64-128 as a number; its highest bits choose the bucket at the root."""
    return mmh3.hash64(name, signed=False)[0]  # `signed` counts as a keyword only


def bits_of(fanout: int) -> int:
    """How many bits of the hash each level uses up."""
    return fanout.bit_length() - 1


def bucket(hashed: int, level: int, bits: int) -> int:
    """The bucket at `level` (root 0); raises LimitExceeded where the hash has no bits left."""
    shift = HASH_BITS - bits * (level + 1)
    if shift < 0:
        raise LimitExceeded(f"HAMT deeper than the {HASH_BITS} bits of its hash allow")
    return hashed >> shift & ((1 << bits) - 1)


def prefix_chars(fanout: int) -> int:
    """Length of the bucket number in hexadecimal that starts every link name."""
    return len(f"{fanout - 1:X}")


def build(
    profile: ImportProfile, items: list[Item], mode: int | None = None, mtime: Mtime | None = None
) -> tuple[Link, list[Block]]:
    """The trie's root and its blocks, children first; raises LimitExceeded if two names share all 64 bits."""
    blocks: list[Block] = []
    # Sorted by hash, every bucket at every level is one run of neighbours.
    link = _shard(profile, sorted(items), 0, blocks, mode, mtime)
    return link, blocks


def _shard(
    profile: ImportProfile,
    items: list[Item],
    level: int,
    blocks: list[Block],
    mode: int | None = None,
    mtime: Mtime | None = None,
) -> Link:
    """One node of the trie for `items`, which share the hash bits above `level`; 21 levels at most."""
    bits = bits_of(profile.hamt_fanout)
    runs: dict[int, list[Item]] = {}
    for item in items:
        runs.setdefault(bucket(item.hashed, level, bits), []).append(item)
    slots = [(index, place(profile, run, level, blocks)) for index, run in runs.items()]
    return write_shard(profile, slots, blocks, mode, mtime)


def place(profile: ImportProfile, run: list[Item], level: int, blocks: list[Block]) -> PBLink:
    """What a bucket at `level` holds for `run` (not empty, sorted): the entry itself, or a shard of several.

    The link's name is the entry's, empty for a shard.
    """
    if len(run) == 1:
        _, name, cid, tsize = run[0]
        return PBLink(cid, name.decode("utf-8", "surrogateescape"), tsize)
    child = _shard(profile, run, level + 1, blocks)
    return PBLink(child.cid, "", child.tsize)


def write_shard(
    profile: ImportProfile,
    slots: list[tuple[int, PBLink]],
    blocks: list[Block],
    mode: int | None = None,
    mtime: Mtime | None = None,
) -> Link:
    """Appends the block of a shard to `blocks`: buckets in ascending order, links as `place` returns them."""
    width = prefix_chars(profile.hamt_fanout)
    encoded: list[bytes] = []
    tsize = bitfield = 0
    for index, (cid, name, size) in slots:
        bitfield |= 1 << index
        encoded.append(dag_pb.encode_link(cid, b"%0*X" % (width, index) + name_bytes(name or ""), size))
        tsize += size or 0
    occupied = bitfield.to_bytes((bitfield.bit_length() + 7) // 8, "big")
    message = Data(
        Kind.HAMT, occupied, hash_type=HASH_MURMUR3, fanout=profile.hamt_fanout, mode=mode, mtime=mtime
    )
    block = make_block(profile, dag_pb.assemble(encoded, unixfs.encode(message)))
    blocks.append(block)
    return Link(block.cid, 0, len(block.data) + tsize)
