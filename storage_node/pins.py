"""Pins: which DAGs and blocks this node keeps, with names; counted at once and listed in pages."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import cbor2

from merkledag.cid import CID
from merkledag.codecs import WITHOUT_LINKS
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import BlockRefused, CorruptStore, PinNotFound
from storage_node.meta import Meta, MetaWrite, Table
from storage_node.reach import reachable, refuse_unreadable

MAX_NAME_BYTES = 255  # the pinning service API's limit
MAX_METADATA_BYTES = 4096
MAX_PINNED_CID_BYTES = 200
TOUCH_BLOCKS = 1024

COUNTS_KEY = b"pin-counts"  # in Table.RECORDS: numbers of recursive and direct pins
_COUNTS = struct.Struct(">QQ")


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
        """Pin a CID, durably; a name or metadata that are empty leave what the pin has already.

        Its blocks come first: put (or `touch_many`) them under a `lease()` that is dropped after this
        call (`protect` does it for what is here). Raises BlockRefused for what is too long, and for a direct
        pin in the place of a recursive one: whoever asks for more protection must not get less.
        """
        return self.add_many([cid], recursive, name, metadata)[0]

    def add_many(
        self,
        cids: Iterable[CID],
        recursive: bool = True,
        name: str = "",
        metadata: dict[str, str] | None = None,
    ) -> list[Pin]:
        """As `add`, for all of them in one step."""
        mode, now_s = PinMode.RECURSIVE if recursive else PinMode.DIRECT, int(self._now())
        pins = [Pin(cid, mode, name, metadata or {}, now_s) for cid in cids]
        with self.write() as write:
            return [write.put(pin) for pin in pins]

    def rm(self, cid: CID, recursive: bool | None = None) -> Pin:
        """Remove a pin and return it. Raises PinNotFound, also if its mode is not the one named."""
        return self.rm_many([cid], recursive)[0]

    def rm_many(self, cids: Iterable[CID], recursive: bool | None = None) -> list[Pin]:
        """As `rm`, for all of them in one step, or none."""
        removed: list[Pin] = []
        with self.write() as write:
            for cid in cids:
                pin = write.remove(cid)
                if pin is None:
                    raise PinNotFound(f"{cid} is not pinned; nothing was changed")
                if recursive is not None and recursive != (pin.mode is PinMode.RECURSIVE):
                    raise PinNotFound(f"{cid} is pinned, but as a {pin.mode} pin; nothing was changed")
                removed.append(pin)
        return removed

    def update(self, old: CID, new: CID, *, unpin: bool = True) -> Pin:
        """Move the recursive pin of `old`, its name and metadata to `new` in one step.

        With `unpin` False the old pin stays. Raises PinNotFound. What `add` says of blocks holds here for
        those that `old` does not hold.
        """
        with self.write() as write:
            return write.move(old, new, int(self._now()), unpin=unpin)

    def forget_moves(self) -> None:
        """Pins that moved until now need no mention beside the others: for a collection before it lists them.

        See `PinWrite.move`.
        """
        with self._meta.write() as write:
            for key, _ in list(write.items(Table.PIN_MOVES)):
                write.delete(Table.PIN_MOVES, key)

    @contextmanager
    def write(self) -> Iterator[PinWrite]:
        """Several changes in one durable transaction; none of them remains after an exception."""
        with self._meta.write() as write:
            changes = PinWrite(write)
            yield changes
            changes.close()

    def settle(self) -> None:
        """See `Meta.settle`."""
        self._meta.settle()

    def get(self, cid: CID) -> Pin | None:
        """The pin of this very CID (not an indirect one), None if there is none."""
        value = self._meta.get(Table.PINS, pin_key(cid))
        return None if value is None else decode_pin(pin_key(cid), value)

    def ls(
        self, mode: PinMode | None = None, name: str | None = None, after: CID | None = None
    ) -> Iterator[Pin]:
        """Pins in the order of their binary CIDs behind `after`; by mode or exact name if given.

        Lazy: a page is `itertools.islice` of it, and the last CID of a page begins the next.
        """
        for key, value in self._entries(name, None if after is None else pin_key(after)):
            pin = decode_pin(key, value)
            if mode is None or pin.mode is mode:
                yield pin

    def count(self) -> int:
        """Number of pins, without a walk."""
        recursive, direct = self.counts()
        return recursive + direct

    def counts(self) -> tuple[int, int]:
        """How many pins are recursive and direct, without a walk."""
        value = self._meta.get(Table.RECORDS, COUNTS_KEY)
        if value is None:
            if next(self._meta.items(Table.PINS), None) is None:
                return 0, 0
            with self.write():
                pass  # a store from before there were counters gets them now
            value = self._meta.get(Table.RECORDS, COUNTS_KEY)
            assert value is not None
        recursive, direct = _COUNTS.unpack(value)
        return recursive, direct

    def recount(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Count the pins one by one and set the counters right; returns (recursive, direct) before, now."""
        before = self.counts()
        with self._meta.write() as write:
            write.delete(Table.RECORDS, COUNTS_KEY)
            PinWrite(write).close()
        return before, self.counts()

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


