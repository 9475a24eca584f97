"""What is in a CAR archive and whether it is whole: sums over its blocks, their links, and its index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from cli.output import invalid
from merkledag import codecs, multihash

if TYPE_CHECKING:
    from cli.car_input import CarInput
    from merkledag.block import Block
    from merkledag.car_index import CarIndex
    from merkledag.car_sections import CarHeader
    from merkledag.cid import CID

HERE: Final = 1  # what is known of a block
WANTED: Final = 2
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
    """Tells what is missing below the roots while blocks come, in any order.

    About 50 bytes a block; and the links of those that come before anything links to them.
    """

    def __init__(self, roots: Iterable[CID]) -> None:
        from storage_node.fingerprints import FingerprintTable

        self._blocks = FingerprintTable()  # by multihash
        self._links: dict[bytes, list[CID]] = {}  # of blocks that nothing wanted so far
        self._awaited: dict[bytes, CID] = {}
        self._want(list(roots))

    def add(self, block: Block, file: str) -> None:
        """One block of the archive; exit 4 if its links cannot be read."""
        from merkledag.errors import MerkledagError, UnsupportedCodec

        links: list[CID] = []
        if block.cid.codec != codecs.RAW:
            try:
                links = codecs.links(block.cid, block.data)
            except UnsupportedCodec:
                links = []
            except MerkledagError as error:
                raise invalid(f"{file}: block {block.cid}: {error}") from None
        multihash = block.cid.multihash
        before = self._blocks.add(multihash, HERE)
        if before >= 0 and before & WANTED:
            self._awaited.pop(multihash, None)
            self._want(links)
        elif links:
            self._links[multihash] = links

    def missing(self) -> list[CID]:
        """The blocks below the roots that did not come."""
        return list(self._awaited.values())

    def _want(self, stack: list[CID]) -> None:
        """These, and what hangs below those of them that came before; identity CIDs are followed."""
        while stack:
            cid = stack.pop()
            before = self._blocks.add(cid.multihash, WANTED)
            if before >= 0 and before & WANTED:
                continue
            if cid.is_identity:
                stack += _inline_links(cid)
            elif before >= 0:
                stack += self._links.pop(cid.multihash, ())
            else:
                self._awaited[cid.multihash] = cid


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
