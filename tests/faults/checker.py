"""Recounts a home from its files alone, as docs/blockstore.md describes them: the store's code is not asked.

    python -m tests.faults.checker HOME     prints what it found as JSON; exit 1 where something is wrong

The files are opened read-only and without LMDB's lock, so nobody may be writing. Blocks and links are read by
the few lines below, too: raw, dag-pb and DAG-CBOR ones.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
import lmdb

OWN, CACHE, DEAL = range(3)
RAW, DAG_PB, DAG_CBOR = 0x55, 0x70, 0x71
IDENTITY, SHA2_256 = 0x00, 0x12
MAX_FINDINGS = 20
MAX_NODE_BYTES = 1 << 21
PAGE_BYTES = 4096

Multihash = bytes


@dataclass
class Pinned:
    """A pin as it lies in the meta file; `cid` is a binary CIDv1."""

    cid: bytes
    mode: str
    name: str


@dataclass
class Recount:
    """What lies in a home. `findings` says in words what is wrong; nothing is when it is empty."""

    findings: list[str] = field(default_factory=list)
    blocks: dict[Multihash, int] = field(default_factory=dict)  # length in bytes
    classes: dict[Multihash, int] = field(default_factory=dict)
    bytes_by_class: dict[int, int] = field(default_factory=lambda: {OWN: 0, CACHE: 0, DEAL: 0})
    nodes: dict[Multihash, bytes] = field(default_factory=dict)  # of the blocks that may be nodes
    pins: dict[bytes, Pinned] = field(default_factory=dict)  # by binary CIDv1
    tree_root: bytes | None = None  # binary CID of the mutable tree's root
    epoch: int = 1
    newest_stamp: int = 0

    def wrong(self, finding: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)

    @property
    def size_bytes(self) -> int:
        return sum(self.blocks.values())

    def missing(self, cid: bytes) -> list[str]:
        """The multihashes (in hex) that the DAG of a binary CID lacks."""
        lost: list[str] = []
        seen: set[tuple[int, bytes]] = set()
        waiting = [cid]
        while waiting:
            codec, multihash = split_cid(waiting.pop())
            if (codec, multihash) in seen or multihash[0] == IDENTITY:
                continue
            seen.add((codec, multihash))
            if multihash not in self.blocks or (codec in _LINKS and multihash not in self.nodes):
                lost.append(multihash.hex())
            elif codec in _LINKS:
                waiting += _LINKS[codec](self.nodes[multihash])
            elif codec != RAW:
                lost.append(f"{multihash.hex()}: codec {codec:#x} is none that is followed here")
        return lost


def recount(home: Path, *, dags: bool = True) -> Recount:
    """Everything in `home`. With `dags`, every pin's DAG and the mutable tree must be whole."""
    seen = Recount()
    try:
        if (home / "blocks" / "format.json").exists():
            _read_blocks(home / "blocks", seen)
        if (home / "meta" / "format.json").exists():
            _read_meta(home / "meta", seen)
        elif seen.blocks:
            seen.wrong("there are blocks, and no records")
    except lmdb.Error as error:
        seen.wrong(f"a file cannot be read to its end: {error}")
    if dags:
        for pin in seen.pins.values():
            lost = [split_cid(pin.cid)[1].hex()] if pin.mode == "direct" else seen.missing(pin.cid)
            if pin.mode == "direct" and split_cid(pin.cid)[1] in seen.blocks:
                lost = []
            if lost:
                seen.wrong(f"the {pin.mode} pin {pin.cid.hex()} lacks {len(lost)} blocks: {lost[0]}")
        if seen.tree_root is not None and (lost := seen.missing(seen.tree_root)):
            seen.wrong(f"the mutable tree {seen.tree_root.hex()} lacks {len(lost)} blocks: {lost[0]}")
    return seen


# --- blocks ---


def _read_blocks(folder: Path, seen: Recount) -> None:
    version, shards, migrating = _format(folder, "holdfast-blocks")
    if version not in _CLASSES:
        seen.wrong(f"{folder}: version {version} is none that the checker knows")
        return
    for number in range(shards):
        with _live(folder, f"shard-{number:02d}", seen) as txn:
            if txn is not None:
                # While a store is migrated, a shard's counters say which version it has.
                old = migrating and len(txn.get(b"\0counters") or b"") == 32
                _read_shard(txn, number, shards, 1 if old else version, seen, complete=not migrating)
    if seen.newest_stamp > seen.epoch:
        seen.wrong(f"a block is stamped {seen.newest_stamp}, later than the epoch {seen.epoch}")


