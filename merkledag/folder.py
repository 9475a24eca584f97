"""Reading UnixFS directories: streaming their entries and looking up one name, flat or HAMT."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from merkledag import dag_pb, unixfs
from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from merkledag.codecs import name as codec_name
from merkledag.dag_pb import Row, name_bytes
from merkledag.errors import DecodeError, LimitExceeded, NoSuchLink, NotADirectory
from merkledag.hamt import HASH_BITS, bits_of, bucket, hash_name, prefix_chars, prefixes_of
from merkledag.nodes import Find, Nodes, finder
from merkledag.steps import Buffer, Steps, Walk, Want, need
from merkledag.unixfs import HASH_MURMUR3, MIN_FANOUT, Data, Kind

AHEAD = 16  # how many following shards a Want announces


class Entry(NamedTuple):
    """One entry. `tsize` is what the link declares, or None.

    The name is as found and may be `..` or hold NUL: whoever writes it to a file system must check it.
    """

    name: str
    cid: CID
    tsize: int | None


def directory_message(cid: CID, payload: bytes | None) -> Data:
    """The UnixFS message of a directory node; raises NotADirectory for anything else, DecodeError."""
    if payload is None:
        raise NotADirectory(f"{cid} is a dag-pb node without UnixFS data, not a directory")
    message = unixfs.decode(payload)
    if message.kind not in (Kind.DIRECTORY, Kind.HAMT):
        raise NotADirectory(f"{cid} is a UnixFS {message.kind.name.lower()}, not a directory")
    if message.kind is Kind.HAMT:
        _check_shard(cid, message)
    return message


def _check_shard(cid: CID, message: Data) -> None:
    fanout = message.fanout
    if fanout is None or fanout < MIN_FANOUT or fanout & (fanout - 1):
        raise DecodeError(f"{cid}: HAMT fanout {fanout}; a power of two from {MIN_FANOUT} on is needed")
    if message.hash_type != HASH_MURMUR3:
        raise DecodeError(f"{cid}: HAMT hash type {message.hash_type}; only murmur3 (0x22) exists")


class Slot(NamedTuple):
    """An occupied bucket of a HAMT: an entry, or with an empty name a sub-shard."""

    number: int
    name: bytes
    cid: CID
    tsize: int | None


class Shard:
    """One node of a HAMT, its links checked against its place in the trie.

    `path` is the part of the hash that all names below it share, `level` its distance from the root.
    """

    __slots__ = ("_bits", "_cid", "_following", "_prefix", "_shift", "fanout", "level", "path", "slots")

    def __init__(self, cid: CID, rows: list[Row], message: Data, level: int, path: int) -> None:
        self._cid = cid
        self.fanout = message.fanout or 0
        self._bits = bits_of(self.fanout)
        self.level = level
        self.path = path
        self._prefix = path << self._bits
        self._shift = HASH_BITS - self._bits * (level + 1)
        if self._shift < 0:
            raise LimitExceeded(f"{cid}: HAMT deeper than the {HASH_BITS} bits of its hash allow")
        if level and not rows:
            raise DecodeError(f"{cid}: a HAMT shard below the root is empty")
        self.slots: list[Slot] = []
        self._following: list[CID] = []  # sub-shards that are not opened yet, the next one last
        width, numbers, new_slot = prefix_chars(self.fanout), _numbers(self.fanout), tuple.__new__
        occupied = 0
        for link_cid, name, tsize in rows:
            number = numbers.get(name[:width]) if name else None
            if number is None or name is None:
                shown = _text(name or b"")[:80]
                raise DecodeError(f"{cid}: HAMT link {shown!r} does not begin with a bucket number")
            occupied |= 1 << number
            self.slots.append(new_slot(Slot, (number, name[width:], link_cid, tsize)))
            if len(name) == width:
                self._following.append(link_cid)
        self._following.reverse()
        if occupied.bit_count() != len(rows):
            raise DecodeError(f"{cid}: a HAMT bucket comes twice")
        if occupied != int.from_bytes(message.data or b"", "big"):
            raise DecodeError(f"{cid}: the HAMT bitfield does not match the links")

    def check(self, slot: Slot) -> None:
        """Raises DecodeError if the name of an entry does not lead to its bucket."""
        if hash_name(slot.name) >> self._shift != self._prefix | slot.number:
            raise DecodeError(f"{self._cid}: HAMT entry {_text(slot.name)[:80]!r} is in the wrong bucket")

    def child(self, number: int, cid: CID, block: Buffer) -> Shard:
        """The sub-shard under a bucket; raises DecodeError if it does not continue this HAMT."""
        rows, payload = dag_pb.decode_rows(block) if cid.codec == DAG_PB else ([], None)
        message = None if payload is None else unixfs.decode(payload)
        if message is None or message.kind is not Kind.HAMT or message.fanout != self.fanout:
            raise DecodeError(f"{cid}: a HAMT shard of fanout {self.fanout} was expected here")
        _check_shard(cid, message)
        return Shard(cid, rows, message, self.level + 1, self._prefix | number)

    def slots_after(self, after: int) -> list[Slot]:
        """The slots, in the order of their buckets, that can hold names whose hash is larger than `after`."""
        last = after >> self._shift
        # A shard beside the way to `after` lies behind it or before it as a whole.
        self.slots = sorted(slot for slot in self.slots if self._prefix | slot.number >= last)
        self._following = [slot.cid for slot in reversed(self.slots) if not slot.name]
        return self.slots

    def ahead(self) -> tuple[CID, ...]:
        """The sub-shards behind the next one, which is being opened."""
        self._following.pop()
        return tuple(self._following[: -AHEAD - 1 : -1])


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


@cache
def _numbers(fanout: int) -> dict[bytes, int]:
    """The bucket that each beginning of a link's name stands for."""
    return {prefix: number for number, prefix in enumerate(prefixes_of(fanout))}