class PinWrite:
    """Changes of pins within one write transaction (`Pins.write`), which keeps count of them."""

    def __init__(self, write: MetaWrite) -> None:
        self.meta = write
        counted = write.get(Table.RECORDS, COUNTS_KEY)
        self._recursive, self._direct = self._count() if counted is None else _COUNTS.unpack(counted)

    def put(self, pin: Pin) -> Pin:
        """Set a pin as `Pins.add` does; returns it as it is kept."""
        key = pin_key(pin.cid)
        before = self._remove(key)
        if before is not None:
            if before.mode is PinMode.RECURSIVE and pin.mode is PinMode.DIRECT:
                raise BlockRefused(
                    f"{pin.cid} is pinned recursively: `holdfast pin rm {pin.cid}` first, to keep it alone"
                )
            pin = replace(
                pin,
                name=pin.name or before.name,
                metadata=pin.metadata or before.metadata,
                created_s=before.created_s,
            )
        value = encode_pin(pin)
        self.meta.put(Table.PINS, key, value)
        if pin.name:
            self.meta.put(Table.PIN_NAMES, _name_prefix(pin.name) + key, b"")
        self._counted(pin, 1)
        if pin.mode is PinMode.RECURSIVE and may_link(pin.cid):
            self.meta.put(Table.PIN_QUEUE, key, b"")
        return pin

    def get(self, cid: CID) -> Pin | None:
        """A pin as this transaction has it."""
        value = self.meta.get(Table.PINS, pin_key(cid))
        return None if value is None else decode_pin(pin_key(cid), value)

    def remove(self, cid: CID) -> Pin | None:
        """Remove a pin; returns it, None if there was none."""
        return self._remove(pin_key(cid))

    def move(self, old: CID, new: CID, now_s: int, *, unpin: bool) -> Pin:
        """Pin `new` as `old` is pinned, which goes if `unpin`. Raises PinNotFound.

        Of `new` perhaps only those blocks were touched that `old` does not hold, and a collection under way
        lists pins page by page and might see neither pin. So `new` is also among the other roots
        (`pin_jobs.roots`), which it reads after the pins, until the next collection begins.
        """
        before = self.get(old)
        if before is None or before.mode is not PinMode.RECURSIVE:
            raise PinNotFound(f"{old} is not pinned recursively")
        pin = replace(before, cid=new, created_s=now_s)
        if unpin:
            self.remove(old)
        pin = self.put(pin)
        self.meta.put(Table.PIN_MOVES, pin_key(new), b"")
        return pin

    def close(self) -> None:
        """Write the counters, at the end of the transaction."""
        self.meta.put(Table.RECORDS, COUNTS_KEY, _COUNTS.pack(self._recursive, self._direct))

    def _remove(self, key: bytes) -> Pin | None:
        value = self.meta.get(Table.PINS, key)
        if value is None:
            return None
        pin = decode_pin(key, value)
        self.meta.delete(Table.PINS, key)
        if pin.name:
            self.meta.delete(Table.PIN_NAMES, _name_prefix(pin.name) + key)
        self.meta.delete(Table.PIN_MOVES, key)
        self.meta.delete(Table.PIN_QUEUE, key)
        self._counted(pin, -1)
        return pin

    def _counted(self, pin: Pin, by: int) -> None:
        if pin.mode is PinMode.RECURSIVE:
            self._recursive += by
        else:
            self._direct += by

    def _count(self) -> tuple[int, int]:
        """The pins of a store that has no counters yet; all of them are queued for the index as well."""
        recursive = direct = 0
        for key, value in self.meta.items(Table.PINS):
            pin = decode_pin(key, value)
            if pin.mode is PinMode.DIRECT:
                direct += 1
                continue
            recursive += 1
            if may_link(pin.cid):
                self.meta.put(Table.PIN_QUEUE, key, b"")
        return recursive, direct