# By version of the format: the classes in the order of the counters.
_CLASSES = {1: (OWN, CACHE), 2: (OWN, CACHE, DEAL)}
_ROW = struct.Struct(">9sQIB")  # key of the bytes, epoch, length, class; of cached blocks in version 2 also:
_LAST_USE = struct.Struct(">I")


def _read_shard(txn: Any, number: int, shards: int, version: int, seen: Recount, *, complete: bool) -> None:
    where = f"shard {number}"
    counted: dict[int, list[int]] = {each: [0, 0] for each in _CLASSES[version]}
    data_keys: set[bytes] = set()
    used: set[bytes] = set()
    for key, value in _table(txn, b"\1"):
        data_key, epoch, length, block_class = _ROW.unpack(value[: _ROW.size])
        last_use = bytes(value[_ROW.size :])
        wanted_bytes = _last_use_bytes(version, block_class)
        if block_class not in counted or (complete and len(last_use) != wanted_bytes):
            seen.wrong(f"{where}: the row of {key.hex()} has {len(value)} bytes and class {block_class}")
            continue
        if last_use:
            used.add(last_use + key)
        if key[-1] % shards != number:
            seen.wrong(f"{where}: block {key.hex()} belongs elsewhere")
        counted[block_class][0] += 1
        counted[block_class][1] += length
        seen.blocks[key], seen.classes[key] = length, block_class
        seen.bytes_by_class[block_class] += length
        seen.newest_stamp = max(seen.newest_stamp, epoch)
        if data_key in data_keys:
            seen.wrong(f"{where}: two rows share the bytes {data_key.hex()}")
        data_keys.add(data_key)
        _read_block(txn.get(data_key), key, length, seen)
    for key, _ in _table(txn, b"\2"):
        if b"\2" + key not in data_keys:
            seen.wrong(f"{where}: the bytes {key.hex()} belong to no row")
    index = {key for key, _ in _table(txn, b"\0\1")}
    if index != used:
        seen.wrong(
            f"{where}: {len(index)} blocks are listed by last use, {len(used)} are cached, or they differ"
        )
    _compare_counters(txn, where, counted, seen)
    if number == 0:
        seen.epoch = int.from_bytes(txn.get(b"\0epoch") or b"\1", "big")


def _last_use_bytes(version: int, block_class: int) -> int:
    return _LAST_USE.size if version > 1 and block_class == CACHE else 0


def _read_block(data: memoryview | None, multihash: bytes, length: int, seen: Recount) -> None:
    if data is None:
        seen.wrong(f"block {multihash.hex()} has a row and no bytes")
        return
    if len(data) != length:
        seen.wrong(f"block {multihash.hex()} has {len(data)} bytes, its row says {length}")
    code, digest = split_multihash(multihash)
    if code == SHA2_256 and hashlib.sha256(data).digest() != digest:
        seen.wrong(f"block {multihash.hex()} is damaged")
        return
    if length <= MAX_NODE_BYTES:
        seen.nodes[multihash] = bytes(data)


def _compare_counters(txn: Any, where: str, counted: dict[int, list[int]], seen: Recount) -> None:
    value = txn.get(b"\0counters")
    found = tuple(number for each in counted.values() for number in each)
    kept = (0,) * len(found) if value is None else struct.unpack(f">{len(value) // 8}Q", value)
    if kept != found:
        seen.wrong(f"{where}: the counters say {kept}, the rows {found}")


# --- records ---


def _read_meta(folder: Path, seen: Recount) -> None:
    _format(folder, "holdfast-meta")
    with _live(folder, "meta-00", seen) as txn:
        if txn is None:
            return
        names: set[bytes] = set()
        for key, value in _table(txn, b"\1"):
            cid, mode, name, _metadata, _created = cbor2.loads(bytes(value))
            if split_cid(cid) != split_cid(key):
                seen.wrong(f"the pin {key.hex()} is written as one of {cid.hex()}")
            seen.pins[key] = Pinned(key, mode, name)
            if name:
                names.add(name.encode() + b"\0" + key)
        index = {key for key, _ in _table(txn, b"\2")}
        if index != names:
            seen.wrong(
                f"the index by name has {len(index)} entries, the pins {len(names)} names, or they differ"
            )
        counts = txn.get(b"\4pin-counts")
        modes = [sum(pin.mode == mode for pin in seen.pins.values()) for mode in ("recursive", "direct")]
        if counts is not None and list(struct.unpack(">QQ", counts)) != modes:
            seen.wrong(f"the pins are counted as {struct.unpack('>QQ', counts)}, they are {modes}")
        root = txn.get(b"\4mfs-root")
        seen.tree_root = None if root is None else bytes(root[8:])


