"""Following a path from a root CID through directories, HAMTs, plain dag-pb links and DAG-CBOR values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from merkledag import dag_pb, unixfs
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_JSON, DAG_PB, RAW
from merkledag.codecs import name as codec_name
from merkledag.dag_pb import name_bytes
from merkledag.errors import DecodeError, NoSuchLink, NotADirectory, UnsupportedCodec
from merkledag.folder import lookup_in
from merkledag.steps import Buffer, Steps, Want
from merkledag.unixfs import Kind


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a path ends.

    `cid` is the last node; `remainder` the segments that point into its value (DAG-CBOR only, else empty);
    `parents` the nodes passed before it, the root first, HAMT shards below a root left out. (To get every
    block on the way, record what the driver fetched.)
    """

    cid: CID
    remainder: tuple[str, ...] = ()
    parents: tuple[CID, ...] = ()


def resolve(cid: CID, segments: Sequence[str]) -> Steps[Resolved]:
    """Follows `segments` from `cid`; the last node itself is fetched only if segments point into it.

    Raises NoSuchLink where a name does not exist, NotADirectory where a file or symlink has something behind
    it, UnsupportedCodec for codecs that have no paths, DecodeError.
    """
    parents: list[CID] = []
    position = 0
    while position < len(segments):
        block = yield Want(cid)
        if cid.codec == DAG_PB:
            child = yield from _in_dag_pb(cid, block, segments[position])
            position += 1
        elif cid.codec in (DAG_CBOR, DAG_JSON):
            found = _in_value(cid, _value(cid.codec, block), segments, position)
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


def _value(codec: int, block: Buffer) -> Any:
    """The node of a block; the decoders are imported late, for UnixFS paths do without."""
    if codec == DAG_JSON:
        from merkledag import dag_json

        return dag_json.decode(bytes(block))
    from merkledag import dag_cbor  # cbor2 takes 40 ms to import

    return dag_cbor.decode_lenient(block)


def _in_dag_pb(cid: CID, block: Buffer, segment: str) -> Steps[CID]:
    link, payload = dag_pb.find(block, name_bytes(segment))
    kind = _kind(payload)
    if kind in (Kind.DIRECTORY, Kind.HAMT):
        return (yield from lookup_in(cid, block, segment)).cid
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


def _in_value(cid: CID, value: Any, segments: Sequence[str], position: int) -> tuple[CID, int] | None:
    """Follows segments inside one value: (linked CID, next position), or None if they end inside it."""
    while True:
        if type(value) is CID:
            return value, position
        if position == len(segments):
            return None
        segment = segments[position]
        position += 1
        if type(value) is dict and segment in value:
            value = value[segment]
        elif type(value) is list and segment.isascii() and segment.isdecimal() and len(segment) <= 9:
            if int(segment) >= len(value) or str(int(segment)) != segment:
                raise NoSuchLink(segment, cid)
            value = value[int(segment)]
        else:
            raise NoSuchLink(segment, cid)
