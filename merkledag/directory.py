"""Building UnixFS folders: one flat node, or a HAMT when that node would be too large (IPIP-499)."""

from __future__ import annotations

from collections.abc import Iterable
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
    named = sorted(((_checked(entry.name), entry) for entry in entries), key=_name)
    for (name, _), (following, _) in pairwise(named):
        if name == following:
            raise ValueError(f"the name {name.decode(errors='replace')!r} comes twice in one folder")
    if hamt == "always" or (hamt == "auto" and _exceeds_by_links(profile, named)):
        return _sharded(profile, named, mode, mtime)
    encoded = [dag_pb.encode_link(entry.cid, name, entry.tsize) for name, entry in named]
    message = unixfs.encode(Data(Kind.DIRECTORY, mode=mode, mtime=mtime))
    size = sum(map(len, encoded)) + len(dag_pb.assemble((), message))
    if hamt == "auto" and profile.hamt_estimate == "block" and size > profile.hamt_threshold_bytes:
        return _sharded(profile, named, mode, mtime)
    if size > MAX_BLOCK_BYTES:
        raise LimitExceeded(f"a flat folder of {size} bytes; at most {MAX_BLOCK_BYTES}, use a HAMT")
    block = make_block(profile, dag_pb.assemble(encoded, message))
    return Link(block.cid, 0, size + sum(entry.tsize for _, entry in named)), [block]


def _name(item: tuple[bytes, DirEntry]) -> bytes:
    return item[0]


def _checked(name: str) -> bytes:
    raw = dag_pb.name_bytes(name)
    if not raw or raw in (b".", b"..") or b"/" in raw or b"\0" in raw or len(raw) > MAX_NAME_BYTES:
        raise ValueError(f"{name[:80]!r} cannot be a name in a folder")
    return raw


def _exceeds_by_links(profile: ImportProfile, named: list[tuple[bytes, DirEntry]]) -> bool:
    if profile.hamt_estimate != "links":
        return False
    return sum(len(name) + len(bytes(entry.cid)) for name, entry in named) > profile.hamt_threshold_bytes


def _sharded(
    profile: ImportProfile, named: list[tuple[bytes, DirEntry]], mode: int | None, mtime: Mtime | None
) -> tuple[Link, list[Block]]:
    items = [Item(hash_name(name), name, entry.cid, entry.tsize) for name, entry in named]
    return build_hamt(profile, items, mode, mtime)
