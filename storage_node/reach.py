"""Which local blocks a set of roots needs; reads no raw leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from merkledag import multihash as mh
from merkledag.cid import CID
from merkledag.codecs import RAW, links
from merkledag.errors import DecodeError, UnsupportedCodec, UnsupportedHash
from merkledag.steps import inline
from storage_node.blockstore.interface import Blockstore, Buffer
from storage_node.errors import BlockRefused, DamagedBlock
from storage_node.fingerprints import FingerprintSet

Missing = Callable[[CID], None]  # called for a block that links are needed from and that is not here
Unreadable = Callable[[CID, DecodeError], None]  # … for one that never was what its CID's codec says


def reachable(
    store: Blockstore, roots: Iterable[CID], missing: Missing, unreadable: Unreadable = lambda *_: None
) -> Iterator[CID]:
    """Every CID below the roots and the roots themselves, depth first; identity CIDs are left out.

    One multihash may come more than once (under several codecs, or as a leaf of several parents). Links
    are read where the codec is known and the block decodes; raw leaves are yielded without a look
    whether they are here. `missing` and `unreadable` may raise to stop. Raises DamagedBlock where a block
    does not decode because its bytes are damaged.
    """
    seen = FingerprintSet()
    for root in roots:
        pending = [root]
        while pending:
            cid = pending.pop()
            if cid.codec == RAW:
                if not cid.is_identity:
                    yield cid
                continue
            if not seen.add(bytes(cid.to_v1())):
                continue
            if not cid.is_identity:
                yield cid
            pending.extend(reversed(node_links(store, cid, missing, unreadable)))


def node_links(
    store: Blockstore, cid: CID, missing: Missing, unreadable: Unreadable = lambda *_: None
) -> list[CID]:
    """What one block links to, in order, with repetitions; `reachable` says what the callbacks are for.

    Raises DamagedBlock.
    """
    carried = inline(cid)
    if carried is not None:
        return _decoded(cid, carried, unreadable)
    view = store.find(cid.multihash)
    if view is None:
        missing(cid)
        return []
    with view as block:
        return _decoded(cid, block, unreadable)


def refuse_unreadable(cid: CID, error: DecodeError) -> None:
    """An `Unreadable` for whoever must know that everything is here. Raises BlockRefused."""
    raise BlockRefused(f"what block {cid} links to cannot be read: {error}")


def _decoded(cid: CID, block: Buffer, unreadable: Unreadable) -> list[CID]:
    try:
        return links(cid, block)
    except UnsupportedCodec:
        return []  # others' formats are kept as they are; what they refer to is not known
    except DecodeError as error:
        try:
            intact = mh.verify(cid.multihash, block)
        except UnsupportedHash:
            intact = True
        if intact:
            unreadable(cid, error)
            return []  # bytes that never were what the CID's codec says have no links
        raise DamagedBlock(f"block {cid} is damaged; run `holdfast repo verify`", cid.multihash) from None