def may_link(cid: CID) -> bool:
    """False where a block of this codec never links to others."""
    return cid.codec not in WITHOUT_LINKS


def protect(store: Blockstore, root: CID, recursive: bool = True, *, strict: bool = False) -> list[CID]:
    """Stamp the blocks of a DAG that are here, so that no collection frees them; returns what is missing.

    For pinning what was not put just now; call it, and add the pin, under one `store.lease()`. With
    missing blocks the answer is complete only for the parts that could be walked: fetch and put them
    (some may have come meanwhile), then call again until nothing is missing. Raises BlockRefused for a
    block that its CID's codec cannot read, with `strict`: what it links to is not known to be here.
    """
    return protect_many(store, [root], recursive, strict=strict)


def protect_many(
    store: Blockstore, roots: Iterable[CID], recursive: bool = True, *, strict: bool = False
) -> list[CID]:
    """As `protect`, for several DAGs; what they share is walked once."""
    missing: dict[bytes, CID] = {}
    by_multihash: dict[bytes, CID] = {}

    def flush() -> None:
        missing.update((each, by_multihash[each]) for each in store.touch_many(by_multihash))
        by_multihash.clear()

    # A node that was absent when its links were wanted counts as missing even if another adder has put it
    # by the time it is touched: nobody has walked, and touched, what is below it.
    below = reachable(
        store,
        roots,
        lambda absent: missing.update({absent.multihash: absent}),
        refuse_unreadable if strict else lambda *_: None,
    )
    for cid in below if recursive else (root for root in roots if not root.is_identity):
        by_multihash[cid.multihash] = cid
        if len(by_multihash) >= TOUCH_BLOCKS:
            flush()
    flush()
    return list(missing.values())


def pin_key(cid: CID) -> bytes:
    """The key of a CID's pin. Raises BlockRefused for a CID that is too long."""
    key = bytes(cid.to_v1())
    if len(key) > MAX_PINNED_CID_BYTES:
        raise BlockRefused(f"a CID of {len(key)} bytes; at most {MAX_PINNED_CID_BYTES} can be pinned")
    return key


def name_key(pin: Pin) -> bytes | None:
    """The key of a pin in the index by name, None without a name. Raises BlockRefused."""
    return _name_prefix(pin.name) + pin_key(pin.cid) if pin.name else None


def _name_prefix(name: str) -> bytes:
    encoded = name.encode()
    if len(encoded) > MAX_NAME_BYTES or b"\0" in encoded:
        raise BlockRefused(f"a pin's name has at most {MAX_NAME_BYTES} bytes and no NUL")
    return encoded + b"\0"


def check_pin(pin: Pin) -> None:
    """Raises BlockRefused for a pin that is too long to be kept."""
    pin_key(pin.cid)
    _name_prefix(pin.name)
    encode_pin(pin)


def encode_pin(pin: Pin) -> bytes:
    """A pin as it is kept. Raises BlockRefused for what is too long."""
    value = cbor2.dumps([bytes(pin.cid), str(pin.mode), pin.name, pin.metadata, pin.created_s])
    if len(value) > MAX_METADATA_BYTES:
        raise BlockRefused(f"a pin of {len(value)} bytes with its metadata; at most {MAX_METADATA_BYTES}")
    return value


def decode_pin(key: bytes, value: bytes) -> Pin:
    """A pin as it is kept. Raises CorruptStore."""
    try:
        fields: Any = cbor2.loads(value)
        raw, mode, name, metadata, created_s = fields
        return Pin(CID.decode(raw), PinMode(mode), name, metadata, created_s)
    except (ValueError, TypeError, cbor2.CBORDecodeError) as error:
        raise CorruptStore(f"meta store: the pin {key.hex()} is damaged; restore a backup") from error
