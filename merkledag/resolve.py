"""Following a path from a root CID through directories, HAMTs, plain dag-pb links and other values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from merkledag import unixfs, values
from merkledag.cid import CID
from merkledag.codecs import CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW
from merkledag.codecs import name as codec_name
from merkledag.dag_pb import name_bytes
from merkledag.errors import DecodeError, NoSuchLink, NotADirectory, UnsupportedCodec
from merkledag.folder import lookup_by
from merkledag.nodes import Find, Nodes, finder
from merkledag.steps import Steps, Want
from merkledag.unixfs import Kind

MAX_INDEX_CHARS = 9


class Resolved(NamedTuple):
    """Where a path ends.

    `cid` is the last node; `remainder` the segments that point into its value (empty for UnixFS);
    `parents` the nodes passed before it, the root first, HAMT shards below a root left out. (To get every
    block on the way, record what the driver fetched.)
    """

    cid: CID
    remainder: tuple[str, ...] = ()
    parents: tuple[CID, ...] = ()


_WITH_VALUES = frozenset({CBOR, DAG_CBOR, DAG_JSON, JSON})


def resolve(
    cid: CID, segments: Sequence[str], *, by_name: bool = True, nodes: Nodes | None = None
) -> Steps[Resolved]:
    """Follows `segments` from `cid`; the last node itself is fetched only if segments point into it.

    Through dag-pb they are names: of entries of UnixFS directories, of links of other nodes. With `by_name`
    False they are fields of the logical format instead (`Links/0/Hash`, `Data`), as /ipld/ paths have it.
    The blocks of folders that `nodes` knows are not wanted; it is given those that it does not.

    Raises NoSuchLink where a name does not exist, NotADirectory where a file or symlink has something behind
    it, UnsupportedCodec for codecs that have no paths, DecodeError.
    """
    parents: list[CID] = []
    position = 0
    while position < len(segments):
        if cid.codec == DAG_PB and by_name:
            find = yield from finder(cid, nodes)
            child = yield from _in_dag_pb(cid, find, segments[position], nodes)
            parents.append(cid)
            cid, position = child, position + 1
            continue
        block = yield Want(cid)
        if cid.codec in _WITH_VALUES or cid.codec == DAG_PB:
            found = in_value(cid, values.decode(cid.codec, block), segments, position)
            if found is None:
                break
            child, position = found
        elif cid.codec == RAW:
            raise NotADirectory(f"{cid} is a file; nothing lies behind it at {segments[position]!r}")
        else:
            raise UnsupportedCodec(f"{cid}: paths into {codec_name(cid.codec)} are not supported")
        parents.append(cid)
        cid = child
    return Resolved(cid, tuple(segments[position:]), tuple(parents))


def _in_dag_pb(cid: CID, find: Find, segment: str, nodes: Nodes | None) -> Steps[CID]:
    link, payload = find(name_bytes(segment))
    kind = _kind(payload)
    if kind is Kind.HAMT:
        return (yield from lookup_by(cid, find, segment, nodes)).cid
    if kind is Kind.DIRECTORY:
        if link is None:
            raise NoSuchLink(segment, cid)
        return link.cid
    if kind is not None:
        raise NotADirectory(f"{cid} is a {kind.name.lower()}; nothing lies behind it at {segment!r}")
    if link is None:
        raise NoSuchLink(segment, cid)
    return link.cid


def _kind(payload: bytes | None) -> Kind | None:
    """The UnixFS kind of a node, None for dag-pb that is not UnixFS."""
    if payload is None:
        return None
    try:
        return unixfs.decode(payload).kind
    except DecodeError:
        return None


def in_value(cid: CID, value: Any, segments: Sequence[str], position: int = 0) -> tuple[CID, int] | None:
    """Follows segments inside one value: (linked CID, next position), or None if they end inside it.

    Raises NoSuchLink.
    """
    while type(value) is not CID:
        if position == len(segments):
            return None
        value = descend(cid, value, segments[position])
        position += 1
    return value, position


def descend(cid: CID, value: Any, segment: str) -> Any:
    """What is called `segment` in a map, or has that number in a list; raises NoSuchLink."""
    if type(value) is dict and segment in value:
        return value[segment]
    if type(value) is list and segment.isascii() and segment.isdecimal() and len(segment) <= MAX_INDEX_CHARS:
        number = int(segment)
        if number < len(value) and str(number) == segment:
            return value[number]
    raise NoSuchLink(segment, cid)
