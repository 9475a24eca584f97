"""What is in a CAR archive and whether it is whole: sums over its blocks, their links, and its index."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from cli.output import invalid
from merkledag import codecs, multihash

if TYPE_CHECKING:
    from cli.car_input import CarInput
    from merkledag.block import Block
    from merkledag.car_index import CarIndex
    from merkledag.car_sections import CarHeader
    from merkledag.cid import CID

INDEX_NAMES: Final = {0x0400: "sorted", 0x0401: "multihash-sorted"}


class Summary:
    """What the sections of an archive add up to."""

    def __init__(self) -> None:
        self.codecs: Counter[str] = Counter()
        self.hashes: Counter[str] = Counter()
        self.blocks = self.size_bytes = self.largest = self.smallest = 0
        self._roots: set[bytes] | None = None

    def add(self, cid: CID, size_bytes: int, header: CarHeader | None) -> None:
        """One section more."""
        if self._roots is None:
            self._roots = _root_multihashes(header)
        self._roots.discard(cid.multihash)
        self.codecs[codecs.name(cid.codec)] += 1
        self.hashes[multihash.name(cid.hash_code)] += 1
        self.smallest = min(self.smallest, size_bytes) if self.blocks else size_bytes
        self.largest = max(self.largest, size_bytes)
        self.blocks += 1
        self.size_bytes += size_bytes

    def has_roots(self, header: CarHeader | None) -> bool:
        """Whether every root was among the sections."""
        return not (_root_multihashes(header) if self._roots is None else self._roots)


def _root_multihashes(header: CarHeader | None) -> set[bytes]:
    roots = header.roots if header is not None else ()
    return {root.multihash for root in roots if not root.is_identity}


class Below:
    """Which blocks link to which, to tell what is missing below the roots."""

    def __init__(self) -> None:
        self._here: dict[bytes, tuple[CID, ...]] = {}

    def add(self, block: Block, file: str) -> None:
        """One block of the archive; exit 4 if its links cannot be read."""
        from merkledag.errors import MerkledagError, UnsupportedCodec

        links: tuple[CID, ...] = ()
        if block.cid.codec != codecs.RAW:
            try:
                links = tuple(codecs.links(block.cid, block.data))
            except UnsupportedCodec:
                links = ()
            except MerkledagError as error:
                raise invalid(f"{file}: block {block.cid}: {error}") from None
        multihash = block.cid.multihash
        if links or multihash not in self._here:
            self._here[multihash] = links

    def missing(self, roots: tuple[CID, ...]) -> list[CID]:
        """The blocks below the roots that did not come; identity CIDs are followed."""
        seen: set[bytes] = set()
        absent: list[CID] = []
        stack = list(roots)
        while stack:
            cid = stack.pop()
            if cid.multihash in seen:
                continue
            seen.add(cid.multihash)
            if cid.is_identity:
                stack += _inline_links(cid)
            elif cid.multihash in self._here:
                stack += self._here[cid.multihash]
            else:
                absent.append(cid)
        return absent


def _inline_links(cid: CID) -> list[CID]:
    from merkledag.errors import MerkledagError

    try:
        return codecs.links(cid, cid.digest)
    except MerkledagError:
        return []


def name_of_index(archive: CarInput) -> str | None:
    """The name of the index after the sections, its number if unknown, None if there is none."""
    from merkledag import varint
    from merkledag.errors import DecodeError

    header = archive.header
    if header is None or header.v2 is None or not header.v2.has_index:
        return None
    try:
        number, _ = varint.decode(archive.index(varint.MAX_VARINT_BYTES))
    except DecodeError as error:
        raise invalid(f"{archive.name}: CAR index: {error}") from None
    return INDEX_NAMES.get(number, f"0x{number:x}")


def checked_index(archive: CarInput, places: CarIndex) -> str | None:
    """The name of the index, compared with the sections; exit 4 where it is wrong."""
    from merkledag.errors import MerkledagError

    header = archive.header
    if header is None or header.v2 is None:
        return None
    if not header.v2.has_index:
        if archive.has_more():
            raise invalid(f"{archive.name}: bytes after the data of a CARv2 whose header knows of no index")
        return None
    # An index that says more than the sections do is too long, and is not read to its end.
    data = archive.index(places.max_encoded_bytes())
    try:
        return INDEX_NAMES[places.check(data)]
    except MerkledagError as error:
        raise invalid(f"{archive.name}: {error}") from None
