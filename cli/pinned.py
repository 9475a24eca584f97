"""Pinning what is here whole, and telling which pins need a block."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from cli.output import count_text, not_found
from merkledag.cid import CID
from storage_node.pins import PinMode, protect
from storage_node.reach import reachable

if TYPE_CHECKING:
    from cli.home import Home
    from storage_node.pins import Pin


def pin_complete(home: Home, cid: CID, *, recursive: bool, name: str) -> Pin:
    """Pins `cid` after making sure that all of it is here and stays; exit 3 naming what is missing."""
    with home.open_store().lease():
        require_complete(home, cid, recursive=recursive)
        return home.open_pins().add(cid, recursive=recursive, name=name)


def require_complete(home: Home, cid: CID, *, recursive: bool) -> None:
    """Stamps the blocks of `cid` against collection (hold a lease).

    Exit 3 when some are not here, 4 when one cannot be read as what its CID says.
    """
    missing = protect(home.open_store(), cid, recursive, strict=True)
    if missing:
        lacks = count_text(len(missing), "block")
        raise not_found(f"{cid} cannot be pinned: it lacks {lacks} here, for example {missing[0]}")


def needed_by(home: Home, cids: Collection[CID]) -> Iterator[tuple[CID, Pin]]:
    """Pairs (block, pin) for those of `cids` that pins keep, themselves or inside their DAGs."""
    from storage_node.pin_index import PinIndex

    if not cids:
        return
    index = PinIndex(home.open_meta(), home.open_pins(), home.open_store())
    for cid in cids:
        for pin in index.holders(cid):
            yield cid, pin


def in_mutable_tree(home: Home, cids: Collection[CID]) -> Iterator[CID]:
    """Those of `cids` that the mutable tree of this home holds."""
    from storage_node import mfs

    wanted = {cid.multihash: cid for cid in cids}
    walk = reachable(home.open_store(), mfs.roots(home.open_meta()) if wanted else (), lambda _: None)
    yield from {wanted[each.multihash] for each in walk if each.multihash in wanted}


def missing_of(home: Home, pin: Pin) -> list[CID]:
    """The blocks of a pin that are not in the store, as far as links can be read."""
    store = home.open_store()
    if pin.mode is PinMode.DIRECT:
        return [] if pin.cid.is_identity or store.has(pin.cid.multihash) else [pin.cid]
    walk = reachable(store, [pin.cid], lambda _: None)
    return [cid for cid in walk if not store.has(cid.multihash)]


def held_for_others(home: Home) -> frozenset[bytes]:
    """What the storage node of this home keeps for others; its code is not imported where there is none."""
    if not (home.meta / "pieces").is_dir():
        return frozenset()
    from cli.compose import held_by_node

    return held_by_node(home)
