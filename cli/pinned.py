"""Pinning what is here whole, telling what was pinned, and which pins need a block."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cli.output import count_text, emit, not_found, text
from merkledag.cid import CID
from storage_node.pins import PinMode, protect, protect_many
from storage_node.reach import reachable

if TYPE_CHECKING:
    from cli.home import Home
    from storage_node.pins import Pin


def pin_what_is_whole(
    home: Home, cids: Sequence[CID], mode: PinMode, name: str, metadata: dict[str, str]
) -> tuple[list[Pin], list[CID] | None]:
    """Pins the first of `cids` up to the one of which blocks are missing.

    Returns the pins and what that one lacks, None if all were pinned. Exit 4 for a block that cannot be read
    as what its CID says; nothing is pinned then.
    """
    store, recursive = home.open_store(), mode is PinMode.RECURSIVE
    whole = list(cids)
    lacking: list[CID] | None = None
    with store.lease():
        if protect_many(store, cids, recursive, strict=True):
            whole.clear()
            for cid in cids:
                lacking = protect(store, cid, recursive, strict=True) or None
                if lacking is not None:
                    break
                whole.append(cid)
        made = home.open_pins().add_many(whole, recursive, name, metadata) if whole else []
    _forget_jobs(home, made)
    return made, lacking


def move_what_is_whole(home: Home, old: CID, new: CID, *, unpin: bool) -> tuple[Pin | None, list[CID]]:
    """Moves the recursive pin of `old` to `new`, of which only what `old` does not hold is looked at.

    Returns the pin, or None and what is missing. Exit 3 if `old` is not pinned recursively.
    """
    from storage_node.errors import PinNotFound
    from storage_node.pin_difference import protect_difference

    store, pins = home.open_store(), home.open_pins()
    before = pins.get(old)
    if before is None or before.mode is not PinMode.RECURSIVE:
        raise PinNotFound(f"{old} is not pinned recursively")
    with store.lease():
        lacking = protect_difference(store, old, new)
        if lacking:
            return None, lacking
        pin = pins.update(old, new, unpin=unpin)
    _forget_jobs(home, [pin])
    return pin, []


def document_of_pin(pin: Pin) -> dict[str, Any]:
    """A pin as programs read it."""
    return {
        "cid": str(pin.cid),
        "mode": str(pin.mode),
        "name": pin.name,
        "metadata": pin.metadata,
        "created_s": pin.created_s,
    }


def say_pinned(pin: Pin, *, json_output: bool) -> None:
    """Says what was pinned."""
    if json_output:
        emit(document_of_pin(pin))
    else:
        text(f"pinned {pin.cid} {pin.mode}")


def _forget_jobs(home: Home, made: Collection[Pin]) -> None:
    """Removes the jobs of pins that are made now, where they were interrupted with everything fetched."""
    pinned = {(pin.cid.to_v1(), pin.mode) for pin in made}
    jobs = home.open_pin_jobs()
    for job in jobs.ls() if pinned else ():
        if (job.cid.to_v1(), job.mode) in pinned and not job.is_running():
            jobs.change(job.number, lambda _: None)


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


def held_for_others(home: Home) -> frozenset[bytes]:
    """The multihashes of what the storage node of this home keeps for others, running or not."""
    if not home.pieces.is_dir():
        return frozenset()
    from storage_node.piece_file import blocks_of_pieces

    return frozenset(blocks_of_pieces(home.pieces))
