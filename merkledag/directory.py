"""Building UnixFS folders: one flat node, or a HAMT when that node would be too large (IPIP-499)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from merkledag import dag_pb, unixfs
from merkledag.block import MAX_BLOCK_BYTES, Block
from merkledag.builder import Link, make_block
from merkledag.cid import CID
from merkledag.errors import LimitExceeded
from merkledag.hamt import Item, hash_name
from merkledag.hamt import build as build_hamt
from merkledag.profile import ImportProfile
from merkledag.unixfs import Data, Kind, Mtime

MAX_NAME_BYTES = 1_024

Sharding = Literal["auto", "always", "never"]
Row = tuple[bytes, CID, int | None]  # an entry: name, CID, byte size of its whole DAG if known


class DirEntry(NamedTuple):
    """One entry of a folder; `tsize` is the byte size of the entry's whole DAG."""

    name: str
    cid: CID
    tsize: int


def build_directory(
    profile: ImportProfile,
    entries: Iterable[DirEntry],
    mode: int | None = None,
    mtime: Mtime | None = None,
    hamt: Sharding = "auto",
) -> tuple[Link, list[Block]]:
    """A folder's root and its blocks, the root last. Entries may come in any order.

    Raises ValueError for repeated names and names that no folder can hold (empty, `.`, `..`, with `/` or
    NUL, over `MAX_NAME_BYTES`), and LimitExceeded if a flat folder was demanded and its block is too large.
    """
    rows = sorted(((checked_name(entry.name), entry.cid, entry.tsize) for entry in entries), key=_name)
    for (name, _, _), (following, _, _) in pairwise(rows):
        if name == following:
            raise ValueError(f"the name {name.decode(errors='replace')!r} comes twice in one folder")
    return write_folder(profile, rows, mode, mtime, hamt)


def _name(row: Row) -> bytes:
    return row[0]


def checked_name(name: str) -> bytes:
    """A name's bytes; ValueError for names that no folder can hold."""
    raw = dag_pb.name_bytes(name)
    if not raw or raw in (b".", b"..") or b"/" in raw or b"\0" in raw or len(raw) > MAX_NAME_BYTES:
        raise ValueError(f"{name[:80]!r} cannot be a name in a folder")
    return raw


def write_folder(
    profile: ImportProfile,
    rows: Sequence[Row],
    mode: int | None = None,
    mtime: Mtime | None = None,
    hamt: Sharding = "auto",
) -> tuple[Link, list[Block]]:
    """As `build_directory`, for names that are sorted, distinct and not checked further."""
    encoded = None if hamt == "always" else _flat_links(profile, rows, mode, mtime, grows=hamt == "auto")
    if encoded is None:
        return build_hamt(profile, [Item(hash_name(row[0]), *row) for row in rows], mode, mtime)
    message = unixfs.encode(Data(Kind.DIRECTORY, mode=mode, mtime=mtime))
    size = sum(map(len, encoded)) + len(dag_pb.assemble((), message))
    if size > MAX_BLOCK_BYTES:
        raise LimitExceeded(f"a flat folder of {size} bytes; at most {MAX_BLOCK_BYTES}, use a HAMT")
    block = make_block(profile, dag_pb.assemble(encoded, message))
    return Link(block.cid, 0, size + sum(tsize or 0 for _, _, tsize in rows)), [block]


def _flat_links(
    profile: ImportProfile, rows: Sequence[Row], mode: int | None, mtime: Mtime | None, *, grows: bool
) -> list[bytes] | None:
    """The encoded links of a flat folder. None if it `grows` into a HAMT, found out as early as possible."""
    size = envelope_bytes(profile, mode, mtime)
    if grows and outgrown(profile, len(rows), size):
        return None
    by_links = profile.hamt_estimate == "links"
    encoded: list[bytes] = []
    for name, cid, tsize in rows:
        link = dag_pb.encode_link(cid, name, tsize)
        encoded.append(link)
        size += len(name) + len(bytes(cid)) if by_links else len(link)
        if grows and size > profile.hamt_threshold_bytes and outgrown(profile, len(rows), size):
            return None
    return encoded


def entry_bytes(profile: ImportProfile, name: bytes, cid: CID, tsize: int | None) -> int:
    """What an entry adds to the size that is compared with the threshold."""
    if profile.hamt_estimate == "links":
        return len(name) + len(bytes(cid))
    return len(dag_pb.encode_link(cid, name, tsize))


def envelope_bytes(profile: ImportProfile, mode: int | None, mtime: Mtime | None) -> int:
    """That size of a folder without entries."""
    if profile.hamt_estimate == "links":
        return 0
    return len(dag_pb.assemble((), unixfs.encode(Data(Kind.DIRECTORY, mode=mode, mtime=mtime))))


def outgrown(profile: ImportProfile, count: int, estimate_bytes: int) -> bool:
    """Whether a folder of `count` entries and that estimated size is a HAMT; an empty one never is."""
    if not profile.hamt_threshold_bytes or not count:
        return False
    limit = profile.max_directory_links
    return estimate_bytes > profile.hamt_threshold_bytes or (limit is not None and count > limit)
