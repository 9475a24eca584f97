"""Pins: which DAGs and blocks this node keeps, with names; listed instantly from an index, in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import cbor2

from merkledag.cid import CID
from merkledag.errors import DecodeError
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import BlockRefused, CorruptStore, PinNotFound
from storage_node.meta import Meta, MetaWrite, Table
from storage_node.reach import reachable

MAX_NAME_BYTES = 255  # the pinning service API's limit
MAX_METADATA_BYTES = 4096
MAX_PINNED_CID_BYTES = 200


class PinMode(StrEnum):
    """A recursive pin keeps the whole DAG, a direct one the block alone."""

    RECURSIVE = "recursive"
    DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Pin:
    """One pin. `cid` is as the user wrote it; CIDv0 and CIDv1 of one block are the same pin."""

    cid: CID
    mode: PinMode
    name: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    created_s: int = 0  # Unix time


class Pins:
    """The pins in a meta store. `now` gives Unix time in seconds."""

    def __init__(self, meta: Meta, now: Callable[[], float]) -> None:
        self._meta = meta
        self._now = now

    def add(
        self, cid: CID, recursive: bool = True, name: str = "", metadata: dict[str, str] | None = None
    ) -> Pin:
        """Pin a CID, durably; pinning again replaces mode, name and metadata.

        Its blocks come first: put (or `touch_many`) them under a `lease()` that is dropped after this
        call (`protect` does it for what is here). Raises BlockRefused for what is too long.
        """
        pin = Pin(
            cid, PinMode.RECURSIVE if recursive else PinMode.DIRECT, name, metadata or {}, int(self._now())
        )
        key, value = _key(cid), _encode(pin)
        with self._meta.write() as write:
            self._remove(write, key)
            _insert(write, key, name, value)
        return pin

    def rm(self, cid: CID, recursive: bool | None = None) -> Pin:
        """Remove a pin and return it. Raises PinNotFound, also if its mode is not the one named."""
        key = _key(cid)
        with self._meta.write() as write:
            pin = self._remove(write, key)
            if pin is None:
                raise PinNotFound(f"{cid} is not pinned")
            if recursive is not None and recursive != (pin.mode is PinMode.RECURSIVE):
                raise PinNotFound(f"{cid} is pinned, but as a {pin.mode} pin")
        return pin

    def update(self, old: CID, new: CID, *, unpin: bool = True) -> Pin:
        """Move the recursive pin of `old`, its name and metadata to `new` in one step.

        With `unpin` False the old pin stays. Raises PinNotFound. What `add` says of blocks holds here.
        """
        with self._meta.write() as write:
            value = write.get(Table.PINS, _key(old))
            before = None if value is None else _decode(_key(old), value)
            if before is None or before.mode is not PinMode.RECURSIVE:
                raise PinNotFound(f"{old} is not pinned recursively")
            pin = replace(before, cid=new, created_s=int(self._now()))
            if unpin:
                self._remove(write, _key(old))
            self._remove(write, _key(new))
            _insert(write, _key(new), pin.name, _encode(pin))
        return pin

    def settle(self) -> None:
        """See `Meta.settle`."""
        self._meta.settle()

    def get(self, cid: CID) -> Pin | None:
        """The pin of this very CID (not an indirect one), None if there is none."""
        value = self._meta.get(Table.PINS, _key(cid))
        return None if value is None else _decode(_key(cid), value)

    def ls(
        self, mode: PinMode | None = None, name: str | None = None, after: CID | None = None
    ) -> Iterator[Pin]:
        """Pins in the order of their binary CIDs behind `after`; by mode or exact name if given.

        Lazy: a page is `itertools.islice` of it, and the last CID of a page begins the next.
        """
        for key, value in self._entries(name, None if after is None else _key(after)):
            pin = _decode(key, value)
            if mode is None or pin.mode is mode:
                yield pin

    def count(self) -> int:
        """Number of pins; walks the index."""
        return sum(1 for _ in self._meta.items(Table.PINS))

    def indirect(self, cid: CID, store: Blockstore) -> Iterator[Pin]:
        """Recursive pins whose DAG holds the block of `cid` below its root; walks one DAG after another.

        Parts that are not here are passed over.
        """
        wanted = cid.multihash
        for pin in self.ls(PinMode.RECURSIVE):
            if pin.cid.multihash != wanted and any(
                each.multihash == wanted for each in reachable(store, [pin.cid], lambda _: None)
            ):
                yield pin

    def _entries(self, name: str | None, after: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        if name is None:
            yield from self._meta.items(Table.PINS, after=after)
            return
        prefix = _name_prefix(name)
        behind = None if after is None else prefix + after
        for index_key, _ in self._meta.items(Table.PIN_NAMES, prefix, behind):
            key = index_key[len(prefix) :]
            value = self._meta.get(Table.PINS, key)
            if value is not None:
                yield key, value

    @staticmethod
    def _remove(write: MetaWrite, key: bytes) -> Pin | None:
        value = write.get(Table.PINS, key)
        if value is None:
            return None
        pin = _decode(key, value)
        write.delete(Table.PINS, key)
        if pin.name:
            write.delete(Table.PIN_NAMES, _name_prefix(pin.name) + key)
        return pin


def protect(store: Blockstore, root: CID, recursive: bool = True, *, strict: bool = False) -> list[CID]:
    """Stamp the blocks of a DAG that are here, so that no collection frees them; returns what is missing.

    For pinning what was not put just now; call it, and add the pin, under one `store.lease()`. With
    missing blocks the answer is complete only for the parts that could be walked: fetch and put them
    (some may have come meanwhile), then call again until nothing is missing. Raises BlockRefused for a
    block that its CID's codec cannot read, with `strict`: what it links to is not known to be here.
    """
    if not recursive:
        return [root] if not root.is_identity and store.touch_many([root.multihash]) else []
    missing: dict[bytes, CID] = {}
    by_multihash: dict[bytes, CID] = {}

    def flush() -> None:
        missing.update((each, by_multihash[each]) for each in store.touch_many(by_multihash))
        by_multihash.clear()

    def refuse(cid: CID, error: DecodeError) -> None:
        if strict:
            raise BlockRefused(f"what block {cid} links to cannot be read: {error}")

    # A node that was absent when its links were wanted counts as missing even if another adder has put it
    # by the time it is touched: nobody has walked, and touched, what is below it.
    for cid in reachable(store, [root], lambda absent: missing.update({absent.multihash: absent}), refuse):
        by_multihash[cid.multihash] = cid
        if len(by_multihash) >= 1024:
            flush()
    flush()
    return list(missing.values())


def _key(cid: CID) -> bytes:
    key = bytes(cid.to_v1())
    if len(key) > MAX_PINNED_CID_BYTES:
        raise BlockRefused(f"a CID of {len(key)} bytes; at most {MAX_PINNED_CID_BYTES} can be pinned")
    return key


def _name_prefix(name: str) -> bytes:
    encoded = name.encode()
    if len(encoded) > MAX_NAME_BYTES or b"\0" in encoded:
        raise BlockRefused(f"a pin's name has at most {MAX_NAME_BYTES} bytes and no NUL")
    return encoded + b"\0"


def _insert(write: MetaWrite, key: bytes, name: str, value: bytes) -> None:
    write.put(Table.PINS, key, value)
    if name:
        write.put(Table.PIN_NAMES, _name_prefix(name) + key, b"")


def _encode(pin: Pin) -> bytes:
    value = cbor2.dumps([bytes(pin.cid), str(pin.mode), pin.name, pin.metadata, pin.created_s])
    if len(value) > MAX_METADATA_BYTES:
        raise BlockRefused(f"a pin of {len(value)} bytes with its metadata; at most {MAX_METADATA_BYTES}")
    return value


def _decode(key: bytes, value: bytes) -> Pin:
    try:
        fields: Any = cbor2.loads(value)
        raw, mode, name, metadata, created_s = fields
        return Pin(CID.decode(raw), PinMode(mode), name, metadata, created_s)
    except (ValueError, TypeError, cbor2.CBORDecodeError) as error:
        raise CorruptStore(f"meta store: the pin {key.hex()} is damaged; restore a backup") from error
