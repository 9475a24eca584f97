"""DAG-PB nodes: named, sized links and opaque data (IPLD dag-pb spec)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from merkledag.cid import CID
from merkledag.errors import DecodeError, InvalidCID
from merkledag.protobuf import MAX_VARINT64_BYTES, read_length, read_varint, varint
from merkledag.steps import Buffer

LINK_TAG = 0x12
DATA_TAG = 0x0A
_HASH_TAG = 0x0A
_NAME_TAG = 0x12
_TSIZE_TAG = 0x18


class PBLink(NamedTuple):
    """One link. `name` and `tsize` are None where the field is absent.

    Names that are not UTF-8 carry surrogate escapes, as file names do in Python.
    """

    cid: CID
    name: str | None = None
    tsize: int | None = None


class PBNode(NamedTuple):
    """A decoded node; `data` is None where the field is absent (an empty field is `b""`)."""

    links: tuple[PBLink, ...] = ()
    data: bytes | None = None

    @property
    def below_bytes(self) -> int:
        """What the links declare for all blocks below the node."""
        return sum(link.tsize or 0 for link in self.links)


def name_bytes(name: str) -> bytes:
    """A link name as it is on the wire; ValueError for lone surrogates that stand for no byte."""
    return name.encode("utf-8", "surrogateescape")


def encode_link(cid: CID, name: bytes | None, tsize: int | None) -> bytes:
    """One link with its tag and length, as it stands in a node."""
    raw = bytes(cid)
    if name is not None and tsize is not None:
        number = varint(tsize)
        length = 5 + len(raw) + len(name) + len(number)
        if length < 0x80:  # one byte for each length: nearly every link, three times as fast
            return b"\x12%c\x0a%c%b\x12%c%b\x18%b" % (length, len(raw), raw, len(name), name, number)
    body = b"\x0a" + varint(len(raw)) + raw
    if name is not None:
        body += b"\x12" + varint(len(name)) + name
    if tsize is not None:
        body += b"\x18" + varint(tsize)
    return b"\x12" + varint(len(body)) + body


def assemble(encoded_links: Iterable[bytes], data: bytes | None) -> bytes:
    """A node from links already encoded, in their order, and its data: links come first."""
    links = b"".join(encoded_links)
    return links if data is None else b"".join((links, b"\x0a", varint(len(data)), data))


def assemble_leaf(parts: list[bytes]) -> bytes:
    """A node without links whose data comes in parts, so that a large part is copied once."""
    return b"".join((b"\x0a", varint(sum(map(len, parts))), *parts))


def encode(node: PBNode) -> bytes:
    """The block of `node`; links stay in the order given (canonical: sorted by name, stable)."""
    return assemble(
        (
            encode_link(cid, None if name is None else name_bytes(name), tsize)
            for cid, name, tsize in node.links
        ),
        node.data,
    )


def fields(data: bytes, position: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yields (tag, start, end) of every field of a node from `position` on, where only links were passed.

    Links stand together, before or after the data. Raises DecodeError.
    """
    size = len(data)
    has_data = False
    before_data = position > 0  # whether links came before the data
    while position < size:
        tag = data[position]
        if tag == LINK_TAG:
            if not has_data:
                before_data = True
            elif before_data:
                raise DecodeError("dag-pb: links before and after the data")
        elif tag == DATA_TAG:
            if has_data:
                raise DecodeError("dag-pb: the data field comes twice")
            has_data = True
        else:
            raise DecodeError(f"dag-pb: unknown field (tag 0x{tag:02x})")
        position += 1
        if position < size and data[position] < 0x80 and position + data[position] < size:
            start = position + 1
            end = start + data[position]
        else:
            start, end = read_length(data, position)
        yield tag, start, end
        position = end


_INDEX_BYTES = 400
_INDEXED_LINK_BYTES = 240  # a name, a pair of numbers and their place in a dict

Row = tuple[CID, bytes | None, int | None]  # a link as it is on the wire: CID, name, size


