"""Takes stock of a content DAG in the local store: its distinct leaf blocks and interior nodes."""

from __future__ import annotations

from dataclasses import dataclass

from merkledag.cid import CID
from merkledag.codecs import RAW, links
from merkledag.errors import MerkledagError, UnsupportedCodec
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import DamagedBlock, IncompleteDag

MAX_BLOCKS = 1 << 24


@dataclass(frozen=True, slots=True)
class Survey:
    """A DAG's distinct blocks by multihash with their lengths; interior nodes in depth-first pre-order."""

    leaves: dict[bytes, int]
    interior: dict[bytes, int]

    @property
    def leaf_bytes(self) -> int:
        """Bytes in all leaves."""
        return sum(self.leaves.values())

    @property
    def multihashes(self) -> list[bytes]:
        """Every block once."""
        return [*self.interior, *self.leaves]


def survey(store: Blockstore, root: CID) -> Survey:
    """Walk the whole DAG; raw leaves are measured, not read. Blocks of codecs we cannot read count as leaves.

    Raises IncompleteDag when a block is not in the store, DamagedBlock for one that does not decode,
    ValueError for more than ``MAX_BLOCKS``.
    """
    leaves: dict[bytes, int] = {}
    interior: dict[bytes, int] = {}
    seen: set[CID] = set()
    stack = [root]
    while stack:
        cid = stack.pop()
        if cid in seen:
            continue
        seen.add(cid)
        if len(seen) > MAX_BLOCKS:
            raise ValueError(f"a DAG of more than {MAX_BLOCKS} blocks: store its parts by themselves")
        length = len(cid.digest) if cid.is_identity else store.size(cid.multihash)
        if length is None:
            raise IncompleteDag(f"block {cid} of {root} is not here: fetch the content first")
        below = [] if cid.codec == RAW else _links(store, cid)
        if below:
            stack.extend(reversed(below))
        if cid.is_identity:
            continue
        if below:
            interior.setdefault(cid.multihash, length)
        else:
            leaves.setdefault(cid.multihash, length)
    # One block can be met as a raw leaf under one CID and as a node under another.
    return Survey({mh: length for mh, length in leaves.items() if mh not in interior}, interior)


def _links(store: Blockstore, cid: CID) -> list[CID]:
    try:
        if cid.is_identity:
            return links(cid, cid.digest)
        with store.view(cid.multihash) as view:
            return links(cid, bytes(view))
    except UnsupportedCodec:
        return []
    except MerkledagError as error:
        raise DamagedBlock(f"block {cid} does not decode: {error}", cid.multihash) from error
