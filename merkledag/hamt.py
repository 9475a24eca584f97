"""HAMT folders: where a name lives in the trie, and building the trie (UnixFS spec, "HAMTDirectory")."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import cache
from operator import itemgetter
from typing import NamedTuple

import mmh3

from merkledag import dag_pb, unixfs
from merkledag.block import Block
from merkledag.builder import Link, make_block
from merkledag.cid import CID
from merkledag.errors import LimitExceeded
from merkledag.profile import ImportProfile
from merkledag.unixfs import HASH_MURMUR3, Data, Kind, Mtime

HASH_BITS = 64
_FIRST_HALF = (1 << HASH_BITS) - 1


class Item(NamedTuple):
    """An entry and the 64-bit hash of its name."""

    hashed: int
    name: bytes
    cid: CID
    tsize: int | None


_hashed = itemgetter(0)

# What a bucket holds: an entry's name, CID and tsize, or a shard's with an empty name.
Held = tuple[bytes, CID, int | None]
Slot = tuple[int, bytes, CID, int | None]  # a bucket and what it holds


def hash_name(name: bytes) -> int:
    """The first half of murmur3-x64-128 as a number; its highest bits choose the bucket at the root."""
    return mmh3.mmh3_x64_128_uintdigest(name) & _FIRST_HALF


def bits_of(fanout: int) -> int:
    """How many bits of the hash each level uses up."""
    return fanout.bit_length() - 1


def bucket(hashed: int, level: int, bits: int) -> int:
    """The bucket at `level` (root 0); raises LimitExceeded where the hash has no bits left."""
    return hashed >> shift_of(level, bits) & ((1 << bits) - 1)


def shift_of(level: int, bits: int) -> int:
    """How many bits of the hash are below those of a bucket at `level`; raises LimitExceeded below 0."""
    shift = HASH_BITS - bits * (level + 1)
    if shift < 0:
        raise LimitExceeded(f"HAMT deeper than the {HASH_BITS} bits of its hash allow")
    return shift


@cache
def prefixes_of(fanout: int) -> tuple[bytes, ...]:
    """What the link names of each bucket begin with."""
    width = prefix_chars(fanout)
    return tuple([b"%0*X" % (width, index) for index in range(fanout)])


def prefix_chars(fanout: int) -> int:
    """Length of the bucket number in hexadecimal that starts every link name."""
    return len(f"{fanout - 1:X}")


def build(
    profile: ImportProfile,
    parts: Iterable[list[Item]],
    mode: int | None = None,
    mtime: Mtime | None = None,
) -> Generator[Block, None, Link]:
    """Yields the trie's blocks, children first, and returns the root's link.

    `parts` are the entries of one bucket of the root after the other, sorted, so that one of them needs to be
    in memory at a time. Raises LimitExceeded if two names share all 64 bits.
    """
    slots: list[Slot] = []
    bits = bits_of(profile.hamt_fanout)
    for items in parts:
        if items:
            blocks: list[Block] = []
            slots.append((bucket(items[0].hashed, 0, bits), *place(profile, items, 0, blocks)))
            yield from blocks
    blocks = []
    link = write_shard(profile, slots, blocks, mode, mtime)
    yield from blocks
    return link


def runs(profile: ImportProfile, items: Sequence[Item], level: int = 0) -> Iterator[list[Item]]:
    """Entries that are sorted by hash, by their buckets at `level`."""
    shift = shift_of(level, bits_of(profile.hamt_fanout))
    start, count = 0, len(items)
    while start < count:
        prefix = items[start].hashed >> shift
        end = start + 1
        if end < count and items[end].hashed >> shift == prefix:
            end = bisect_left(items, prefix + 1 << shift, end + 1, key=_hashed)
        yield list(items[start:end])
        start = end


def _shard(profile: ImportProfile, items: list[Item], level: int, blocks: list[Block]) -> Link:
    """One node of the trie for `items`, which share the hash bits above `level`; 21 levels at most."""
    bits = bits_of(profile.hamt_fanout)
    slots = [
        (bucket(run[0].hashed, level, bits), *place(profile, run, level, blocks))
        for run in runs(profile, items, level)
    ]
    return write_shard(profile, slots, blocks)


def place(profile: ImportProfile, run: list[Item], level: int, blocks: list[Block]) -> Held:
    """What a bucket at `level` holds for `run` (not empty, sorted): the entry, or a shard of several."""
    if len(run) == 1:
        return run[0][1:]
    child = _shard(profile, run, level + 1, blocks)
    return b"", child.cid, child.tsize


def write_shard(
    profile: ImportProfile,
    slots: Sequence[Slot],
    blocks: list[Block],
    mode: int | None = None,
    mtime: Mtime | None = None,
) -> Link:
    """Appends the block of a shard to `blocks`; `slots` are (bucket, *Held) in ascending order."""
    encode_link = dag_pb.encode_link
    prefixes = prefixes_of(profile.hamt_fanout)
    encoded: list[bytes] = []
    total = bitfield = 0
    for index, name, cid, tsize in slots:
        bitfield |= 1 << index
        encoded.append(encode_link(cid, prefixes[index] + name, tsize))
        if tsize is not None:
            total += tsize
    occupied = bitfield.to_bytes((bitfield.bit_length() + 7) // 8, "big")
    message = Data(
        Kind.HAMT,
        occupied or None,
        hash_type=HASH_MURMUR3,
        fanout=profile.hamt_fanout,
        mode=mode,
        mtime=mtime,
    )
    block = make_block(profile, dag_pb.assemble(encoded, unixfs.encode(message)))
    blocks.append(block)
    return Link(block.cid, 0, len(block.data) + total)