def read_row(data: bytes, start: int, end: int) -> Row:
    """The link in data[start:end]; fields in the order CID, name, size, none twice, none unknown."""
    cid: CID | None = None
    name: bytes | None = None
    tsize: int | None = None
    position = start
    while position < end:
        tag = data[position]
        if tag == _HASH_TAG and cid is None and name is None and tsize is None:
            first, position = read_length(data, position + 1)
            if position > end:
                break
            try:
                cid = CID.decode(data[first:position])
            except InvalidCID as error:
                raise DecodeError(f"dag-pb: a link's CID is broken: {error}") from error
        elif tag == _NAME_TAG and name is None and tsize is None:
            first, position = read_length(data, position + 1)
            name = data[first:position]
        elif tag == _TSIZE_TAG and tsize is None:
            tsize, position = read_varint(data, position + 1)
        else:
            raise DecodeError(f"dag-pb: unknown, repeated or misplaced field in a link (tag 0x{tag:02x})")
    if position != end:
        raise DecodeError("dag-pb: a link's field runs past its end")
    if cid is None:
        raise DecodeError("dag-pb: a link has no CID")
    return cid, name, tsize


def read_link(data: bytes, start: int, end: int) -> PBLink:
    """As `read_row`, with the name as text."""
    return _link(read_row(data, start, end))


def _link(row: Row) -> PBLink:
    cid, name, tsize = row
    return PBLink(cid, None if name is None else name.decode("utf-8", "surrogateescape"), tsize)


def _read_usual(raw: bytes, out: list[Row]) -> int:
    """Reads the links that a node begins with into `out` until one is unusual; returns where that one begins.

    Usual is a CID, a name and a size, all in less than 128 bytes: nearly every link, read without detours.
    """
    append, decode_cid = out.append, CID.decode
    start = 0
    try:
        while raw[start] == LINK_TAG and raw[start + 1] < 0x80 and raw[start + 2] == _HASH_TAG:
            end = start + 2 + raw[start + 1]
            after_cid = start + 4 + raw[start + 3]
            after_name = after_cid + 2 + raw[after_cid + 1]
            if after_name >= end or raw[after_cid] != _NAME_TAG or raw[after_name] != _TSIZE_TAG:
                break
            last = after_name + 1
            byte = raw[last]
            tsize, shift = byte & 0x7F, 7
            while byte >= 0x80:
                last += 1
                byte = raw[last]
                tsize |= (byte & 0x7F) << shift
                shift += 7
            if last + 1 != end or shift > 63:
                break
            append((decode_cid(raw[start + 4 : after_cid]), raw[after_cid + 2 : after_name], tsize))
            start = end
    except (IndexError, InvalidCID):
        pass  # the careful reader finds the reason
    return start


def decode(data: Buffer) -> PBNode:
    """The node in a block.

    Accepts links before or after the data; raises DecodeError for anything that is not a dag-pb node.
    """
    rows, payload = decode_rows(data)
    return PBNode(tuple([_link(row) for row in rows]), payload)


def decode_rows(data: Buffer) -> tuple[list[Row], bytes | None]:
    """The same as it is on the wire, which takes less time: the links' rows and the data."""
    raw = bytes(data)
    rows: list[Row] = []
    payload: bytes | None = None
    for tag, start, end in fields(raw, _read_usual(raw, rows)):
        if tag == LINK_TAG:
            rows.append(read_row(raw, start, end))
        else:
            payload = raw[start:end]
    return rows, payload


def payload(data: Buffer) -> bytes | None:
    """The data field alone, without reading the links' insides; raises DecodeError."""
    raw = bytes(data)
    found: bytes | None = None
    count, stride, _ = uniform_run(raw)
    for tag, start, end in fields(raw, count * stride):
        if tag == DATA_TAG:
            found = raw[start:end]
    return found


def find(data: Buffer, *names: bytes) -> tuple[PBLink | None, bytes | None]:
    """(first link with one of `names`, the data field), without reading the other links' insides.

    Raises DecodeError if the fields do not fill the block or the link found is broken.
    """
    raw = bytes(data)
    needles = tuple([b"\x12" + varint(len(name)) + name for name in names])
    found: PBLink | None = None
    position, size = 0, len(raw)
    try:
        while position < size and raw[position] == LINK_TAG:
            start = position + 2
            length = raw[position + 1]
            if length >= 0x80:
                start, position = read_length(raw, position + 1)
            else:
                position = start + length
            if found is None:
                # The name comes after the CID: 0x0a, its length, its bytes. A match elsewhere must not count.
                at = start + 2 + raw[start + 1]
                usual = at < position and raw[start] == _HASH_TAG and raw[start + 1] < 0x80
                if usual and raw[at] == _NAME_TAG and not raw.startswith(needles, at, position):
                    continue
                row = read_row(raw, start, position)
                if row[1] in names:
                    found = _link(row)
    except IndexError:
        raise DecodeError("dag-pb: the block ends inside a link") from None
    if position > size:
        raise DecodeError("dag-pb: the block ends inside a link")
    payload: bytes | None = None
    for tag, start, end in fields(raw, position):
        if tag == DATA_TAG:
            payload = raw[start:end]
        elif found is None:  # links after the data
            row = read_row(raw, start, end)
            if row[1] in names:
                found = _link(row)
    return found, payload


