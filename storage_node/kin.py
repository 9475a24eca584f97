"""Who is likely to have a block of which nothing is known: whoever had the block that links to it."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress

from merkledag.cid import CID
from merkledag.codecs import RAW, links
from merkledag.errors import MerkledagError

MAX_BLOCKS = 65_536  # that are remembered, about 15 MB
MAX_ENDPOINTS = 8  # of one block


class Kin:
    """The endpoints that had a block's parent, or may have it for the same reason."""

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._endpoints: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()

    def of(self, cid: CID) -> tuple[str, ...]:
        """Endpoints, the likeliest first; none where nobody had what links to it."""
        return self._endpoints.get(cid.multihash, ())

    def came(self, cid: CID, data: bytes, endpoints: tuple[str, ...]) -> None:
        """A block has come: what it links to is asked of the same `endpoints` first."""
        self._endpoints.pop(cid.multihash, None)
        if cid.codec == RAW:
            return
        few = tuple(dict.fromkeys(endpoints))[:MAX_ENDPOINTS]
        with suppress(MerkledagError):  # others' codecs, and nodes that are none, have no links
            for link in links(cid, data)[: self._max_blocks]:
                self._endpoints[link.multihash] = few
                self._endpoints.move_to_end(link.multihash)
        while len(self._endpoints) > self._max_blocks:
            self._endpoints.popitem(last=False)