# --- files ---


def _format(folder: Path, kind: str) -> tuple[int, int, bool]:
    """Version, number of shards, and whether some of them may still have an older version."""
    content = json.loads((folder / "format.json").read_bytes())
    assert content["format"] == kind, content
    return content["version"], content["shards"], "migrating_from" in content


@contextmanager
def _live(folder: Path, base: str, seen: Recount) -> Iterator[Any]:
    """A read transaction on the lowest generation that is not retired, None where there is none."""
    pattern = re.compile(re.escape(base) + r"\.([0-9]+)\.mdb")
    numbers = sorted(int(m[1]) for each in folder.iterdir() if (m := pattern.fullmatch(each.name)))
    for number in numbers:
        path = folder / f"{base}.{number}.mdb"
        try:
            opened = _environment(path)
        except lmdb.Error as error:
            seen.wrong(f"{path} cannot be opened: {error}")
            yield None
            return
        with _filled_up(opened, path) as environment, environment.begin(buffers=True) as txn:
            if txn.get(b"\0retired") is None:
                yield txn
                return
    seen.wrong(f"{folder}: no live file of {base}")
    yield None


@contextmanager
def _filled_up(opened: Any, path: Path) -> Iterator[Any]:
    """LMDB may leave its last pages unwritten, or they were cut off: then a copy with zeros is read."""
    with opened:
        whole_bytes = (opened.info()["last_pgno"] + 1) * PAGE_BYTES
        if path.stat().st_size >= whole_bytes:
            yield opened
            return
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(path.read_bytes())
        copy.truncate(whole_bytes)
        with _environment(Path(copy.name)) as environment:
            yield environment


def _environment(path: Path) -> Any:
    return lmdb.open(str(path), subdir=False, readonly=True, lock=False, create=False)


def _table(txn: Any, table: bytes) -> Iterator[tuple[bytes, memoryview]]:
    with txn.cursor() as cursor:
        there = cursor.set_range(table)
        while there and bytes(cursor.key()[: len(table)]) == table:
            yield bytes(cursor.key()[len(table) :]), cursor.value()
            there = cursor.next()


# --- CIDs and nodes ---


def varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned varint and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def split_cid(cid: bytes) -> tuple[int, bytes]:
    """Codec and multihash of a binary CID of either version."""
    if cid[:2] == b"\x12\x20" and len(cid) == 34:
        return DAG_PB, cid
    _, at = varint(cid, 0)
    codec, at = varint(cid, at)
    return codec, cid[at:]


def split_multihash(multihash: bytes) -> tuple[int, bytes]:
    """Code of the hash function, and the digest."""
    code, at = varint(multihash, 0)
    _, at = varint(multihash, at)
    return code, multihash[at:]


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag & 7 == 0:
            yield tag >> 3, value
        elif tag & 7 == 2 and at + value <= len(data):
            yield tag >> 3, data[at : at + value]
            at += value
        else:
            raise ValueError("no dag-pb")


def dag_pb_links(data: bytes) -> Iterator[bytes]:
    """The binary CIDs in a dag-pb node. Raises ValueError or IndexError for other bytes."""
    for number, link in _fields(data):
        if number == 2 and isinstance(link, bytes):
            yield from (value for field_, value in _fields(link) if field_ == 1 and isinstance(value, bytes))


def dag_cbor_links(data: bytes) -> Iterator[bytes]:
    """The binary CIDs in a DAG-CBOR node: byte strings under tag 42, behind a zero."""
    waiting = [cbor2.loads(data)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, cbor2.CBORTag) and value.tag == 42:
            yield value.value[1:]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()


_LINKS = {DAG_PB: dag_pb_links, DAG_CBOR: dag_cbor_links}


def main() -> int:
    seen = recount(Path(sys.argv[1]))
    document = {
        "findings": seen.findings,
        "blocks": len(seen.blocks),
        "bytes": seen.size_bytes,
        "bytes_by_class": seen.bytes_by_class,
        "pins": len(seen.pins),
    }
    print(json.dumps(document, indent=2))
    return 1 if seen.findings else 0


if __name__ == "__main__":
    sys.exit(main())