class Index:
    """The links of a node by their names, for many look-ups; each is made only when it is found."""

    __slots__ = ("_raw", "_spans", "payload")

    def __init__(self, data: Buffer) -> None:
        """Raises DecodeError if the fields do not fill the block or a link of unusual shape is broken."""
        self._raw = raw = bytes(data)
        self.payload: bytes | None = None
        self._spans: dict[bytes, tuple[int, int]] = {}  # of the first link with a name
        for tag, start, end in fields(raw):
            if tag == DATA_TAG:
                self.payload = raw[start:end]
                continue
            # As in `find`: 0x0a, CID, 0x12, name. What runs past the end is left to the careful reader.
            at = start + 2 + raw[start + 1] if end - start > 2 else end
            usual = (
                at + 1 < end and raw[start] == _HASH_TAG and raw[start + 1] < 0x80 and raw[at] == _NAME_TAG
            )
            first = at + 2
            if usual and raw[at + 1] < 0x80 and first + raw[at + 1] <= end:
                name: bytes | None = raw[first : first + raw[at + 1]]
            else:
                name = read_row(raw, start, end)[1]
            if name is not None and name not in self._spans:
                self._spans[name] = (start, end)

    def find(self, *names: bytes) -> tuple[PBLink | None, bytes | None]:
        """As the function of that name."""
        spans = [self._spans[name] for name in names if name in self._spans]
        return read_link(self._raw, *min(spans)) if spans else None, self.payload

    @property
    def kept_bytes(self) -> int:
        """About the memory that it takes."""
        return len(self._raw) + _INDEXED_LINK_BYTES * len(self._spans) + _INDEX_BYTES


_CONTINUES = bytes(0x80) + b"\1" * 0x80  # maps each byte of a varint to whether another follows


def uniform_run(raw: bytes) -> tuple[int, int, int]:
    """(count, stride, end of the CID within a link) of the like-shaped nameless links that `raw` begins with.

    Nodes of large files hold a thousand links of one shape: their fixed bytes are compared column by column,
    which takes microseconds. Link i is raw[i·stride : (i+1)·stride], its CID begins at its fourth byte.
    """
    none = (0, 0, 0)
    if len(raw) < 8 or raw[0] != LINK_TAG or raw[1] >= 0x80 or raw[2] != _HASH_TAG or raw[3] >= 0x80:
        return none
    stride = 2 + raw[1]
    at = cid_end = 4 + raw[3]
    fixed = [0, 1, 2, 3]
    if raw[at : at + 2] == b"\x12\0":
        fixed += (at, at + 1)
        at += 2
    if raw[at : at + 1] != b"\x18" or not at + 1 < stride <= min(len(raw), at + MAX_VARINT64_BYTES):
        return none  # a size of so many bytes may be over 64 bits, and is left to the careful reader
    fixed.append(at)
    count = min([_same(raw[column::stride]) for column in fixed])
    for column in range(at + 1, stride):
        marks = raw[column::stride].translate(_CONTINUES)
        if marks[0] != (column < stride - 1):
            return none
        count = min(count, _same(marks))
    return count, stride, cid_end


def _same(column: bytes) -> int:
    """How many equal bytes a column begins with."""
    return len(column) - len(column.lstrip(column[:1]))


def links(data: Buffer) -> list[CID]:
    """The CIDs that a block links to, in order, with repetitions; raises DecodeError."""
    raw = bytes(data)
    count, stride, cid_end = uniform_run(raw)
    if not count:
        return [cid for cid, _, _ in decode_rows(raw)[0]]
    try:
        cids = [CID.decode(raw[at + 4 : at + cid_end]) for at in range(0, count * stride, stride)]
    except InvalidCID as error:
        raise DecodeError(f"dag-pb: a link's CID is broken: {error}") from error
    for tag, start, end in fields(raw, count * stride):
        if tag == LINK_TAG:
            cids.append(read_row(raw, start, end)[0])
    return cids