def entries(cid: CID, after: int | None = None) -> Walk[Entry]:
    """Yields a directory's entries in block order; a HAMT is streamed, one path of shards in memory.

    `after` skips the entries of a HAMT whose names hash to no more than that, without reading the shards that
    hold nothing else; a flat directory has no such order and is yielded whole. Of several entries with one
    name the first counts. Raises NotADirectory, DecodeError for directories that contradict themselves,
    LimitExceeded for a HAMT deeper than its hash.
    """
    block = need((yield Want(cid)))
    if cid.codec != DAG_PB:
        raise NotADirectory(f"{cid} is a {codec_name(cid.codec)} block, not a directory")
    rows, payload = dag_pb.decode_rows(block)
    message = directory_message(cid, payload)
    new_entry = tuple.__new__  # what calling Entry comes to, in half the time
    if message.kind is Kind.DIRECTORY:
        seen: set[bytes] = set()
        for link_cid, given, tsize in rows:
            name = given or b""
            if name not in seen:
                seen.add(name)
                yield new_entry(Entry, (_text(name), link_cid, tsize))
        return
    top = Shard(cid, rows, message, 0, 0)
    stack = [(top, iter(top.slots if after is None else top.slots_after(after)))]
    while stack:
        shard, rest = stack[-1]
        for slot in rest:
            number, name, link_cid, tsize = slot
            if not name:
                block = need((yield Want(link_cid, shard.ahead())))
                child = shard.child(number, link_cid, block)
                stack.append((child, iter(child.slots if after is None else child.slots_after(after))))
                break
            shard.check(slot)
            if after is None or hash_name(name) > after:
                yield new_entry(Entry, (_text(name), link_cid, tsize))
        else:
            stack.pop()


def lookup(cid: CID, name: str) -> Steps[Entry]:
    """The entry called `name`; the first if there are several.

    Raises NoSuchLink, NotADirectory, DecodeError, LimitExceeded.
    """
    if cid.codec != DAG_PB:
        yield Want(cid)
        raise NotADirectory(f"{cid} is a {codec_name(cid.codec)} block, not a directory")
    find = yield from finder(cid, None)
    return (yield from lookup_by(cid, find, name))


def lookup_by(cid: CID, find: Find, name: str, nodes: Nodes | None = None) -> Steps[Entry]:
    """As `lookup`, for a dag-pb node in which `find` finds links; shards below it are kept in `nodes`."""
    raw_name = name_bytes(name)
    link, payload = find(raw_name)
    message = directory_message(cid, payload)
    if message.kind is Kind.DIRECTORY:
        if link is None:
            raise NoSuchLink(name, cid)
        return Entry(name, link.cid, link.tsize)
    fanout = message.fanout or 0
    bits, width = bits_of(fanout), prefix_chars(fanout)
    hashed, level, shard = hash_name(raw_name), 0, cid
    while True:
        prefix = b"%0*X" % (width, bucket(hashed, level, bits))
        link, payload = find(prefix, prefix + raw_name)
        if level:
            message = directory_message(shard, payload)
            if message.kind is not Kind.HAMT or message.fanout != fanout:
                raise DecodeError(f"{shard}: a HAMT shard of fanout {fanout} was expected here")
        if link is None:
            raise NoSuchLink(name, cid)
        if link.name != prefix.decode():
            return Entry(name, link.cid, link.tsize)
        shard, level = link.cid, level + 1
        if shard.codec != DAG_PB:
            raise DecodeError(f"{shard}: a HAMT shard was expected here")
        find = yield from finder(shard, nodes)
